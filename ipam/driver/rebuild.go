package driver

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// rebuild takes the blocks of a lost journal into use again: what was in use
// in them is known from etcd's endpoints and from what the host was seen to
// use. It waits until that was looked at for the whole grace, so that what
// comes up with the plugin has come up. What turns out to be unused is
// released by the reconciler like any other leak.
func (d *Driver) rebuild(live Live) error {
	var errs []error
	for _, n := range d.all() {
		d.mu.Lock()
		old := 0
		for _, f := range n.halves() {
			old += len(f.old)
		}
		now := d.cfg.Now()
		if old == 0 {
			delete(d.rebuilding, n.id)
		} else if d.rebuilding[n.id].IsZero() {
			d.rebuilding[n.id] = now
		}
		due := old > 0 && now.Sub(d.rebuilding[n.id]) >= d.cfg.Grace && d.settling() == nil && d.away.IsZero()
		d.mu.Unlock()
		if due {
			errs = append(errs, d.rebuildOf(n, live.Addresses[n.id]))
		}
	}
	return errors.Join(errs...)
}

func (d *Driver) rebuildOf(n *network, live []netip.Addr) error {
	ctx, cancel := d.request()
	defer cancel()
	unlock, err := n.lock(ctx)
	if err != nil {
		return d.saw(err)
	}
	defer unlock()
	if err := d.look(ctx, n); d.saw(err) != nil {
		return err
	}
	names, err := d.recorded(ctx, n)
	if d.saw(err) != nil {
		return err
	}
	for _, a := range live {
		if _, ok := names[a]; !ok {
			names[a] = ""
		}
	}
	d.mu.Lock()
	halves := n.halves()
	d.mu.Unlock()
	for _, f := range halves {
		d.mu.Lock()
		old := map[int]int64{}
		for i, rev := range f.old {
			old[i] = rev
		}
		d.mu.Unlock()
		for i, rev := range old {
			if err := d.rebuildBlock(ctx, n, f, i, rev, names); d.saw(err) != nil {
				return err
			}
		}
	}
	return nil
}

// recorded are the addresses that etcd says this host uses, with the names of
// their holders.
func (d *Driver) recorded(ctx context.Context, n *network) (map[netip.Addr]string, error) {
	prefix := d.st.Keys.Endpoint(n.id, "")
	endpoints, _, err := store.List[record.Endpoint](ctx, d.st, prefix)
	if err != nil {
		return nil, err
	}
	names := map[netip.Addr]string{}
	for _, it := range endpoints {
		if a, err := netip.ParseAddr(strings.TrimPrefix(it.Key, prefix)); err == nil && it.Value.Host == d.cfg.Host {
			names[a] = it.Value.Container
		}
	}
	return names, nil
}

// rebuildBlock puts a block under this journal. Its addresses are held before
// any of them can be given: the share has the block only then.
func (d *Driver) rebuildBlock(ctx context.Context, n *network, f *family, i int, rev int64, names map[netip.Addr]string) error {
	b, now := f.grid.Block(i), d.cfg.Now()
	d.mu.Lock()
	f.share.AddBlock(i, now)
	d.append(entry{Op: opBlock, Network: n.id, Block: i, V6: f.v6(), At: now.UnixMilli()})
	for a := b.Addr(); b.Contains(a); a = a.Next() {
		op := entry{Op: opFree, Network: n.id, Addr: a, At: now.UnixMilli()}
		if name, used := names[a]; used {
			op.Op, op.Name = opAlloc, name
			f.share.Restore(a, name, now)
			n.dirty[a] = struct{}{}
		} else {
			f.share.Remember(a, "", now) // It rests like one released now.
		}
		d.append(op)
	}
	// Nobody gets anything of it until etcd says that it is ours again.
	f.share.Withdraw(i)
	commit := d.append(entry{Op: opWithdraw, Network: n.id, Block: i, V6: f.v6()})
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		return err
	}
	defer d.claiming(n, f, []int{i})()
	if err := d.adopt(ctx, n, f, i, rev); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n.doneReading(f.revisions[i])
	delete(f.old, i)
	return nil
}
