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
	d.background(func() { d.beAlive(ctx) })
	for {
		var err error
		if !synced {
			err = d.sync(ctx)
			synced = err == nil
		}
		if err == nil || errors.Is(err, errRestored) {
			err = d.republish(ctx)
		}
		if err == nil {
			err = d.meetStrangers(ctx)
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
	d.mu.Lock()
	if d.unseen {
		d.append(d.seen.entry())
		d.unseen = false
	}
	d.asked = d.asked || len(d.refused) > 0
	d.mu.Unlock()
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
		// A watch does not say that etcd was put back: it waits for what is
		// to come.
		probe, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
		_, err := d.read(probe, clientv3.OpGet(d.st.Keys.NetworkGuard(), clientv3.WithKeysOnly()))
		cancel()
		if d.saw(err) != nil {
			d.kick()
			return
		}
		d.settleDoubt()
		if err := d.giveBack(ctx); err != nil {
			_ = d.saw(err)
			d.log.Debug("give blocks back", "error", err)
		}
	}
}

// settleDoubt compares endpoints with etcd, a tick after it has come back: a
// transaction that got no answer, as from an etcd that was paused, may have been
// carried out after those that came later.
func (d *Driver) settleDoubt() {
	d.mu.Lock()
	doubt := d.unanswered
	d.unanswered = false
	d.mu.Unlock()
	if !doubt {
		return
	}
	if _, err := d.Check(true); err != nil {
		d.log.Debug("compare addresses with etcd", "error", err)
		d.mu.Lock()
		d.unanswered = true
		d.mu.Unlock()
		return
	}
	d.kick()
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
	if err := d.answerAsks(ctx); err != nil {
		return err // It comes first: other hosts' callers wait for it.
	}
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
		for more := true; more; {
			if more, err = d.publish(ctx, n); absent(err) || errors.Is(err, errRestored) {
				return err
			} else if err != nil {
				errs = append(errs, err)
				break
			}
			if err := d.answerAsks(ctx); err != nil {
				return err
			}
		}
		if err := d.keepAll(ctx, n); absent(err) {
			return err
		} else if err != nil {
			errs = append(errs, err)
		}
		if err := d.unpinAll(ctx, n); absent(err) {
			return err
		} else if err != nil {
			errs = append(errs, err)
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
	unsure := n.unsure || len(n.open) > 0
	idle := n.gone || len(n.dirty) == 0 && !unsure
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
	if absent(err) {
		d.unanswered = true
	}
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
	t, guarded := d.st.Txn(), map[string]bool{}
	var addrs []netip.Addr
	for a := range n.dirty {
		if len(addrs) == batch {
			break
		}
		delete(n.dirty, a)
		guard, rev, ours := d.guard(n, a)
		if !ours {
			continue // Not ours to speak of.
		}
		if !guarded[guard] {
			guarded[guard] = true
			t.Unchanged(guard, rev)
		}
		key := d.st.Keys.Endpoint(n.id, a.String())
		if h, held := n.holder(a); held {
			note := n.notes[a]
			t.Put(key, record.Endpoint{Host: d.cfg.Host, Epoch: d.epoch, MAC: note.MAC, Endpoint: note.Endpoint, Container: h.Name, Machine: note.Machine, Ports: note.Ports})
		} else {
			t.Delete(key)
		}
		addrs = append(addrs, a)
	}
	return t, addrs
}

// guard is the key that says that an address is this host's to speak of, and
// the revision at which it did; mu is held.
func (d *Driver) guard(n *network, a netip.Addr) (key string, revision int64, ours bool) {
	if p := n.pins[a]; p != nil {
		return d.st.Keys.Pin(n.id, a.String()), p.revision, p.revision > 0
	}
	f := n.of(a)
	if f == nil {
		return "", 0, false
	}
	if _, lent := f.share.Lent(a); lent {
		return "", 0, false
	}
	i, err := f.grid.Index(a)
	if err != nil {
		return "", 0, false
	}
	revision, ours = f.revisions[i]
	return d.st.Keys.Block(n.id, f.block(i)), revision, ours
}
