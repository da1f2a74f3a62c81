package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// leaseTTL is how long, in seconds, a host counts as alive after its agent was
// last heard of.
const leaseTTL = 4

// renewEvery is how often the lease is renewed: an answer may be three seconds
// late before etcd forgets the host.
const renewEvery = time.Second

// lease keeps the key that shows that the agent lives, on a lease that also
// carries the host's names. A lease that is lost is replaced.
type lease struct {
	identity
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	boot  string
	// ttl replaces leaseTTL when it is not 0, in seconds.
	ttl int64
	// fence guards what runs under the lease; nil where nothing does.
	fence *fence
	// granted is told of each new lease, and of its end with 0.
	granted func(clientv3.LeaseID)
	// kick ends the present lease's use: it is gone, or its key is.
	kick chan clientv3.LeaseID
	// known waits until etcd knows the host.
	known func(ctx context.Context) bool
}

// run keeps a lease until ctx ends. The last one is left to expire by itself:
// an agent that is only being replaced is back before it does, and its names
// never go.
func (l *lease) run(ctx context.Context) {
	since := l.now()
	for wait := 100 * time.Millisecond; ; {
		if !l.known(ctx) {
			return
		}
		held, err := l.hold(ctx, since)
		l.granted(0)
		if ctx.Err() != nil {
			return
		}
		if held {
			wait = 100 * time.Millisecond
			l.log.Warn("lease lost, taking another one", "error", err)
			continue
		}
		if err != nil {
			l.log.Debug("no lease", "error", err)
			if !pause(ctx, wait) {
				return
			}
			wait = min(2*wait, time.Second)
		}
	}
}

// hold takes a lease and keeps it alive until etcd says that it is no more, or
// its key is not on it. An answer that is late is no reason: a new lease means
// that every name of the host is written again, and that while etcd is slow.
func (l *lease) hold(ctx context.Context, since time.Time) (held bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	short, done := context.WithTimeout(ctx, 3*time.Second)
	defer done()
	g, err := l.store.Client().Grant(short, cmp.Or(l.ttl, leaseTTL))
	if err != nil {
		return false, fmt.Errorf("take lease: %w", err)
	}
	if err := l.take(short, g.ID, since); err != nil {
		return false, fmt.Errorf("take lease: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.store.Renew(ctx, g.ID, renewEvery) }()
	defer func() {
		cancel()
		<-ended //nolint:errcheck // ctx.s error
	}()
	l.granted(g.ID)
	for {
		select {
		case err := <-ended:
			ended <- nil
			return true, err
		case id := <-l.kick:
			if id == g.ID || id == 0 && !l.there(ctx, g.ID) {
				return true, nil
			}
		}
	}
}

// take puts the host's key on a lease. A host that was removed meanwhile must
// not leave a key behind. Where something guards the host's work, that is said in
// the same transaction, which does nothing when it is late: the agent may have
// ended by then and left its work to nobody.
func (l *lease) take(ctx context.Context, id clientv3.LeaseID, since time.Time) error {
	k := l.store.Keys
	txn := func() *store.Txn {
		return l.store.Txn().Exists(k.HostSpec(l.Host)).
			Put(k.HostLease(l.Host), record.HostLease{Boot: l.boot, Since: since}, clientv3.WithLease(id))
	}
	if l.fence == nil {
		_, err := txn().Commit(ctx)
		return err
	}
	was, err := store.Get[record.HostFence](ctx, l.store, k.HostFence(l.Host))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := l.fence.taking(); err != nil {
		return err
	}
	revision, err := txn().Unchanged(was.Key, was.Revision).Put(was.Key, record.HostFence{Boot: l.boot}).Commit(ctx)
	if errors.Is(err, rpctypes.ErrPermissionDenied) {
		// Controllers of an older release: they replace nothing that is fenced.
		_, err = txn().Commit(ctx)
	}
	if err == nil {
		l.fence.took(revision)
	}
	return err
}

// there reports whether the key is on a lease, as far as etcd answers: what
// was seen to go may have been the key on the lease before.
func (l *lease) there(ctx context.Context, id clientv3.LeaseID) bool {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := l.store.Client().Get(ctx, l.store.Keys.HostLease(l.Host))
	return err != nil || len(r.Kvs) == 1 && r.Kvs[0].Lease == int64(id)
}

// drop says that a lease, or with 0 the key on the present one, is gone.
func (l *lease) drop(id clientv3.LeaseID) {
	select {
	case l.kick <- id:
	default: // the lease is being replaced already
	}
}
