package driver

import (
	"context"
	"errors"
	"net/netip"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// In a network that keeps addresses for names, a released address of a named
// container is lent to a pin that nobody uses, on a lease: whichever host
// starts the name again takes the pin, and with the lease's end the address
// goes back to the block's owner.

// takeBack ends the wait of an address for a name where etcd has not been told
// of it yet: the container started again at once.
func (d *Driver) takeBack(n *network, f *family, name string) {
	if name == "" {
		return
	}
	d.mu.Lock()
	for a, waits := range n.keep {
		if !n.tried[a] && waits == name && f.subnet.Contains(a) {
			d.stopKeeping(n, f, a)
			break
		}
	}
	telling := n.telling == name
	d.mu.Unlock()
	if !telling {
		return
	}
	// etcd is being told at this moment; then the address waits there.
	ctx, cancel := d.request()
	defer cancel()
	if unlock, err := n.lock(ctx); err == nil {
		unlock()
	}
}

// stopKeeping makes an address that was to wait for a name free, and remembers
// the name as that of its last holder; mu is held.
func (d *Driver) stopKeeping(n *network, f *family, a netip.Addr) {
	name, now := n.keep[a], d.cfg.Now()
	delete(n.keep, a)
	delete(n.lending, a)
	d.unlend(n, f, a)
	f.share.Remember(a, name, now)
	d.append(entry{Op: opFree, Network: n.id, Addr: a, Name: name, At: now.UnixMilli()})
}

// keepAll tells etcd of the addresses that wait for names.
func (d *Driver) keepAll(ctx context.Context, n *network) error {
	d.mu.Lock()
	waits := len(n.keep)
	d.mu.Unlock()
	if waits == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for {
		a, name, ok := d.nextToKeep(n)
		if !ok {
			return nil
		}
		rev, err := d.keepOne(ctx, n, a, name)
		d.mu.Lock()
		n.telling = ""
		switch {
		case err == nil:
			n.kept[name] = waiting{a, rev}
			delete(n.lending, a)
			delete(n.tried, a)
		case errors.Is(err, store.ErrConflict):
			// Its block is not what it was, or it is pinned already.
			delete(n.lending, a)
			delete(n.tried, a)
			n.unsure = true
		default:
			n.keep[a], n.tried[a] = name, true
		}
		d.mu.Unlock()
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func (d *Driver) nextToKeep(n *network) (netip.Addr, string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for a, name := range n.keep {
		delete(n.keep, a)
		n.telling = name
		return a, name, true
	}
	return netip.Addr{}, "", false
}

func (d *Driver) keepOne(ctx context.Context, n *network, a netip.Addr, name string) (int64, error) {
	d.mu.Lock()
	f, keep := n.of(a), sticky(n.record)
	i, _ := f.grid.Index(a)
	rev, ours := f.revisions[i]
	block := d.st.Keys.Block(n.id, f.block(i))
	d.mu.Unlock()
	if !ours || keep == 0 {
		return 0, store.ErrConflict
	}
	lease, err := d.st.Client().Grant(ctx, int64(keep.Seconds()))
	if err != nil {
		return 0, err
	}
	key := d.st.Keys.Pin(n.id, a.String())
	p := record.Pin{Host: d.cfg.Host, Container: name, Owner: d.cfg.Host, Epoch: d.epoch, Released: true, Since: d.cfg.Now()}
	return d.st.Txn().Unchanged(block, rev).Absent(key).Put(key, p, clientv3.WithLease(lease.ID)).
		Delete(d.st.Keys.Endpoint(n.id, a.String())).Commit(ctx)
}
