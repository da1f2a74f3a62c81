package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// errOursNow means that an address has come into a block of this host.
var errOursNow = errors.New("address is in a block of this host by now")

// lockAddress serialises what is done in etcd about one address's pin, for as
// long as ctx lets the caller wait. It is called without Driver.mu.
func (d *Driver) lockAddress(ctx context.Context, n *network, a netip.Addr) (unlock func(), err error) {
	for {
		d.mu.Lock()
		other := n.busy[a]
		if other == nil {
			mine := make(chan struct{})
			n.busy[a] = mine
			d.mu.Unlock()
			return func() {
				d.mu.Lock()
				delete(n.busy, a)
				d.mu.Unlock()
				close(mine)
			}, nil
		}
		d.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// requestPin gives an address that is in no block of this host: etcd decides
// where it is in nobody's, its owner where it is in another host's. It returns
// [errOursNow] when the caller must look at its own blocks again.
func (d *Driver) requestPin(n *network, f *family, a netip.Addr, name string) (netip.Prefix, error) {
	what := fmt.Sprintf("address %s is in no block of this host", a)
	d.mu.Lock()
	settling := d.settling()
	d.mu.Unlock()
	if settling != nil {
		return netip.Prefix{}, fmt.Errorf("%s; %w", what, settling)
	}
	ctx, cancel := d.request()
	defer cancel()
	unlock, err := d.lockAddress(ctx, n, a)
	if err != nil {
		return netip.Prefix{}, d.explain(what, d.saw(err))
	}
	defer unlock()
	d.mu.Lock()
	_, held := n.holder(a)
	d.mu.Unlock()
	if held {
		return netip.Prefix{}, errOursNow // A caller before us got it.
	}
	rev, err := d.pin(ctx, n, f, a, name)
	if d.saw(err) != nil {
		if absent(err) {
			d.mu.Lock()
			n.unpin[a] = "" // It may be ours all the same.
			d.mu.Unlock()
		}
		return netip.Prefix{}, d.explain(what, err)
	}
	d.mu.Lock()
	return d.givePinned(n, f, a, &pin{name: name, since: d.cfg.Now(), revision: rev})
}

// givePinned writes down that a pinned address is held, and answers it. It is
// called with mu held and releases it.
func (d *Driver) givePinned(n *network, f *family, a netip.Addr, p *pin) (netip.Prefix, error) {
	n.pins[a] = p
	delete(n.unpin, a)
	n.dirty[a] = struct{}{}
	commit := d.append(entry{Op: opPin, Network: n.id, Addr: a, Name: p.name, At: p.since.UnixMilli()})
	got := n.masked(f, a)
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		d.mu.Lock()
		n.drop(a)
		d.mu.Unlock()
		return netip.Prefix{}, err
	}
	d.kick()
	return got, nil
}

// around is what etcd says about one address.
type around struct {
	pin         *record.Pin
	pinRevision int64
	// block is the block with the address, if there is one; key its place.
	block         *record.Block
	blockRevision int64
	key           string
}

// pin makes an address this host's in etcd, and returns the pin's revision.
func (d *Driver) pin(ctx context.Context, n *network, f *family, a netip.Addr, name string) (int64, error) {
	for {
		at, err := d.lookAround(ctx, n, f, a)
		if err != nil {
			return 0, err
		}
		pinKey := d.st.Keys.Pin(n.id, a.String())
		mine := record.Pin{Host: d.cfg.Host, Container: name, Epoch: d.epoch, Since: d.cfg.Now()}
		t := d.st.Txn().Exists(d.st.Keys.Network(n.id)).Unchanged(pinKey, at.pinRevision)
		switch {
		case at.pin != nil && !d.mayTake(*at.pin):
			return 0, inUseBy(a, *at.pin)
		case at.pin != nil:
			mine.Owner = at.pin.Owner
		case at.block == nil:
			if at.key != "" {
				t.Absent(at.key)
			}
		case at.block.State == record.BlockQuarantined:
			return 0, fmt.Errorf("address %s is in a block of host %s, which was taken out of the fleet: it is free in about %s", a, at.block.Host, registry.Quarantine)
		case at.block.State == record.BlockServices:
			return 0, fmt.Errorf("address %s is in a block whose addresses go to services", a)
		case at.block.Host == d.cfg.Host && at.block.Epoch != d.epoch:
			return 0, fmt.Errorf("address %s is in a block of this host whose journal was lost: it is used again when all that is in use there is known", a)
		case at.block.Host == d.cfg.Host:
			if err := d.lookAgain(ctx, n); err != nil {
				return 0, err
			}
			return 0, errOursNow
		default:
			if rev, err := d.ask(ctx, n, a, name, at); !errors.Is(err, store.ErrConflict) {
				return rev, err
			}
			continue
		}
		rev, err := t.Put(pinKey, mine).Commit(ctx)
		if !errors.Is(err, store.ErrConflict) {
			return rev, err
		}
	}
}

// mayTake reports whether a pin is this host's to take: its own that it has
// forgotten, or one whose host does not use it any more.
func (d *Driver) mayTake(p record.Pin) bool {
	return p.Released || p.Host == d.cfg.Host && p.Epoch == d.epoch
}

func inUseBy(a netip.Addr, p record.Pin) error {
	if p.Container == "" {
		return fmt.Errorf("take address %s: %w on host %s", a, ipam.ErrInUse, p.Host)
	}
	return fmt.Errorf("take address %s: %w by %s on host %s", a, ipam.ErrInUse, p.Container, p.Host)
}

// lookAround reads an address's pin and block.
func (d *Driver) lookAround(ctx context.Context, n *network, f *family, a netip.Addr) (around, error) {
	var at around
	d.mu.Lock()
	foreign := n.record.Foreign
	d.mu.Unlock()
	if foreign != "" && ipam.LowerHalf(f.subnet).Contains(a) {
		return at, fmt.Errorf("address %s is in %s, whose addresses only the engine of host %s hands out", a, ipam.LowerHalf(f.subnet), foreign)
	}
	ops := []clientv3.Op{clientv3.OpGet(d.st.Keys.Network(n.id), clientv3.WithKeysOnly()), clientv3.OpGet(d.st.Keys.Pin(n.id, a.String()))}
	if i, err := f.grid.Index(a); err == nil {
		at.key = d.st.Keys.Block(n.id, f.block(i))
		ops = append(ops, clientv3.OpGet(at.key))
	}
	r, err := d.read(ctx, ops...)
	if err != nil {
		return at, err
	}
	if r.Responses[0].GetResponseRange().Count == 0 {
		return at, fmt.Errorf("network %s: %w", n.id, store.ErrNotFound)
	}
	if kvs := r.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
		at.pin, at.pinRevision = &record.Pin{}, kvs[0].ModRevision
		if err := json.Unmarshal(kvs[0].Value, at.pin); err != nil {
			return at, fmt.Errorf("read %s: %w", kvs[0].Key, err)
		}
	}
	if len(ops) > 2 {
		if kvs := r.Responses[2].GetResponseRange().Kvs; len(kvs) > 0 {
			at.block, at.blockRevision = &record.Block{}, kvs[0].ModRevision
			if err := json.Unmarshal(kvs[0].Value, at.block); err != nil {
				return at, fmt.Errorf("read %s: %w", kvs[0].Key, err)
			}
		}
	}
	return at, nil
}

