package driver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
)

// Owner reports whether an address was handed out by this host and is held:
// by the driver, or by the host's engine in a network made with its own IPAM.
func (d *Driver) Owner(network string, a netip.Addr) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(network)
	if n == nil {
		return false
	}
	if n.byEngine(d.cfg.Host, a) {
		_, reserved := n.of(a).share.Layout().Reserved(a)
		return !reserved
	}
	_, held := n.holder(a)
	return held
}

// find is a network by its id, or by the one that its IPv6 half had before
// the engine said that both are one; nil when this host does not know it. mu
// is held.
func (d *Driver) find(id string) *network {
	if n := d.networks[id]; n != nil {
		return n
	}
	for _, n := range d.networks {
		if n.record.Joined == id {
			return n
		}
	}
	return nil
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
	if n := d.find(id); n != nil {
		return n.record, true
	}
	return record.Network{}, false
}

// BySubnet returns the network that this host knows with exactly that subnet,
// of either family:
// the way from an engine's CreateNetwork to the fleet's network.
func (d *Driver) BySubnet(subnet netip.Prefix) (record.Network, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.networks {
		if f := n.of(subnet.Addr()); f != nil && f.subnet == subnet && !n.gone {
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
		for _, f := range n.halves() {
			if n.record.Foreign == d.cfg.Host {
				ps = append(ps, ipam.LowerHalf(f.subnet))
			}
			is := f.share.Blocks()
			slices.Sort(is)
			for _, i := range is {
				if !f.share.Withdrawn(i) {
					ps = append(ps, f.grid.Block(i))
				}
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
		n.eachHeld(func(h ipam.Held) { all[id] = append(all[id], h) })
	}
	return all
}

// Annotate adds what the network driver knows of an address's holder to what
// etcd is told. It does nothing when nobody holds the address.
func (d *Driver) Annotate(network string, a netip.Addr, note Note) {
	d.mu.Lock()
	n := d.find(network)
	if n != nil {
		if _, held := n.holder(a); held {
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
	subnet := r.Subnet
	if r.NoIPv4 {
		subnet = r.Subnet6
	}
	if n, ok := d.BySubnet(subnet); ok && n.Foreign == d.cfg.Host {
		return n, nil
	}
	if !subnet.IsValid() {
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
