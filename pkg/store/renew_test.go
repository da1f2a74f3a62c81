package store_test

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

func grant(t *testing.T, c *clientv3.Client, seconds int64) clientv3.LeaseID {
	t.Helper()
	g, err := c.Grant(t.Context(), seconds)
	assert.NilError(t, err)
	return g.ID
}

func renew(t *testing.T, s *store.Store, id clientv3.LeaseID) (cancel context.CancelFunc, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Renew(ctx, id, 100*time.Millisecond) }()
	return cancel, done
}

// A lease that is renewed outlives its time, and also an etcd that was away for
// longer than that: it is etcd that says what is lost.
func TestLeaseIsKeptOverAnEtcdThatWasAway(t *testing.T) {
	e := storetest.StartServer(t)
	s := store.New(e.Client(), "f")
	id := grant(t, e.Client(), 5)
	cancel, ended := renew(t, s, id)
	own, err := e.Client().KeepAlive(t.Context(), grant(t, e.Client(), 5))
	assert.NilError(t, err)
	e.Stop()
	for range own { // until the client's own keep-alive gives up
	}
	e.Start()
	e.Ready()
	left := func() int64 {
		r, err := e.Client().TimeToLive(t.Context(), id)
		assert.NilError(t, err)
		return r.TTL
	}
	assert.Assert(t, left() > 0)
	from := time.Now()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if l := left(); l <= 0 {
			return poll.Error(context.DeadlineExceeded)
		}
		if time.Since(from) > 11*time.Second { // twice its time
			return poll.Success()
		}
		return poll.Continue("renewed for %s", time.Since(from))
	}, poll.WithTimeout(time.Minute))
	select {
	case err := <-ended:
		t.Fatalf("given up: %v", err)
	default:
	}
	cancel()
	assert.ErrorIs(t, <-ended, context.Canceled)
}

func TestLeaseThatIsNoMoreIsToldAtOnce(t *testing.T) {
	c := storetest.Start(t)
	id := grant(t, c, 60)
	_, ended := renew(t, store.New(c, "f"), id)
	_, err := c.Revoke(t.Context(), id)
	assert.NilError(t, err)
	select {
	case err := <-ended:
		assert.ErrorIs(t, err, store.ErrNotFound)
	case <-time.After(time.Minute):
		t.Fatal("renewed still")
	}
}
