package driver

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// horizon is how far a host has seen etcd come.
type horizon struct {
	cluster  uint64
	revision int64
}

func (h horizon) entry() entry {
	return entry{Op: opSeen, Cluster: h.cluster, Revision: h.revision}
}

// errRestored means that etcd has forgotten something that this host saw in
// it: it was restored from an older state, or is another etcd.
var errRestored = errors.New("etcd was restored from an older state: nothing new is claimed until what the hosts have is written to it again")

// behind compares an answer of etcd with what was seen before.
func (h horizon) behind(r *pb.ResponseHeader) bool {
	return h.cluster != 0 && (r.ClusterId != h.cluster || r.Revision < h.revision)
}

// horizon is how far etcd has come: no answer to a question asked from now on
// may be older.
func (d *Driver) horizon() horizon {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen
}

// watchful notes how far etcd has come, and returns [errRestored] while it is
// behind what this host knew when it asked. Nothing of an answer that comes
// with that error may be believed.
func (d *Driver) watchful(before horizon, r *pb.ResponseHeader) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if before.behind(r) && d.restored.IsZero() && d.seen.behind(r) {
		d.restored = d.cfg.Now()
		d.log.Error("etcd was restored from an older state: writing this host's blocks to it again",
			"cluster", r.ClusterId, "was", d.seen.cluster, "revision", r.Revision, "seen", before.revision)
	}
	if !d.restored.IsZero() {
		d.kick()
		return errRestored
	}
	d.advance(r.ClusterId, r.Revision)
	return nil
}

// advance notes how far etcd has come; mu is held. The journal learns of it
// with the next tick: what it says may be older, never newer.
func (d *Driver) advance(cluster uint64, revision int64) {
	if d.seen.cluster == cluster && revision <= d.seen.revision {
		return
	}
	d.seen, d.unseen = horizon{cluster, revision}, true
}

// settling says why nothing may be claimed at the moment, or nil; mu is held.
func (d *Driver) settling() error {
	if !d.restored.IsZero() {
		return errRestored
	}
	if left := d.settled.Sub(d.cfg.Now()); left > 0 {
		return fmt.Errorf("%w (in about %s)", errRestored, left.Round(time.Second))
	}
	return nil
}

// republish writes what this host has to an etcd that has forgotten it:
// networks, uses, blocks, pins and endpoints. What others have there by now is
// withdrawn here and reported by name. Afterwards the other hosts get time to
// do the same before anything new is claimed.
func (d *Driver) republish(ctx context.Context) error {
	d.mu.Lock()
	due := !d.restored.IsZero()
	d.mu.Unlock()
	if !due {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*d.cfg.Timeout)
	defer cancel()
	for _, n := range d.all() {
		if err := d.republishOf(ctx, n); err != nil {
			return err
		}
	}
	r, err := d.st.Client().Get(ctx, d.st.Keys.NetworkGuard())
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen, d.unseen = horizon{r.Header.ClusterId, r.Header.Revision}, false
	d.restored, d.settled = time.Time{}, d.cfg.Now().Add(d.cfg.Settle)
	d.append(d.seen.entry())
	d.log.Info("this host's blocks are in etcd again", "revision", d.seen.revision)
	return nil
}

func (d *Driver) republishOf(ctx context.Context, n *network) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	d.mu.Lock()
	rec, gone, halves := n.record, n.gone, n.halves()
	d.mu.Unlock()
	if gone {
		return nil
	}
	if err := d.republishNetwork(ctx, rec); errors.Is(err, registry.ErrOverlap) {
		d.log.Error("network is lost: its subnet is another one's in the restored etcd", "network", rec.ID, "name", rec.Name, "error", err)
		d.mu.Lock()
		d.lost(n)
		d.mu.Unlock()
		return nil
	} else if err != nil {
		return err
	}
	for _, f := range halves {
		d.mu.Lock()
		is := f.share.Blocks()
		d.mu.Unlock()
		for _, i := range is {
			if err := d.republishBlock(ctx, n, f, i); err != nil {
				return err
			}
		}
	}
	if err := d.republishPins(ctx, n); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n.afterReplay(d.cfg.Host)
	return nil
}

// republishNetwork makes a network exist again, as it was.
func (d *Driver) republishNetwork(ctx context.Context, rec record.Network) error {
	for {
		guard, err := store.Get[registry.Guard](ctx, d.st, d.st.Keys.NetworkGuard())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		all, err := registry.List(ctx, d.st)
		if err != nil {
			return err
		}
		for _, other := range all {
			if other.ID == rec.ID {
				return nil
			}
			for _, p := range registry.Subnets(rec) {
				for _, q := range registry.Subnets(other) {
					if p.Overlaps(q) {
						return fmt.Errorf("subnet %s %w network %s", p, registry.ErrOverlap, registry.Title(other))
					}
				}
			}
		}
		key := d.st.Keys.Network(rec.ID)
		_, err = d.st.Txn().Unchanged(guard.Key, guard.Revision).Absent(key).
			Put(key, rec).Put(guard.Key, registry.Guard{Last: "restore " + rec.ID}).Commit(ctx)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

// republishBlock makes a block ours again, unless it is another host's.
func (d *Driver) republishBlock(ctx context.Context, n *network, f *family, i int) error {
	d.mu.Lock()
	withdrawn := f.share.Withdrawn(i) || !f.share.Owns(i)
	d.mu.Unlock()
	if withdrawn {
		return nil
	}
	key := d.st.Keys.Block(n.id, f.block(i))
	for {
		it, err := store.Get[record.Block](ctx, d.st, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if it.Revision != 0 && (it.Value.Host != d.cfg.Host || it.Value.State != record.BlockOwned) {
			d.mu.Lock()
			d.seized(n, f, i, it.Value.Host)
			d.mu.Unlock()
			return nil
		}
		// Written again even where it is there, so that its revision is new.
		rev, err := d.st.Txn().Unchanged(key, it.Revision).Put(key, d.owned(d.cfg.Now())).Commit(ctx)
		if errors.Is(err, store.ErrConflict) {
			continue
		} else if err != nil {
			return err
		}
		d.mu.Lock()
		f.revisions[i] = rev
		d.mu.Unlock()
		return nil
	}
}

// seized withdraws a block that is another host's by now, and says who is
// left in it; mu is held.
func (d *Driver) seized(n *network, f *family, i int, by string) {
	var held []string
	b := f.grid.Block(i)
	n.eachHeld(func(h ipam.Held) {
		if b.Contains(h.Addr) {
			held = append(held, h.Addr.String()+" "+h.Name)
		}
	})
	d.log.Error("block is not this host's any more", "network", registry.Title(n.record), "block", b, "owner", by, "held", held)
	d.withdraw(n, f, i)
}

// read carries out reads of one revision and looks whether etcd is the one
// that it was.
func (d *Driver) read(ctx context.Context, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	before := d.horizon()
	r, err := d.st.Client().Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, err
	}
	return r, d.watchful(before, r.Header)
}
