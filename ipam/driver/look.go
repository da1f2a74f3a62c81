package driver

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// sight is what etcd says of a network at one revision.
type sight struct {
	record   record.Network
	revision int64
	blocks   []blockAt
	pins     []pinAt
	// asked are the addresses that other hosts ask this one for, and were not
	// refused.
	asked map[netip.Addr]bool
}

type blockAt struct {
	record.Block
	prefix   netip.Prefix
	key      string
	revision int64
}

type pinAt struct {
	record.Pin
	addr     netip.Addr
	key      string
	revision int64
}

// see reads a network from etcd. It returns [store.ErrNotFound] when the
// network was removed.
func (d *Driver) see(ctx context.Context, id string) (sight, error) {
	k := d.st.Keys
	var s sight
	r, err := d.read(ctx, clientv3.OpGet(k.Network(id)), clientv3.OpGet(k.NetworkBlocks(id), clientv3.WithPrefix()),
		clientv3.OpGet(k.NetworkPins(id), clientv3.WithPrefix()), clientv3.OpGet(k.Ask(d.cfg.Host, ""), clientv3.WithPrefix()))
	if err != nil {
		return s, fmt.Errorf("read network %s: %w", id, err)
	}
	s.revision = r.Header.Revision
	part := func(i int) []*mvccpb.KeyValue { return r.Responses[i].GetResponseRange().Kvs }
	if len(part(0)) == 0 {
		return s, fmt.Errorf("network %s: %w", id, store.ErrNotFound)
	}
	if err := json.Unmarshal(part(0)[0].Value, &s.record); err != nil {
		return s, fmt.Errorf("read network %s: %w", id, err)
	}
	for _, kv := range part(1) {
		b := blockAt{key: string(kv.Key), revision: kv.ModRevision}
		name := strings.TrimPrefix(b.key, k.NetworkBlocks(id))
		if b.prefix, err = netip.ParsePrefix(strings.ReplaceAll(name, "_", "/")); err == nil {
			err = json.Unmarshal(kv.Value, &b.Block)
		}
		if err != nil {
			return s, fmt.Errorf("read %s: %w", kv.Key, err)
		}
		s.blocks = append(s.blocks, b)
	}
	if s.pins, err = readPins(part(2), k.NetworkPins(id)); err != nil {
		return s, err
	}
	s.asked = map[netip.Addr]bool{}
	for _, kv := range part(3) {
		var ask record.Ask
		if json.Unmarshal(kv.Value, &ask) != nil || ask.Network != id || ask.Refused != "" {
			continue // What was refused is never granted, also when nobody reads it.
		}
		if a, err := netip.ParseAddr(ask.Address); err == nil {
			s.asked[a] = true
		}
	}
	return s, nil
}

func readPins(kvs []*mvccpb.KeyValue, prefix string) ([]pinAt, error) {
	pins := make([]pinAt, 0, len(kvs))
	for _, kv := range kvs {
		p := pinAt{key: string(kv.Key), revision: kv.ModRevision}
		var err error
		if p.addr, err = netip.ParseAddr(strings.TrimPrefix(p.key, prefix)); err == nil {
			err = json.Unmarshal(kv.Value, &p.Pin)
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", kv.Key, err)
		}
		pins = append(pins, p)
	}
	return pins, nil
}

// look reads the network, its blocks and its pins from etcd and makes memory
// agree: blocks that are ours without our knowledge are adopted (none of their
// addresses was ever given, or the journal would have them), blocks that are
// not ours any more are withdrawn. The network is locked. It returns
// [store.ErrNotFound] when the network was removed.
func (d *Driver) look(ctx context.Context, n *network) error {
	for again := true; again; { // What is not pinned the second time never will be.
		d.startLook(n)
		s, err := d.see(ctx, n.id)
		if err == nil {
			again, err = d.believe(ctx, n, s)
		}
		if d.endLook(n, s.revision, err); err != nil {
			return err
		}
	}
	return nil
}

// believe makes memory agree with what etcd said. again reports whether some
// that it said may have been overtaken by what an earlier run said late.
func (d *Driver) believe(ctx context.Context, n *network, s sight) (again bool, err error) {
	stray, err := d.compare(n, s)
	if err != nil {
		return false, err
	}
	for _, b := range stray {
		// The new revision makes a late answer to an older transaction of
		// ours about this block fail.
		d.mu.Lock()
		f := n.of(b.prefix.Addr())
		i, _ := f.grid.Index(b.prefix.Addr())
		again = again || f.fence[i]
		d.mu.Unlock()
		if err := d.adopt(ctx, n, f, i, b.revision); err != nil {
			return false, err
		}
	}
	return again, nil
}

