package driver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Owner reports whether an address was handed out by this host and is held:
// by the driver, or by the host's engine in a network made with its own IPAM.
func (d *Driver) Owner(network string, a netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.networks[network]
	if n == nil {
		return false
	}
	if p, ok := n.byEngine(d.cfg.Host); ok && p.Contains(a) {
		_, reserved := n.share.Layout().Reserved(a)
		return !reserved
	}
	_, held := n.share.Holder(a)
	return held
}

// Networks returns the networks that this host uses or owns blocks of, in the
// order of their ids.
func (d *Driver) Networks() []record.Network {
	d.mu.Lock()
	defer d.mu.Unlock()
	ns := make([]record.Network, 0, len(d.networks))
	for _, n := range d.networks {
		ns = append(ns, n.record)
	}
	slices.SortFunc(ns, func(a, b record.Network) int { return strings.Compare(a.ID, b.ID) })
	return ns
}

// Network returns a network that this host knows.
func (d *Driver) Network(id string) (record.Network, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.networks[id]; n != nil {
		return n.record, true
	}
	return record.Network{}, false
}

// BySubnet returns the network that this host knows with exactly that subnet:
// the way from an engine's CreateNetwork to the fleet's network.
func (d *Driver) BySubnet(subnet netip.Prefix) (record.Network, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.networks {
		if n.subnet == subnet && !n.gone {
			return n.record, true
		}
	}
	return record.Network{}, false
}

// Blocks returns the ranges that this host hands addresses out of, by network
// id and in order, with the engine's own where there is one.
func (d *Driver) Blocks() map[string][]netip.Prefix {
	d.mu.Lock()
	defer d.mu.Unlock()
	blocks := map[string][]netip.Prefix{}
	for id, n := range d.networks {
		var ps []netip.Prefix
		if p, ok := n.byEngine(d.cfg.Host); ok {
			ps = append(ps, p)
		}
		is := n.share.Blocks()
		slices.Sort(is)
		for _, i := range is {
			if !n.share.Withdrawn(i) {
				ps = append(ps, n.grid.Block(i))
			}
		}
		if len(ps) > 0 {
			blocks[id] = ps
		}
	}
	return blocks
}

// Held returns the addresses that are held, with their holders' names, by
// network id and in no order.
func (d *Driver) Held() map[string][]ipam.Held {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := map[string][]ipam.Held{}
	for id, n := range d.networks {
		n.share.EachHeld(func(h ipam.Held) { all[id] = append(all[id], h) })
	}
	return all
}

// Annotate adds what the network driver knows of an address's holder to what
// etcd is told. It does nothing when nobody holds the address.
func (d *Driver) Annotate(network string, a netip.Addr, note Note) {
	d.mu.Lock()
	n := d.networks[network]
	if n != nil {
		if _, held := n.share.Holder(a); held {
			n.notes[a] = note
			n.dirty[a] = struct{}{}
		}
	}
	d.mu.Unlock()
	d.kick()
}

// Reserve keeps addresses of a network from containers on every host. An
// engine tells only CreateNetwork which of the addresses it asked for are
// auxiliary.
func (d *Driver) Reserve(network string, addrs ...netip.Addr) error {
	ctx, cancel := d.request()
	defer cancel()
	rec, err := registry.Reserve(ctx, d.st, network, addrs...)
	return d.refresh(rec, err)
}

// Change changes a network's record in etcd and here; f is as for
// [registry.Change].
func (d *Driver) Change(network string, f func(*record.Network) error) (record.Network, error) {
	ctx, cancel := d.request()
	defer cancel()
	rec, err := registry.Change(ctx, d.st, network, f)
	return rec, d.refresh(rec, err)
}

func (d *Driver) refresh(rec record.Network, err error) error {
	if d.saw(err) != nil {
		return d.explain("the network cannot be changed now", err)
	}
	d.mu.Lock()
	n := d.networks[rec.ID]
	if n == nil {
		d.mu.Unlock()
		return nil
	}
	err = n.set(rec)
	commit := d.append(n.use())
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return commit.Wait()
}

// CreateForeign makes a network of the fleet for a Docker network that was
// made with the engine's own IPAM: the engine goes on handing out the lower
// half of the subnet on this host, other hosts take the upper half. It counts
// as one use, which [Driver.ReleaseNetwork] ends. A network that this host
// made so before with that subnet is returned as it is.
func (d *Driver) CreateForeign(r registry.Request) (record.Network, error) {
	if n, ok := d.BySubnet(r.Subnet); ok && n.Foreign == d.cfg.Host {
		return n, nil
	}
	if !r.Subnet.IsValid() {
		return record.Network{}, fmt.Errorf("create network: the engine gave no subnet")
	}
	r.Foreign, r.ByHand = d.cfg.Host, true
	rec, err := d.makeNetwork(r)
	if err != nil {
		return rec, err
	}
	ctx, cancel := d.request()
	defer cancel()
	if err := registry.ClaimForeign(ctx, d.st, rec, d.cfg.Host, d.cfg.Now()); d.saw(err) != nil {
		_ = d.ReleaseNetwork(rec.ID) // Run tries again what fails of this.
		return rec, err
	}
	return rec, nil
}

// Observe takes a change under the keys of networks. Memory is not changed by
// it: what concerns this host is looked up in etcd again.
func (d *Driver) Observe(c store.Change) {
	prefix := d.st.Keys.Networks()
	d.mu.Lock()
	touched := c.Reset
	touch := func(key string) {
		if id, ok := strings.CutPrefix(key, prefix); ok && d.networks[id] != nil {
			d.networks[id].unsure, touched = true, true
		}
	}
	for _, p := range c.Puts {
		touch(p.Key)
	}
	for _, k := range c.Deletes {
		touch(k)
	}
	if c.Reset {
		for _, n := range d.networks {
			n.unsure = true
		}
	}
	d.mu.Unlock()
	if touched {
		d.kick()
	}
}
