package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam/registry"
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

// sync finds what a crash left in etcd that the journal does not know: uses
// of networks, blocks claimed but never used, endpoints of addresses that were
// released.
func (d *Driver) sync(ctx context.Context) error {
	// It reads all of net/ once, which may be much.
	ctx, cancel := context.WithTimeout(ctx, 10*d.cfg.Timeout)
	defer cancel()
	if err := d.syncUses(ctx); err != nil {
		return err
	}
	if err := d.syncBlocks(ctx); err != nil {
		return err
	}
	for _, n := range d.all() {
		if err := d.lookAgain(ctx, n); errors.Is(err, store.ErrNotFound) {
			continue
		} else if err != nil {
			return err
		}
		if err := d.syncEndpoints(ctx, n); err != nil {
			return err
		}
	}
	return d.saw(nil)
}

// lookAgain is look for who has not locked the network.
func (d *Driver) lookAgain(ctx context.Context, n *network) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return d.look(ctx, n)
}

func (d *Driver) all() []*network {
	d.mu.Lock()
	defer d.mu.Unlock()
	ns := make([]*network, 0, len(d.networks))
	for _, n := range d.networks {
		ns = append(ns, n)
	}
	return ns
}

func (d *Driver) syncUses(ctx context.Context) error {
	uses, _, err := store.List[store.NetworkUse](ctx, d.st, d.st.Keys.AllUses())
	if err != nil {
		return err
	}
	for _, it := range uses {
		id, _, _ := strings.Cut(strings.TrimPrefix(it.Key, d.st.Keys.AllUses()), "/")
		if it.Value.Host != d.cfg.Host {
			continue
		}
		d.mu.Lock()
		n := d.networks[id]
		d.mu.Unlock()
		if n != nil {
			continue // Its own flush says what is true.
		}
		if _, err := registry.Unuse(ctx, d.st, id, d.cfg.Host); err != nil {
			return err
		}
	}
	return nil
}

// syncBlocks removes blocks of networks that this host has nothing to do with
// any more: it gave them up, and etcd did not hear of it.
func (d *Driver) syncBlocks(ctx context.Context) error {
	blocks, _, err := store.List[store.Block](ctx, d.st, d.st.Keys.Blocks())
	if err != nil {
		return err
	}
	for _, it := range blocks {
		id, _, _ := strings.Cut(strings.TrimPrefix(it.Key, d.st.Keys.Blocks()), "/")
		if it.Value.Host != d.cfg.Host || it.Value.Epoch != d.epoch || it.Value.State != store.BlockOwned {
			continue
		}
		d.mu.Lock()
		n := d.networks[id]
		d.mu.Unlock()
		if n != nil {
			continue
		}
		_, err := d.st.Txn().Unchanged(it.Key, it.Revision).Delete(it.Key).Commit(ctx)
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return nil
}

// syncEndpoints marks for publication what etcd does not say as it is.
func (d *Driver) syncEndpoints(ctx context.Context, n *network) error {
	endpoints, _, err := store.List[store.Endpoint](ctx, d.st, d.st.Keys.Endpoint(n.id, ""))
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, it := range endpoints {
		a, err := netip.ParseAddr(strings.TrimPrefix(it.Key, d.st.Keys.Endpoint(n.id, "")))
		if err != nil || it.Value.Host != d.cfg.Host {
			continue
		}
		h, held := n.share.Holder(a)
		if !held {
			n.dirty[a] = struct{}{}
			continue
		}
		if _, noted := n.notes[a]; !noted && h.Name == it.Value.Container {
			n.notes[a] = Note{MAC: it.Value.MAC, Endpoint: it.Value.Endpoint}
			delete(n.dirty, a)
		}
	}
	return nil
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
			t.Put(key, store.Endpoint{Host: d.cfg.Host, Epoch: d.epoch, MAC: note.MAC, Endpoint: note.Endpoint, Container: h.Name})
		} else {
			t.Delete(key)
		}
		addrs = append(addrs, a)
	}
	return t, addrs
}

// giveBack returns blocks that the host does not need to their networks, and
// forgets networks that are nothing to it any more.
func (d *Driver) giveBack(ctx context.Context) error {
	var errs []error
	for _, n := range d.all() {
		errs = append(errs, d.giveBackOf(ctx, n))
	}
	return errors.Join(errs...)
}

func (d *Driver) giveBackOf(ctx context.Context, n *network) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for _, i := range d.spare(n) {
		d.mu.Lock()
		rev, known := n.revisions[i]
		if !known || n.waiting(i) || !n.share.RemoveBlock(i) {
			d.mu.Unlock()
			continue // Taken into use again, or still to be published.
		}
		delete(n.revisions, i)
		key := d.st.Keys.Block(n.id, n.block(i))
		commit := d.append(record{Op: opUnblock, Network: n.id, Block: i})
		d.mu.Unlock()
		err := commit.Wait()
		if err != nil {
			d.mu.Lock()
			n.unsure = true // The block is ours still, in etcd.
			d.mu.Unlock()
			return err
		}
		_, err = d.st.Txn().Unchanged(key, rev).Delete(key).Commit(ctx)
		d.mu.Lock()
		if n.unsure = n.unsure || err != nil; err == nil && n.taken != nil {
			n.taken.Clear(i)
		}
		d.mu.Unlock()
		if err != nil {
			return fmt.Errorf("give back block of network %s: %w", n.id, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetIfDone(n)
	return nil
}

// spare are the blocks that the host can do without. Of large blocks it keeps
// one while the network is in use.
func (d *Driver) spare(n *network) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	rest, keep := d.cfg.IdleReturn, 1
	if n.small() || n.uses == 0 {
		rest, keep = d.cfg.Cooldown, 0
	}
	idle := n.share.Idle(d.cfg.Now(), rest)
	return idle[min(keep, len(idle)):]
}

// waiting reports whether an address of block i is to be published.
func (n *network) waiting(i int) bool {
	for a := range n.dirty {
		if k, err := n.grid.Index(a); err == nil && k == i {
			return true
		}
	}
	return false
}
