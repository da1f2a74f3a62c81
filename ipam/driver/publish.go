package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// batch is how many endpoints one transaction publishes.
const batch = 100

// Run brings what the driver does to etcd, until ctx ends: uses of networks,
// endpoints, blocks given back. It returns ctx's error.
func (d *Driver) Run(ctx context.Context) error {
	tick := time.NewTicker(d.cfg.Tick)
	defer tick.Stop()
	synced, wait := false, 100*time.Millisecond
	for {
		var err error
		if !synced {
			err = d.sync(ctx)
			synced = err == nil
		}
		if err == nil {
			err = d.flush(ctx)
		}
		var again <-chan time.Time
		if err != nil {
			_ = d.saw(err)
			d.log.Debug("publish addresses", "error", err, "again", wait)
			again = time.After(wait)
			wait = min(2*wait, 5*time.Second)
		} else {
			wait = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
		case <-d.wakeUnless(err):
		case <-tick.C:
			d.tick(ctx, synced && err == nil)
		}
	}
}

// tick does what has time. While etcd is away it asks whether it is back.
func (d *Driver) tick(ctx context.Context, well bool) {
	d.compactIfLong()
	if err := d.journal.Sync(); err != nil {
		d.log.Error("write address journal", "error", err)
	}
	d.mu.Lock()
	away := !d.away.IsZero()
	d.mu.Unlock()
	if away {
		ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
		defer cancel()
		_, err := d.st.Client().Get(ctx, d.st.Keys.NetworkGuard(), clientv3.WithKeysOnly())
		_ = d.saw(err)
		return
	}
	if well {
		if err := d.giveBack(ctx); err != nil {
			_ = d.saw(err)
			d.log.Debug("give blocks back", "error", err)
		}
	}
}

// wakeUnless is the wake channel, or, after an error, one that never wakes:
// what waits will be tried again with the rest.
func (d *Driver) wakeUnless(err error) <-chan struct{} {
	if err != nil {
		return nil
	}
	return d.wake
}

// flush publishes everything that waits.
func (d *Driver) flush(ctx context.Context) error {
	var errs []error
	for _, n := range d.all() {
		use, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
		err := d.sayUse(use, n)
		cancel()
		if absent(err) {
			return err // The others would wait in vain too.
		} else if err != nil && !errors.Is(err, store.ErrNotFound) {
			errs = append(errs, err)
		}
		for {
			more, err := d.publish(ctx, n)
			if absent(err) {
				return err
			} else if err != nil {
				errs = append(errs, err)
			}
			if !more || err != nil {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// publish brings one batch of a network's endpoints to etcd; more reports
// whether others wait.
func (d *Driver) publish(ctx context.Context, n *network) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	unlock, err := n.lock(ctx)
	if err != nil {
		return true, err
	}
	defer unlock()
	d.mu.Lock()
	idle, unsure := n.gone || len(n.dirty) == 0 && !n.unsure, n.unsure
	d.mu.Unlock()
	if idle {
		return false, nil
	}
	if unsure {
		if err := d.look(ctx, n); errors.Is(err, store.ErrNotFound) {
			return false, nil
		} else if err != nil {
			return true, err
		}
	}
	d.mu.Lock()
	t, addrs := d.endpoints(n)
	d.mu.Unlock()
	if t.Len() > 0 {
		_, err = t.Commit(ctx)
		_ = d.saw(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil && !n.gone {
		// A block may have been taken away, or the network.
		n.unsure = n.unsure || errors.Is(err, store.ErrConflict)
		for _, a := range addrs {
			n.dirty[a] = struct{}{}
		}
		return true, fmt.Errorf("publish endpoints of network %s: %w", n.id, err)
	}
	return len(n.dirty) > 0, nil
}

// endpoints takes up to a batch of addresses that wait and makes the
// transaction that publishes them as they are now. It holds only while their
// blocks are ours. mu is held.
func (d *Driver) endpoints(n *network) (*store.Txn, []netip.Addr) {
	t, guarded := d.st.Txn(), map[int]bool{}
	var addrs []netip.Addr
	for a := range n.dirty {
		if len(addrs) == batch {
			break
		}
		delete(n.dirty, a)
		i, err := n.grid.Index(a)
		rev, ours := n.revisions[i]
		if err != nil || !ours {
			continue // Not ours to speak of.
		}
		if !guarded[i] {
			guarded[i] = true
			t.Unchanged(d.st.Keys.Block(n.id, n.block(i)), rev)
		}
		key := d.st.Keys.Endpoint(n.id, a.String())
		if h, held := n.share.Holder(a); held {
			note := n.notes[a]
			t.Put(key, record.Endpoint{Host: d.cfg.Host, Epoch: d.epoch, MAC: note.MAC, Endpoint: note.Endpoint, Container: h.Name})
		} else {
			t.Delete(key)
		}
		addrs = append(addrs, a)
	}
	return t, addrs
}
