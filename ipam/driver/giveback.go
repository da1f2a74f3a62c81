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
	for _, i := range d.spare(n) {
		d.mu.Lock()
		rev, known := n.revisions[i]
		if !known || n.waiting(i) || !n.share.RemoveBlock(i) {
			d.mu.Unlock()
			continue // Taken into use again, or still to be published.
		}
		delete(n.revisions, i)
		key := d.st.Keys.Block(n.id, n.block(i))
		commit := d.append(entry{Op: opUnblock, Network: n.id, Block: i})
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
