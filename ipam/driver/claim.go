package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/journal"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// ErrNoAddress means that no block of the host has a free address, and it can
// get no further block.
var ErrNoAddress = errors.New("no free address in the blocks of this host")

// smallBlock is the number of addresses below which a host claims no block
// ahead of need, and gives each back as soon as it may: a small network has
// none to spare.
const smallBlock = 8

func (f *family) small() bool { return ipam.Size(f.grid.Block(0)) < smallBlock }

// growAhead claims a block in the background when few addresses are left; mu
// is held.
func (d *Driver) growAhead(n *network, f *family) {
	if f.growing || f.small() || n.gone || !d.away.IsZero() || d.settling() != nil || !f.share.Low(d.cfg.Now()) {
		return
	}
	f.growing = true
	d.background(func() {
		err := d.grow(n, f)
		d.mu.Lock()
		f.growing = false
		d.mu.Unlock()
		if err != nil && !errors.Is(err, ErrNoAddress) {
			d.log.Warn("claim block ahead of need", "network", n.id, "error", err)
		}
	})
}

// grow claims a block, or several when the host needs many. Callers at the
// same time share one try.
func (d *Driver) grow(n *network, f *family) error {
	_, err, _ := d.grows.Do(n.id+" "+f.subnet.String(), func() (any, error) { return nil, d.claim(n, f) })
	return err
}

// claim makes the share of a network larger. On error it says why it cannot.
func (d *Driver) claim(n *network, f *family) error {
	d.mu.Lock()
	away, settling, gone, title := d.unreachable(), d.settling(), n.gone, registry.Title(n.record)
	recent := d.cfg.Now().Sub(d.probed).Abs() < time.Second
	d.mu.Unlock()
	switch {
	case gone:
		return fmt.Errorf("network %s was removed: %w", title, store.ErrNotFound)
	case away != nil && recent:
		return fmt.Errorf("%w; %w", ErrNoAddress, away)
	case settling != nil:
		return fmt.Errorf("%w; %w", ErrNoAddress, settling)
	}
	ctx, cancel := d.request()
	defer cancel()
	err := d.claimNext(ctx, n, f)
	if d.saw(err) == nil || errors.Is(err, ErrNoAddress) {
		return err
	}
	if !absent(err) {
		return fmt.Errorf("%w: claim block of network %s: %w", ErrNoAddress, title, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Errorf("%w; %w", ErrNoAddress, d.unreachable())
}

// claimNext tries candidates until one is ours.
func (d *Driver) claimNext(ctx context.Context, n *network, f *family) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for looked := false; ; {
		d.mu.Lock()
		if !f.share.Low(d.cfg.Now()) {
			d.mu.Unlock()
			return nil // Another caller was faster.
		}
		var candidates []int
		if f.taken != nil && (looked || !n.unsure) {
			candidates = f.share.Layout().Candidates(d.cfg.Host, f.taken, f.appetite(d.cfg.Now()))
		}
		d.mu.Unlock()
		if len(candidates) > 0 {
			err := d.claimBlocks(ctx, n, f, candidates)
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
			looked = false
		}
		if looked {
			return d.full(n, f)
		}
		if err := d.look(ctx, n); err != nil {
			return err
		}
		looked = true
	}
}

const (
	// mostBlocks is how many blocks are claimed at once at most.
	mostBlocks = 32
	// eager is the time between two claims below which the second takes
	// twice as many blocks as the first.
	eager = time.Second
)

// appetite is how many blocks to claim at once: more each time while the host
// needs them quickly, so that it waits for etcd less and less often, and few
// of what is left.
func (f *family) appetite(now time.Time) int {
	if f.small() {
		return 1
	}
	wanted := 1
	if f.hunger > 0 && now.Sub(f.grown) < eager {
		wanted = 2 * f.hunger
	}
	left := f.taken.Size() - f.taken.Count()
	return max(1, min(mostBlocks, wanted, left/16))
}

// full says who has all the blocks.
func (d *Driver) full(n *network, f *family) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	where := ""
	if len(n.halves()) > 1 {
		where = " for " + f.subnet.String()
	}
	return fmt.Errorf("%w: every block of network %s is taken%s, %d of %d by this host",
		ErrNoAddress, registry.Title(n.record), where, len(f.share.Blocks()), f.taken.Count())
}

