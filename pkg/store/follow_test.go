package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// follower is what one has that believes what Follow says.
type follower struct {
	mu       sync.Mutex
	has      map[string]string
	resets   int
	revision int64
}

func follow(t *testing.T, s *store.Store, prefix string) *follower {
	t.Helper()
	f := &follower{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Follow(ctx, prefix, slog.New(slog.DiscardHandler), f.take) }()
	t.Cleanup(func() {
		cancel()
		assert.ErrorIs(t, <-done, context.Canceled)
	})
	return f
}

func (f *follower) take(c store.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision = c.Revision
	if c.Reset {
		f.has = map[string]string{}
		f.resets++
	}
	for _, p := range c.Puts {
		f.has[p.Key] = string(p.Value)
	}
	for _, k := range c.Deletes {
		delete(f.has, k)
	}
}

// wait waits until the follower has exactly what etcd has.
func (f *follower) wait(t *testing.T, c *clientv3.Client, prefix string) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := c.Get(ctx, prefix, clientv3.WithPrefix())
		if err != nil {
			return poll.Continue("read etcd: %v", err)
		}
		want := map[string]string{}
		for _, kv := range r.Kvs {
			want[string(kv.Key)] = string(kv.Value)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if !maps.Equal(f.has, want) {
			return poll.Continue("etcd has %v, the follower %v", want, f.has)
		}
		return poll.Success()
	}, poll.WithTimeout(60*time.Second), poll.WithDelay(10*time.Millisecond))
}

func put(t *testing.T, c *clientv3.Client, key, value string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	r, err := c.Put(ctx, key, value)
	assert.NilError(t, err)
	return r.Header.Revision
}

func TestFollow(t *testing.T) {
	c := storetest.Start(t)
	put(t, c, "/f/before", "1")
	f := follow(t, store.New(c, "f"), "/f/")
	f.wait(t, c, "/f/")
	put(t, c, "/f/a", "1")
	put(t, c, "/g/elsewhere", "1")
	_, err := c.Txn(t.Context()).Then(clientv3.OpPut("/f/b", "1"), clientv3.OpDelete("/f/before")).Commit()
	assert.NilError(t, err)
	put(t, c, "/f/a", "2")
	f.wait(t, c, "/f/")
	f.mu.Lock()
	defer f.mu.Unlock()
	assert.DeepEqual(t, f.has, map[string]string{"/f/a": "2", "/f/b": "1"})
	assert.Equal(t, f.resets, 1)
}

// A follower has what etcd has when it comes back, whatever happened to etcd
// meanwhile: also when it was compacted past what the follower has seen.
func TestFollowOverAStop(t *testing.T) {
	t.Parallel()
	server := storetest.StartServer(t)
	c := server.Client()
	f := follow(t, store.New(c, "f"), "/f/")
	other := server.NewClient()
	put(t, other, "/f/a", "1")
	f.wait(t, other, "/f/")
	server.Stop()
	server.Start()
	put(t, other, "/f/a", "2")
	last := put(t, other, "/f/b", "1")
	_, err := other.Compact(t.Context(), last)
	assert.NilError(t, err)
	f.wait(t, other, "/f/")
}

// An etcd that was restored from an older copy has lost keys, has old values
// of others, and goes on counting where the copy ended. The follower has what
// etcd has, whether that is behind the revision that the follower had seen,
// just at it, or ahead before the follower can look.
func TestFollowARestoredEtcd(t *testing.T) {
	const lost = 20
	for _, written := range []int{0, lost - 1, lost, 3 * lost} {
		t.Run(fmt.Sprintf("%d of %d revisions written again", written, lost), func(t *testing.T) {
			t.Parallel()
			server := storetest.StartServer(t)
			put(t, server.Client(), "/f/kept", "old")
			put(t, server.Client(), "/f/deleted", "old")
			server.Stop()
			restore := server.Save()
			server.Start()
			f := follow(t, store.New(server.NewClient(), "f"), "/f/")
			c := server.Client()
			put(t, c, "/f/kept", "new")
			_, err := c.Delete(t.Context(), "/f/deleted")
			assert.NilError(t, err)
			for i := range lost - 2 {
				put(t, c, fmt.Sprintf("/f/lost%d", i), "new")
			}
			f.wait(t, c, "/f/")
			f.mu.Lock()
			seen := f.revision
			f.mu.Unlock()

			server.Stop()
			restore()
			server.Start()
			// Written by others before the follower is back, as far as it is
			// slower than they.
			last := int64(0)
			for i := range written {
				last = put(t, c, fmt.Sprintf("/f/again%d", i%7), fmt.Sprint(i))
			}
			f.wait(t, c, "/f/")
			if written == lost {
				assert.Equal(t, last, seen, "the restored etcd is where the follower was")
			}
			put(t, c, "/f/after", "1")
			_, err = c.Delete(t.Context(), "/f/kept")
			assert.NilError(t, err)
			f.wait(t, c, "/f/")
		})
	}
}

// A member that stops is no reason to miss anything: the others go on.
func TestFollowAClusterWhoseMembersStop(t *testing.T) {
	t.Parallel()
	cluster := storetest.StartCluster(t, 3)
	c := cluster.Client()
	f := follow(t, store.New(c, "f"), "/f/")
	for i, m := range cluster.Members {
		m.Stop()
		for k := range 20 {
			put(t, c, fmt.Sprintf("/f/%d", k), fmt.Sprint(i))
		}
		m.Start()
		f.wait(t, c, "/f/")
	}
}