// keptFor is the address that waits for a container's name.
func (d *Driver) keptFor(n *network, f *family, name string) (netip.Addr, bool) {
	if name == "" {
		return netip.Addr{}, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if sticky(n.record) > 0 {
		for a, last := range n.unpin {
			if last == name && f.subnet.Contains(a) {
				return a, true // It started again at once.
			}
		}
	}
	kept, ok := n.kept[name]
	return kept.addr, ok && f.subnet.Contains(kept.addr)
}

// unpinAll deletes the pins of addresses that this host holds no more.
func (d *Driver) unpinAll(ctx context.Context, n *network) error {
	d.mu.Lock()
	var as []netip.Addr
	for a := range n.unpin {
		as = append(as, a)
	}
	d.mu.Unlock()
	var errs []error
	for _, a := range as {
		if err := d.unpinOne(ctx, n, a); absent(err) {
			return err
		} else if err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (d *Driver) unpinOne(ctx context.Context, n *network, a netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	defer cancel()
	unlock, err := d.lockAddress(ctx, n, a)
	if err != nil {
		return err
	}
	defer unlock()
	d.mu.Lock()
	_, due := n.unpin[a]
	f := n.of(a)
	d.mu.Unlock()
	if !due {
		return nil // Held again.
	}
	if err := d.withdrawAsks(ctx, n, a); err != nil {
		return err
	}
	key := d.st.Keys.Pin(n.id, a.String())
	it, err := store.Get[record.Pin](ctx, d.st, key)
	if err == nil && it.Value.Host == d.cfg.Host && !it.Value.Released {
		err = d.letGo(ctx, n, a, it)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("release pinned address %s: %w", a, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(n.unpin, a)
	if to, _ := f.share.Lent(a); to == d.cfg.Host && n.pins[a] == nil {
		n.unsure = true // Its block has become ours meanwhile.
	}
	return nil
}

// letGo deletes a pin and its endpoint, or lets the pin wait for its
// container's name on a lease where the network keeps addresses for names.
func (d *Driver) letGo(ctx context.Context, n *network, a netip.Addr, it store.Item[record.Pin]) error {
	t := d.st.Txn().Unchanged(it.Key, it.Revision).Delete(d.st.Keys.Endpoint(n.id, a.String()))
	d.mu.Lock()
	keep := sticky(n.record)
	d.mu.Unlock()
	if keep > 0 && it.Value.Container != "" {
		lease, err := d.st.Client().Grant(ctx, max(1, int64(keep.Seconds())))
		if err != nil {
			return err
		}
		it.Value.Released = true
		t.Put(it.Key, it.Value, clientv3.WithLease(lease.ID))
	} else {
		t.Delete(it.Key)
	}
	rev, err := t.Commit(ctx)
	if err == nil && it.Value.Released {
		d.mu.Lock()
		n.kept[it.Value.Container] = waiting{a, rev}
		d.mu.Unlock()
	}
	return err
}
