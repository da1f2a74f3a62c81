package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// prefix is the range that a block's key names.
func (d *Driver) prefix(n *network, key string) (netip.Prefix, error) {
	name := strings.TrimPrefix(key, d.st.Keys.NetworkBlocks(n.id))
	return netip.ParsePrefix(strings.ReplaceAll(name, "_", "/"))
}

// look reads the network and its blocks from etcd and makes memory agree:
// blocks that are ours without our knowledge are adopted (none of their
// addresses was ever given, or the journal would have them), blocks that are
// not ours any more are withdrawn. the network is locked. It returns
// [store.ErrNotFound] when the network was removed.
func (d *Driver) look(ctx context.Context, n *network) error {
	rec, err := registry.Get(ctx, d.st, n.id)
	if errors.Is(err, store.ErrNotFound) {
		d.mu.Lock()
		d.lost(n)
		d.mu.Unlock()
	}
	if err != nil {
		return err
	}
	blocks, _, err := store.List[record.Block](ctx, d.st, d.st.Keys.NetworkBlocks(n.id))
	if err != nil {
		return err
	}
	stray, err := d.compare(n, rec, blocks)
	if err != nil {
		return err
	}
	for _, it := range stray {
		// The new revision makes a late answer to an older transaction of
		// ours about this block fail.
		p, _ := d.prefix(n, it.Key)
		i, _ := n.grid.Index(p.Addr())
		rev, err := d.st.Txn().Unchanged(it.Key, it.Revision).Put(it.Key, d.owned(d.cfg.Now())).Commit(ctx)
		if err != nil {
			return fmt.Errorf("adopt block %s: %w", p, err)
		}
		d.own(n, rev, i)
	}
	d.mu.Lock()
	n.unsure = false
	d.mu.Unlock()
	return nil
}

// compare takes what etcd says of a network into memory, and returns the
// blocks that are ours without our knowledge.
func (d *Driver) compare(n *network, rec record.Network, blocks []store.Item[record.Block]) (stray []store.Item[record.Block], err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := n.set(rec); err != nil {
		return nil, err
	}
	layout := n.grid
	taken, ours, old := ipam.NewBitmap(layout.Count()), map[int]bool{}, 0
	for _, it := range blocks {
		p, err := d.prefix(n, it.Key)
		if err != nil || !layout.Subnet().Contains(p.Addr()) {
			return nil, fmt.Errorf("read %s: not a block of %s", it.Key, layout.Subnet())
		}
		from, _ := layout.Index(p.Addr())
		to, _ := layout.Index(ipam.LastAddress(p))
		for i := from; i <= to; i++ {
			taken.Set(i)
		}
		b := it.Value
		switch {
		case b.Host != d.cfg.Host || b.State != record.BlockOwned:
		case b.Epoch != d.epoch:
			old++
		case !n.share.Owns(from):
			stray = append(stray, it)
		default:
			ours[from] = true
			n.revisions[from] = it.Revision
		}
	}
	if old > 0 {
		d.log.Warn("blocks of a lost journal stay unused", "network", rec.ID, "blocks", old)
	}
	for _, i := range n.share.Blocks() {
		if !ours[i] && !n.share.Withdrawn(i) {
			d.log.Error("block was taken from this host", "network", rec.ID, "block", layout.Block(i))
			d.withdraw(n, i)
		}
	}
	n.taken = taken
	return stray, nil
}

// withdraw stops a block's addresses from being given; mu is held.
func (d *Driver) withdraw(n *network, i int) {
	n.share.Withdraw(i)
	delete(n.revisions, i)
	op := opWithdraw
	if n.share.RemoveBlock(i) {
		op = opUnblock
	}
	d.append(entry{Op: op, Network: n.id, Block: i})
}

// lost notes that a network does not exist any more. What is held of it stays
// known until it is released; mu is held.
func (d *Driver) lost(n *network) {
	n.gone, n.unsure = true, false
	clear(n.dirty)
	for _, i := range n.share.Blocks() {
		if !n.share.Withdrawn(i) {
			d.withdraw(n, i)
		}
	}
	d.forgetIfDone(n)
}

// forgetIfDone drops a network that is nothing to this host any more; mu is
// held.
func (d *Driver) forgetIfDone(n *network) {
	if n.uses > 0 || len(n.share.Blocks()) > 0 || d.networks[n.id] != n {
		return
	}
	if !n.gone && (n.unsaid || n.unsure || len(n.dirty) > 0) {
		return
	}
	delete(d.networks, n.id)
	d.append(entry{Op: opForget, Network: n.id})
}