// claimBlocks makes blocks ours in one transaction that needs all of them to
// be nobody's, and reads the pins in them at its revision; the network is
// locked. It returns [store.ErrConflict] when one is somebody's.
func (d *Driver) claimBlocks(ctx context.Context, n *network, f *family, is []int) error {
	now := d.cfg.Now()
	pins := d.st.Keys.NetworkPins(n.id)
	cmps := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(d.st.Keys.Network(n.id)), ">", 0)}
	ops := []clientv3.Op{clientv3.OpGet(pins, clientv3.WithPrefix())}
	defer d.claiming(n, f, is)()
	for _, i := range is {
		key := d.st.Keys.Block(n.id, f.block(i))
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(key), "=", 0))
		ops = append(ops, d.put(key, d.owned(now)))
	}
	before := d.horizon()
	r, err := d.st.Client().Txn(ctx).If(cmps...).Then(ops...).Commit()
	if err == nil && !r.Succeeded {
		err = store.ErrConflict
	}
	var pinned []pinAt
	if err == nil {
		if err = d.watchful(before, r.Header); err == nil {
			pinned, err = readPins(r.Responses[0].GetResponseRange().Kvs, pins)
		}
		d.mu.Lock()
		err = cmp.Or(err, d.settling())
		d.mu.Unlock()
	}
	if err != nil {
		d.mu.Lock()
		n.unsure = true // It may have been carried out all the same.
		d.mu.Unlock()
		return err
	}
	d.own(n, f, r.Header.Revision, pinned, is...)
	d.mu.Lock()
	n.doneReading(r.Header.Revision)
	f.grown, f.hunger = now, len(is)
	d.mu.Unlock()
	return nil
}

// claiming notes that blocks are being claimed, and their pins read, until done
// is called.
func (d *Driver) claiming(n *network, f *family, is []int) (done func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.startReading()
	for _, i := range is {
		f.claiming[i] = true
	}
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		n.passed = nil
		clear(f.claiming)
	}
}

func (d *Driver) owned(now time.Time) record.Block {
	return record.Block{Host: d.cfg.Host, Epoch: d.epoch, State: record.BlockOwned, Since: now}
}

// own takes blocks into the share, with the pins that were in them when they
// became ours. The journal has them before it has any of their addresses.
func (d *Driver) own(n *network, f *family, rev int64, pins []pinAt, is ...int) {
	now := d.cfg.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range is {
		f.share.AddBlock(i, now)
		f.revisions[i] = rev
		delete(f.fence, i)
		if f.taken != nil {
			f.taken.Set(i)
		}
		// One record: a block without its pins must never be read back.
		e := entry{Op: opBlock, Network: n.id, Block: i, V6: f.v6(), At: now.UnixMilli(), Lent: map[netip.Addr]string{}}
		for _, p := range pins {
			if k, err := f.grid.Index(p.addr); err == nil && k == i {
				f.share.RestoreLent(p.addr, p.Host, now)
				e.Lent[p.addr] = p.Host
			}
		}
		d.append(e)
		d.reinstate(n, f, i)
	}
}

// reinstate ends a block's withdrawal, if it was withdrawn; mu is held.
func (d *Driver) reinstate(n *network, f *family, i int) {
	if now := d.cfg.Now(); f.share.Withdrawn(i) {
		f.share.Reinstate(i, now)
		d.append(entry{Op: opReinstate, Network: n.id, Block: i, V6: f.v6(), At: now.UnixMilli()})
	}
}

// lend notes that an address of a block of ours is another host's, whatever it
// was; mu is held.
func (d *Driver) lend(n *network, f *family, a netip.Addr, to string) journal.Commit {
	now := d.cfg.Now()
	f.share.RestoreLent(a, to, now)
	return d.append(entry{Op: opLend, Network: n.id, Addr: a, Name: to, At: now.UnixMilli()})
}

// unlend notes that a lent address is free again; mu is held.
func (d *Driver) unlend(n *network, f *family, a netip.Addr) {
	now := d.cfg.Now()
	if !f.share.Return(a, now) {
		return
	}
	d.append(entry{Op: opReturn, Network: n.id, Addr: a, At: now.UnixMilli()})
	n.dirty[a] = struct{}{}
	if i, err := f.grid.Index(a); err == nil && f.share.Withdrawn(i) && f.share.RemoveBlock(i) {
		d.append(entry{Op: opUnblock, Network: n.id, Block: i, V6: f.v6()})
	}
}
