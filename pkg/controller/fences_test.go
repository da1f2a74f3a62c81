package controller

import (
	"encoding/json"
	"testing"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
	"gotest.tools/v3/assert"
)

// A report of what has a fence goes only while the host has no lease and has
// taken none since that was seen.
func TestFencedReportIsForgottenOnlyWhileItsHostHasNoLease(t *testing.T) {
	s := store.New(storetest.Start(t), "f")
	c := &Controller{store: s}
	put := func(key string, v any) int64 {
		t.Helper()
		r, err := s.Txn().Put(key, v).Commit(t.Context())
		assert.NilError(t, err)
		return r
	}
	o := record.Observed{Task: "t1", Host: "h1", Fence: time.Minute}
	report, lease, fence := s.Keys.Observed("h1", "t1"), s.Keys.HostLease("h1"), s.Keys.HostFence("h1")
	put(report, o)
	v := view{fences: map[string]int64{"h1": put(fence, record.HostFence{Boot: "1"})}}
	v.App.Desired = record.DesiredRunning
	forget := func() error {
		txn := s.Txn()
		c.forgets(txn, v, o)
		_, err := txn.Commit(t.Context())
		return err
	}
	put(lease, record.HostLease{})
	assert.ErrorIs(t, forget(), store.ErrConflict, "the host is back")
	again := put(fence, record.HostFence{Boot: "1"})
	_, err := s.Txn().Delete(lease).Commit(t.Context())
	assert.NilError(t, err)
	assert.ErrorIs(t, forget(), store.ErrConflict, "it was back meanwhile")
	v.fences["h1"] = again
	assert.NilError(t, forget())
	_, err = store.Get[record.Observed](t.Context(), s, report)
	assert.ErrorIs(t, err, store.ErrNotFound)
}

func TestHostsAreGoneSinceTheyWereSeenToHaveNoLease(t *testing.T) {
	c := newCache("f")
	put := func(key string, v any) store.Raw {
		b, err := json.Marshal(v)
		assert.NilError(t, err)
		return store.Raw{Key: key, Value: b, Revision: 1}
	}
	lease, fence := put(c.keys.HostLease("h1"), record.HostLease{}), put(c.keys.HostFence("h1"), record.HostFence{})
	gone := func(in time.Duration) time.Duration {
		d, counts := c.gone(time.Now().Add(in))["h1"]
		if !counts {
			return -1
		}
		return d.Round(time.Minute)
	}
	c.apply(store.Change{Reset: true, Puts: []store.Raw{put(c.keys.HostSpec("h1"), record.Host{ID: "h1"}), lease}})
	assert.Equal(t, gone(time.Hour), time.Duration(-1), "it has a lease")
	c.apply(store.Change{Deletes: []string{lease.Key}})
	assert.Equal(t, gone(time.Hour), time.Duration(-1), "nothing guards it")
	c.apply(store.Change{Puts: []store.Raw{fence}})
	assert.Equal(t, gone(time.Hour), time.Hour)
	// What is counted goes on when its spec changes, and begins anew when the
	// fence has, or everything was read again.
	c.leaseGone["h1"] = time.Now().Add(-time.Hour)
	c.apply(store.Change{Puts: []store.Raw{put(c.keys.HostSpec("h1"), record.Host{ID: "h1"})}})
	assert.Equal(t, gone(0), time.Hour)
	c.apply(store.Change{Puts: []store.Raw{fence}})
	assert.Equal(t, gone(0), time.Duration(0))
	c.leaseGone["h1"] = time.Now().Add(-time.Hour)
	c.apply(store.Change{Reset: true, Puts: []store.Raw{put(c.keys.HostSpec("h1"), record.Host{ID: "h1"}), fence}})
	assert.Equal(t, gone(0), time.Duration(0))
	c.apply(store.Change{Puts: []store.Raw{put(fence.Key, record.HostFence{Unguarded: true})}})
	assert.Equal(t, gone(time.Hour), time.Duration(-1), "it runs on without its agent")
	c.apply(store.Change{Puts: []store.Raw{lease, fence}})
	assert.Equal(t, gone(time.Hour), time.Duration(-1))
	c.apply(store.Change{Deletes: []string{lease.Key}})
	c.apply(store.Change{Deletes: []string{c.keys.HostSpec("h1"), fence.Key}})
	assert.Equal(t, len(c.leaseGone), 0)
}
