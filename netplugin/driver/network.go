package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/docker/go-plugins-helpers/network"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// CreateNetwork finds out which network of the fleet the engine's network is,
// or registers a new one, and makes it present on this host. It is on disk
// when it returns.
func (d *Driver) CreateNetwork(r *network.CreateNetworkRequest) error {
	defer d.exclusive(r.NetworkID)()
	o, err := parseOptions(r.Options)
	if err != nil {
		return err
	}
	p, err := d.readPool(r)
	if err != nil {
		return err
	}
	n, err := d.find(o, p)
	if err != nil {
		return err
	}
	foreign := p.foreign
	if len(p.reserved) > 0 {
		if err := d.Addresses.Reserve(n.ID, p.reserved...); err != nil {
			return err
		}
	}
	if err := d.present(networkState{ID: r.NetworkID, Network: n, Foreign: foreign}); err != nil {
		return err
	}
	d.Log.Info("network created", "network", n.ID, "name", n.Name, "subnet", n.Subnet, "egress", n.Egress, "foreign", foreign)
	return nil
}

// pool is the address pool that the engine has for a network.
type pool struct {
	subnet   netip.Prefix
	gateway  netip.Addr   // not valid when the engine names none
	reserved []netip.Addr // --aux-address
	// foreign says that the pool is not of our IPAM driver.
	foreign bool
}

func (d *Driver) readPool(r *network.CreateNetworkRequest) (pool, error) {
	switch {
	case len(r.IPv6Data) > 0:
		return pool{}, errNoIPv6
	case len(r.IPv4Data) != 1:
		return pool{}, fmt.Errorf("a clocker network has one subnet, not %d", len(r.IPv4Data))
	}
	data := r.IPv4Data[0]
	subnet, err := netip.ParsePrefix(data.Pool)
	if err != nil {
		return pool{}, fmt.Errorf("read subnet: %w", err)
	}
	p := pool{subnet: subnet.Masked(), foreign: data.AddressSpace != d.AddressSpace}
	if data.Gateway != "" {
		g, err := netip.ParsePrefix(data.Gateway)
		if err != nil {
			return pool{}, fmt.Errorf("read gateway: %w", err)
		}
		p.gateway = g.Addr()
	}
	for name, v := range data.AuxAddresses {
		a, err := netip.ParsePrefix(fmt.Sprint(v))
		if err != nil {
			return pool{}, fmt.Errorf("read auxiliary address %s: %w", name, err)
		}
		p.reserved = append(p.reserved, a.Addr())
	}
	return p, nil
}

// find finds the network of the fleet that is meant, or makes it.
func (d *Driver) find(o options, p pool) (record.Network, error) {
	if o.network == "" && p.foreign {
		return d.register(o, p)
	}
	n, err := d.lookUp(o, p)
	if err != nil {
		return n, err
	}
	if n.Subnet != p.subnet.String() {
		return n, fmt.Errorf("network %s has the subnet %s in the fleet, not %s", n.ID, n.Subnet, p.subnet)
	}
	if p.foreign && n.Foreign != d.Host {
		return n, fmt.Errorf("network %s is in the fleet already: on this host it needs --ipam-driver clocker --ipam-opt %s=%s", n.ID, optNetwork, n.ID)
	}
	if n.ByHand && n.Name == "" && o.network == "" {
		// It was made a moment ago, by this very command, whose options are
		// known only now.
		return d.Addresses.Change(n.ID, func(n *record.Network) error { o.apply(n); return nil })
	}
	return n, o.agree(n)
}