// adopt takes a block into use that is ours in etcd at the given revision.
func (d *Driver) adopt(ctx context.Context, n *network, f *family, i int, revision int64) error {
	key := d.st.Keys.Block(n.id, f.block(i))
	before := d.horizon()
	r, err := d.st.Client().Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", revision)).
		Then(d.put(key, d.owned(d.cfg.Now())), clientv3.OpGet(d.st.Keys.NetworkPins(n.id), clientv3.WithPrefix())).Commit()
	if err == nil && !r.Succeeded {
		err = store.ErrConflict
	}
	if err == nil {
		err = d.watchful(before, r.Header)
	}
	if err != nil {
		return fmt.Errorf("adopt block %s: %w", f.grid.Block(i), err)
	}
	pins, err := readPins(r.Responses[1].GetResponseRange().Kvs, d.st.Keys.NetworkPins(n.id))
	if err != nil {
		return err
	}
	d.own(n, f, r.Header.Revision, pins, i)
	return nil
}

// put is a write in a transaction of the client's own kind.
func (d *Driver) put(key string, value any) clientv3.Op {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // Records always encode.
	}
	return clientv3.OpPut(key, string(b))
}

// compare takes what etcd says of a network into memory, and returns the
// blocks that are ours without our knowledge.
func (d *Driver) compare(n *network, s sight) (stray []blockAt, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := n.set(s.record); err != nil {
		return nil, err
	}
	ours := map[*family]map[int]bool{}
	for _, f := range n.halves() {
		ours[f] = map[int]bool{}
		taken := ipam.NewBitmap(f.grid.Count())
		if f.taken != nil && d.settling() != nil {
			taken = f.taken // What was taken before etcd forgot it is not free.
		}
		f.taken = taken
		clear(f.old)
	}
	for _, b := range s.blocks {
		f := n.of(b.prefix.Addr())
		if f == nil || !f.subnet.Overlaps(b.prefix) {
			return nil, fmt.Errorf("read %s: not a block of network %s", b.key, registry.Title(n.record))
		}
		from, to, ok := f.places(b.prefix)
		if !ok {
			continue
		}
		for i := from; i <= to; i++ {
			f.taken.Set(i)
		}
		switch {
		case b.Host != d.cfg.Host || b.State != record.BlockOwned:
		case b.Epoch != d.epoch:
			f.old[from] = b.revision
		case !f.share.Owns(from):
			stray = append(stray, b)
		case f.fence[from]:
			ours[f][from] = true
			stray = append(stray, b)
		default:
			ours[f][from] = true
			f.revisions[from] = b.revision
			d.reinstate(n, f, from)
		}
	}
	for _, f := range n.halves() {
		if len(f.old) > 0 {
			d.log.Warn("blocks of a lost journal are not used yet", "network", n.id, "blocks", len(f.old))
		}
		for _, i := range f.share.Blocks() {
			if !ours[f][i] && !f.share.Withdrawn(i) {
				d.seized(n, f, i, "")
			}
		}
	}
	d.comparePins(n, s)
	return stray, nil
}

// places are the blocks that a range covers; ok is false where there are none.
func (f *family) places(p netip.Prefix) (from, to int, ok bool) {
	last := f.grid.Block(f.grid.Count() - 1)
	first, end := f.grid.Block(0).Addr(), ipam.LastAddress(last)
	low, high := p.Addr(), ipam.LastAddress(p)
	if high.Less(first) || end.Less(low) {
		return 0, 0, false
	}
	if low.Less(first) {
		low = first
	}
	if end.Less(high) {
		high = end
	}
	from, _ = f.grid.Index(low)
	to, _ = f.grid.Index(high)
	return from, to, true
}

// withdraw stops a block's addresses from being given; mu is held.
func (d *Driver) withdraw(n *network, f *family, i int) {
	f.share.Withdraw(i)
	delete(f.revisions, i)
	op := opWithdraw
	if f.share.RemoveBlock(i) {
		op = opUnblock
	}
	d.append(entry{Op: op, Network: n.id, Block: i, V6: f.v6()})
}

// lost notes that a network does not exist any more. What is held of it stays
// known until it is released; mu is held.
func (d *Driver) lost(n *network) {
	n.gone, n.unsure = true, false
	clear(n.dirty)
	clear(n.unpin)
	clear(n.open)
	for _, f := range n.halves() {
		f.share.EachLent(func(h ipam.Held) {
			f.share.Return(h.Addr, d.cfg.Now())
			d.append(entry{Op: opReturn, Network: n.id, Addr: h.Addr, At: d.cfg.Now().UnixMilli()})
		})
		for _, i := range f.share.Blocks() {
			if !f.share.Withdrawn(i) {
				d.withdraw(n, f, i)
			}
		}
	}
	d.forgetIfDone(n)
}

// forgetIfDone drops a network that is nothing to this host any more; mu is
// held.
func (d *Driver) forgetIfDone(n *network) {
	if n.uses() > 0 || n.blocks() > 0 || len(n.pins) > 0 || d.networks[n.id] != n {
		return
	}
	if !n.gone && (n.unsaid || n.unsure || len(n.dirty) > 0 || len(n.unpin) > 0 || len(n.busy) > 0) {
		return
	}
	delete(d.networks, n.id)
	d.append(entry{Op: opForget, Network: n.id})
}
