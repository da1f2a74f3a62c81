package driver

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// sync finds what a crash left in etcd that the journal does not know: uses
// of networks, blocks claimed but never used, endpoints of addresses that were
// released.
func (d *Driver) sync(ctx context.Context) error {
	// It reads all of net/ once, which may be much.
	ctx, cancel := context.WithTimeout(ctx, 10*d.cfg.Timeout)
	defer cancel()
	if _, err := d.read(ctx, clientv3.OpGet(d.st.Keys.NetworkGuard(), clientv3.WithKeysOnly())); err != nil {
		return err
	}
	if err := d.discover(ctx); err != nil {
		return err
	}
	if err := d.forgetAsks(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	d.asked = true
	d.mu.Unlock()
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

// meetStrangers discovers what etcd says is this host's since it was read
// whole: what an earlier run, or a call that has given up, asked etcd for may
// come late.
func (d *Driver) meetStrangers(ctx context.Context) error {
	d.mu.Lock()
	due := d.strangers
	d.strangers = false
	d.mu.Unlock()
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*d.cfg.Timeout)
	defer cancel()
	err := d.discover(ctx)
	if err != nil {
		d.mu.Lock()
		d.strangers = true
		d.mu.Unlock()
	}
	return err
}

// discover makes networks known that this host has uses or blocks of in etcd
// but nothing in the journal: a crash came before the journal had them, or
// etcd did not hear that they were given up. What becomes of them is then
// decided as for any network that the host does not use.
func (d *Driver) discover(ctx context.Context) error {
	ids := map[string]bool{}
	uses, _, err := store.List[record.NetworkUse](ctx, d.st, d.st.Keys.AllUses())
	if err != nil {
		return err
	}
	for _, it := range uses {
		if it.Value.Host == d.cfg.Host {
			ids[networkOf(it.Key, d.st.Keys.AllUses())] = true
		}
	}
	blocks, _, err := store.List[record.Block](ctx, d.st, d.st.Keys.Blocks())
	if err != nil {
		return err
	}
	for _, it := range blocks {
		if b := it.Value; b.Host == d.cfg.Host && b.State == record.BlockOwned {
			ids[networkOf(it.Key, d.st.Keys.Blocks())] = true
		}
	}
	pins, _, err := store.List[record.Pin](ctx, d.st, d.st.Keys.Pins())
	if err != nil {
		return err
	}
	for _, it := range pins {
		if it.Value.Host == d.cfg.Host && !it.Value.Released {
			ids[networkOf(it.Key, d.st.Keys.Pins())] = true
		}
	}
	for id := range ids {
		d.mu.Lock()
		skip := d.networks[id] != nil || d.making[id]
		d.mu.Unlock()
		if skip {
			continue
		}
		n, err := d.known(id)
		if errors.Is(err, store.ErrNotFound) {
			continue // Removed since, with all that was in it.
		} else if err != nil {
			return err
		}
		d.mu.Lock()
		n.unsaid, n.unsure = true, true
		if d.networks[n.id] == nil { // Forgotten as unused in between.
			d.networks[n.id] = n
			d.append(n.use())
		}
		d.mu.Unlock()
	}
	return nil
}

// networkOf is the network's id in a key below a prefix.
func networkOf(key, prefix string) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
	return id
}

// syncEndpoints marks for publication what etcd does not say as it is.
func (d *Driver) syncEndpoints(ctx context.Context, n *network) error {
	endpoints, _, err := store.List[record.Endpoint](ctx, d.st, d.st.Keys.Endpoint(n.id, ""))
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
		h, held := n.holder(a)
		if !held && !it.Value.Machine {
			n.dirty[a] = struct{}{}
			continue
		}
		if _, noted := n.notes[a]; held && !noted && h.Name == it.Value.Container {
			n.notes[a] = Note{MAC: it.Value.MAC, Endpoint: it.Value.Endpoint, Machine: it.Value.Machine, Ports: it.Value.Ports}
			delete(n.dirty, a)
		}
	}
	return nil
}
