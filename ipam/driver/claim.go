package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

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

func (n *network) small() bool { return 1<<(32-n.grid.Block(0).Bits()) < smallBlock }

// growAhead claims a block in the background when few addresses are left; mu
// is held.
func (d *Driver) growAhead(n *network) {
	if n.growing || n.small() || n.gone || !d.away.IsZero() || !n.share.Low(d.cfg.Now()) {
		return
	}
	n.growing = true
	d.background(func() {
		err := d.grow(n)
		d.mu.Lock()
		n.growing = false
		d.mu.Unlock()
		if err != nil && !errors.Is(err, ErrNoAddress) {
			d.log.Warn("claim block ahead of need", "network", n.id, "error", err)
		}
	})
}

// grow claims a block, or several when the host has many already. Callers at
// the same time share one try.
func (d *Driver) grow(n *network) error {
	_, err, _ := d.grows.Do(n.id, func() (any, error) { return nil, d.claim(n) })
	return err
}

// claim makes the share of a network larger. On error it says why it cannot.
func (d *Driver) claim(n *network) error {
	d.mu.Lock()
	away, gone, title := d.unreachable(), n.gone, registry.Title(n.record)
	recent := d.cfg.Now().Sub(d.probed).Abs() < time.Second
	d.mu.Unlock()
	switch {
	case gone:
		return fmt.Errorf("network %s was removed: %w", title, store.ErrNotFound)
	case away != nil && recent:
		return fmt.Errorf("%w; %w", ErrNoAddress, away)
	}
	ctx, cancel := d.request()
	defer cancel()
	err := d.claimNext(ctx, n)
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
func (d *Driver) claimNext(ctx context.Context, n *network) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	for looked := false; ; {
		d.mu.Lock()
		if !n.share.Low(d.cfg.Now()) {
			d.mu.Unlock()
			return nil // Another caller was faster.
		}
		var candidates []int
		if n.taken != nil && !n.unsure {
			candidates = n.share.Layout().Candidates(d.cfg.Host, n.taken, n.appetite())
		}
		d.mu.Unlock()
		if len(candidates) > 0 {
			err := d.claimBlocks(ctx, n, candidates)
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
			looked = false
		}
		if looked {
			return d.full(n)
		}
		if err := d.look(ctx, n); err != nil {
			return err
		}
		looked = true
	}
}

// appetite is how many blocks to claim at once: more when the host has many,
// so that a growing host waits less often, and few of what is left.
func (n *network) appetite() int {
	if n.small() {
		return 1
	}
	left := n.taken.Size() - n.taken.Count()
	return max(1, min(8, 1+len(n.share.Blocks())/8, left/16))
}

// full says who has all the blocks.
func (d *Driver) full(n *network) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Errorf("%w: every block of network %s is taken, %d of %d by this host",
		ErrNoAddress, registry.Title(n.record), len(n.share.Blocks()), n.taken.Count())
}

// claimBlocks makes blocks ours in one transaction that needs all of them to
// be nobody's; the network is locked. It returns [store.ErrConflict] when one is not.
func (d *Driver) claimBlocks(ctx context.Context, n *network, is []int) error {
	now := d.cfg.Now()
	t := d.st.Txn().Exists(d.st.Keys.Network(n.id))
	for _, i := range is {
		key := d.st.Keys.Block(n.id, n.block(i))
		t.Absent(key).Put(key, d.owned(now))
	}
	rev, err := t.Commit(ctx)
	if err != nil {
		d.mu.Lock()
		n.unsure = true // It may have been carried out all the same.
		d.mu.Unlock()
		return err
	}
	d.own(n, rev, is...)
	return nil
}

func (d *Driver) owned(now time.Time) record.Block {
	return record.Block{Host: d.cfg.Host, Epoch: d.epoch, State: record.BlockOwned, Since: now}
}

// own takes blocks into the share. The journal has them before it has any of
// their addresses.
func (d *Driver) own(n *network, rev int64, is ...int) {
	now := d.cfg.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range is {
		n.share.AddBlock(i, now)
		n.revisions[i] = rev
		if n.taken != nil {
			n.taken.Set(i)
		}
		d.append(entry{Op: opBlock, Network: n.id, Block: i, At: now.UnixMilli()})
	}
}

// claimBlockOf claims the block that an address is in, for somebody who wants
// that very address.
func (d *Driver) claimBlockOf(n *network, a netip.Addr) error {
	i, err := n.grid.Index(a)
	if err != nil {
		return err
	}
	ctx, cancel := d.request()
	defer cancel()
	unlock, err := n.lock(ctx)
	if err == nil {
		defer unlock()
		err = d.look(ctx, n)
	}
	if d.saw(err) != nil {
		return d.explain(fmt.Sprintf("address %s is in no block of this host", a), err)
	}
	d.mu.Lock()
	owned, taken := n.share.Owns(i), n.taken.Has(i)
	d.mu.Unlock()
	if owned {
		return nil
	}
	if !taken {
		if err := d.claimBlocks(ctx, n, []int{i}); !errors.Is(d.saw(err), store.ErrConflict) {
			return d.explain(fmt.Sprintf("address %s is in no block of this host", a), err)
		}
	}
	return d.elsewhere(ctx, n, a)
}

// elsewhere says which host hands an address out.
func (d *Driver) elsewhere(ctx context.Context, n *network, a netip.Addr) error {
	blocks, _, err := store.List[record.Block](ctx, d.st, d.st.Keys.NetworkBlocks(n.id))
	if d.saw(err) != nil {
		return err
	}
	for _, it := range blocks {
		if p, err := d.prefix(n, it.Key); err == nil && p.Contains(a) {
			return fmt.Errorf("address %s is in block %s, whose addresses only host %s hands out", a, p, it.Value.Host)
		}
	}
	return fmt.Errorf("address %s: its block was in use a moment ago: %w", a, store.ErrConflict)
}