// lookUp finds a network that the fleet has.
func (d *Driver) lookUp(o options, p pool) (record.Network, error) {
	if o.network == "" {
		n, ok := d.Addresses.BySubnet(p.subnet)
		if !ok {
			return n, fmt.Errorf("the fleet has no network with the subnet %s on this host", p.subnet)
		}
		return n, nil
	}
	if n, ok := d.Addresses.Network(o.network); ok {
		return n, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	n, err := d.Topology.Network(ctx, o.network)
	if errors.Is(err, store.ErrNotFound) {
		return n, fmt.Errorf("network %s is not in the fleet: leave out -o %s to make a new one", o.network, optNetwork)
	}
	return n, err
}

// register makes a network of the fleet from one of the engine's own subnets.
func (d *Driver) register(o options, p pool) (record.Network, error) {
	n := record.Network{Segment: "routed", Carrier: "direct"}
	o.apply(&n)
	n, err := d.Addresses.CreateForeign(registry.Request{
		Subnet: p.subnet, Gateway: p.gateway, Internal: n.Internal, Segment: n.Segment, Carrier: n.Carrier, Egress: n.Egress, MTU: n.MTU,
	})
	if errors.Is(err, registry.ErrOverlap) {
		return n, fmt.Errorf("%w; --ipam-driver clocker gives the network a subnet that is free on every host", err)
	}
	return n, err
}

// apply puts options into a network that is being made.
func (o options) apply(n *record.Network) {
	n.Internal = o.internal
	n.Egress = egressEngine
	if o.egress != "" {
		n.Egress = o.egress
	}
	if o.mtu != 0 {
		n.MTU = o.mtu
	}
	if o.segment != "" {
		n.Segment = o.segment
	}
	if o.carrier != "" {
		n.Carrier = o.carrier
	}
}

// agree checks that options do not contradict a network that exists.
func (o options) agree(n record.Network) error {
	var errs []error
	differs := func(option, have, want string) {
		if want != "" && want != have {
			errs = append(errs, fmt.Errorf("network %s has %s=%s in the fleet, not %s", n.ID, option, have, want))
		}
	}
	differs(optEgress, n.Egress, o.egress)
	differs(optSegment, n.Segment, o.segment)
	differs(optCarrier, n.Carrier, o.carrier)
	if o.mtu != 0 {
		differs(optMTU, fmt.Sprint(n.MTU), fmt.Sprint(o.mtu))
	}
	if o.internal != n.Internal {
		errs = append(errs, fmt.Errorf("network %s is internal=%t in the fleet, not %t", n.ID, n.Internal, o.internal))
	}
	return errors.Join(errs...)
}

// present makes a network present on this host.
func (d *Driver) present(s networkState) error {
	sn, err := segmentNetwork(s.Network)
	if err != nil {
		return err
	}
	links, err := d.segmentOf(sn)
	if err != nil {
		return err
	}
	if err := d.files.putNetwork(s); err != nil {
		return err
	}
	d.mu.Lock()
	d.networks[s.ID] = s
	d.mu.Unlock()
	if err := d.Filter.PutNetwork(filterNetwork(s.Network, sn)); err != nil {
		return d.absent(s.ID, err)
	}
	d.readFleet()
	if err := links.AddNetwork(sn); err != nil {
		return d.absent(s.ID, err)
	}
	return nil
}

// absent takes a network back that could not be made, and returns the reason.
func (d *Driver) absent(id string, reason error) error {
	return errors.Join(reason, d.DeleteNetwork(&network.DeleteNetworkRequest{NetworkID: id}))
}

// DeleteNetwork takes a network away from this host. That etcd learns of it is
// seen to later, even by another run of the plugin.
func (d *Driver) DeleteNetwork(r *network.DeleteNetworkRequest) error {
	d.mu.Lock()
	n, ok := d.networks[r.NetworkID]
	if !ok || n.Removed {
		d.mu.Unlock()
		return nil
	}
	n.Removed = true
	d.networks[r.NetworkID] = n
	last := !d.uses(n.Network.ID)
	var left []string
	for _, e := range d.endpoints {
		if e.EngineNetwork == r.NetworkID {
			left = append(left, e.ID)
		}
	}
	d.mu.Unlock()
	if err := d.files.putNetwork(n); err != nil {
		d.Log.Error("network's removal not written", "network", n.Network.ID, "error", err)
	}
	// Engines delete a network only when it has no endpoint; what they have
	// forgotten goes with it.
	for _, id := range left {
		d.tearDown(id)
	}
	if last {
		for _, s := range d.Segments {
			s.RemoveNetwork(n.Network.ID)
		}
		if err := d.Filter.RemoveNetwork(n.Network.ID); err != nil {
			d.Log.Error("network's rules left behind", "network", n.Network.ID, "error", err)
		}
	}
	d.again()
	return nil
}

// uses reports whether one of the engine's networks is on a network of the
// fleet; callers hold mu.
func (d *Driver) uses(network string) bool {
	for _, n := range d.networks {
		if n.Network.ID == network && !n.Removed {
			return true
		}
	}
	return false
}
