package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Quarantine is for how long nobody gets an address of a host that was taken
// out of the fleet: until what remembers it (ARP, connection tracking, DNS)
// has forgotten, and a host that was only cut off has learnt of it.
const Quarantine = 60 * time.Second

// ErrAlive means that a host's blocks cannot be taken, because the host is
// there.
var ErrAlive = errors.New("host is alive")

// Reclaim takes a dead host's blocks, pins and endpoints away. The blocks are
// quarantined first, and anybody's when [Quarantine] is over: etcd deletes
// them then. A host whose agent or network plugin is connected is [ErrAlive];
// one that comes back later finds that its blocks are not its own any more.
// The caller must know that the host's containers do not run, or cannot reach
// others. Doing it twice is no error.
func Reclaim(ctx context.Context, st *store.Store, host string) error {
	k := st.Keys
	absent := func(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
	fenced := []clientv3.Cmp{absent(k.HostLease(host)), absent(k.Live(host))}
	r, err := st.Client().Txn(ctx).If(fenced...).Commit()
	if err == nil && !r.Succeeded {
		err = ErrAlive
	}
	if err == nil {
		err = reclaim(ctx, st, host, Quarantine, fenced)
	}
	if err != nil {
		return fmt.Errorf("reclaim addresses of host %s: %w", host, err)
	}
	return nil
}

// RemoveHost takes away what a host has in all networks: its uses, blocks,
// pins and endpoints, and the networks made by hand that nobody else uses. Its
// blocks are quarantined as by [Reclaim], but whether the host is alive does
// not matter: only who has emptied it, or knows that none of its containers
// runs any more, may call this. Doing it twice is no error.
func RemoveHost(ctx context.Context, st *store.Store, host string) error {
	if err := removeHost(ctx, st, host, Quarantine); err != nil {
		return fmt.Errorf("remove host %s from networks: %w", host, err)
	}
	return nil
}

func removeHost(ctx context.Context, st *store.Store, host string, rest time.Duration) error {
	if err := reclaim(ctx, st, host, rest, nil); err != nil {
		return err
	}
	networks, err := List(ctx, st)
	if err != nil {
		return err
	}
	for _, n := range networks {
		if _, err := Unuse(ctx, st, n.ID, host); err != nil {
			return err
		}
	}
	return nil
}

// reclaim puts a host's blocks and pins on a lease of the given length, and
// deletes its endpoints and what it has asked for, while the guards hold.
func reclaim(ctx context.Context, st *store.Store, host string, rest time.Duration, guards []clientv3.Cmp) error {
	lease, err := st.Client().Grant(ctx, max(1, int64(rest/time.Second)))
	if err != nil {
		return fmt.Errorf("grant lease: %w", err)
	}
	k := st.Keys
	kept := 0
	err = errors.Join(
		rewrite(ctx, st, k.Blocks(), guards, func(it store.Item[record.Block], t *store.Txn) {
			if it.Value.Host != host || it.Value.State == record.BlockQuarantined {
				return
			}
			kept++
			it.Value.State = record.BlockQuarantined
			t.Unchanged(it.Key, it.Revision).Put(it.Key, it.Value, clientv3.WithLease(lease.ID))
		}),
		rewrite(ctx, st, k.Pins(), guards, func(it store.Item[record.Pin], t *store.Txn) {
			if it.Value.Host != host || it.Value.Released {
				return
			}
			// A container that has moved may take its address along.
			kept++
			it.Value.Released = true
			t.Unchanged(it.Key, it.Revision).Put(it.Key, it.Value, clientv3.WithLease(lease.ID))
		}),
		rewrite(ctx, st, k.Endpoints(), guards, func(it store.Item[record.Endpoint], t *store.Txn) {
			if it.Value.Host == host {
				t.Unchanged(it.Key, it.Revision).Delete(it.Key)
			}
		}),
		rewrite(ctx, st, k.Asks(), guards, func(it store.Item[record.Ask], t *store.Txn) {
			if it.Value.From == host || it.Value.Owner == host {
				t.Unchanged(it.Key, it.Revision).Delete(it.Key)
			}
		}),
	)
	if kept == 0 {
		if _, end := st.Client().Revoke(ctx, lease.ID); end != nil && err == nil {
			err = fmt.Errorf("end lease: %w", end)
		}
	}
	return err
}

// rewrite lets f add what it does with each record under a prefix to
// transactions. What changed meanwhile is read and shown to f again.
func rewrite[T any](ctx context.Context, st *store.Store, prefix string, guards []clientv3.Cmp, f func(store.Item[T], *store.Txn)) error {
	for {
		items, _, err := store.List[T](ctx, st, prefix)
		if err != nil {
			return err
		}
		again := false
		commit := func(t *store.Txn) error {
			if t.Len() == 0 {
				return nil
			}
			_, err := t.Commit(ctx)
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
			again = true
			if len(guards) == 0 {
				return nil
			}
			r, err := st.Client().Txn(ctx).If(guards...).Commit()
			if err == nil && !r.Succeeded {
				err = ErrAlive
			}
			return err
		}
		t := st.Txn(guards...)
		for _, it := range items {
			if f(it, t); t.Full() {
				if err := commit(t); err != nil {
					return err
				}
				t = st.Txn(guards...)
			}
		}
		if err := commit(t); err != nil || !again {
			return err
		}
	}
}
