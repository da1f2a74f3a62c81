package driver

import (
	"context"
	"errors"
	"fmt"
)

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
	d.mu.Lock()
	halves := n.halves()
	d.mu.Unlock()
	for _, f := range halves {
		for _, i := range d.spare(n, f) {
			if err := d.giveBackBlock(ctx, n, f, i); err != nil {
				return fmt.Errorf("give back block of network %s: %w", n.id, err)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetIfDone(n)
	return nil
}

// giveBackBlock deletes a block of which nothing is held, unless it was taken
// into use again. The network is locked.
func (d *Driver) giveBackBlock(ctx context.Context, n *network, f *family, i int) error {
	d.mu.Lock()
	rev, known := f.revisions[i]
	if !known || n.waiting(f, i) || !f.share.RemoveBlock(i) {
		d.mu.Unlock()
		return nil // In use again, or still to be published.
	}
	delete(f.revisions, i)
	commit := d.append(entry{Op: opUnblock, Network: n.id, Block: i, V6: f.v6()})
	d.mu.Unlock()
	err := commit.Wait()
	if err == nil {
		key := d.st.Keys.Block(n.id, f.block(i))
		_, err = d.st.Txn().Unchanged(key, rev).Delete(key).Commit(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.unsure = n.unsure || err != nil; err == nil && f.taken != nil {
		f.taken.Clear(i)
	}
	return err
}

// spare are the blocks that the host can do without. Of large blocks it keeps
// one while the network is in use.
func (d *Driver) spare(n *network, f *family) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	rest, keep := d.cfg.IdleReturn, 1
	if f.small() || n.uses() == 0 {
		rest, keep = d.cfg.Cooldown, 0
	}
	if d.settling() != nil {
		return nil
	}
	idle := f.share.Idle(d.cfg.Now(), rest)
	return idle[min(keep, len(idle)):]
}

// waiting reports whether an address of block i is to be published.
func (n *network) waiting(f *family, i int) bool {
	for a := range n.dirty {
		if k, err := f.grid.Index(a); err == nil && k == i {
			return true
		}
	}
	return false
}
