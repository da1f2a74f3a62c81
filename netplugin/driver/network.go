package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

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
	d.Log.Info("network created", "network", n.ID, "name", n.Name, "subnet", subnetsOf(n), "egress", n.Egress, "foreign", foreign)
	return nil
}

// pool is the address space that the engine has for a network, of one family
// or both; what it does not have is not valid.
type pool struct {
	v4, v6   family
	reserved []netip.Addr // --aux-address
	// foreign says that the pools are not of our IPAM driver.
	foreign bool
}

// family is one family's part.
type family struct {
	subnet  netip.Prefix
	gateway netip.Addr // not valid when the engine names none
}

// text is the subnet as records have it, empty when there is none.
func (f family) text() string {
	if !f.subnet.IsValid() {
		return ""
	}
	return f.subnet.String()
}

func (p pool) String() string {
	return strings.Join(slices.DeleteFunc([]string{p.v4.text(), p.v6.text()}, func(s string) bool { return s == "" }), " and ")
}

func (d *Driver) readPool(r *network.CreateNetworkRequest) (pool, error) {
	switch {
	case len(r.IPv4Data) > 1 || len(r.IPv6Data) > 1:
		return pool{}, fmt.Errorf("a clocker network has one subnet of each family, not %d of IPv4 and %d of IPv6", len(r.IPv4Data), len(r.IPv6Data))
	case len(r.IPv4Data)+len(r.IPv6Data) == 0:
		return pool{}, errors.New("a clocker network has at least one subnet, and this one has none")
	}
	var p pool
	for _, f := range []struct {
		to   *family
		data []*network.IPAMData
		v6   bool
	}{{&p.v4, r.IPv4Data, false}, {&p.v6, r.IPv6Data, true}} {
		if len(f.data) == 0 {
			continue
		}
		if f.data[0] == nil {
			return pool{}, errors.New("read subnet: the engine has left it empty")
		}
		if err := d.readFamily(f.to, &p, f.data[0]); err != nil {
			return pool{}, err
		}
		if f.to.subnet.Addr().Is6() != f.v6 {
			return pool{}, fmt.Errorf("read subnet: %s is of the other address family", f.to.subnet)
		}
	}
	return p, nil
}

func (d *Driver) readFamily(f *family, p *pool, data *network.IPAMData) error {
	subnet, err := netip.ParsePrefix(data.Pool)
	if err != nil {
		return fmt.Errorf("read subnet: %w", err)
	}
	f.subnet = subnet.Masked()
	p.foreign = p.foreign || data.AddressSpace != d.AddressSpace
	if data.Gateway != "" {
		g, err := netip.ParsePrefix(data.Gateway)
		if err != nil {
			return fmt.Errorf("read gateway: %w", err)
		}
		if f.gateway = g.Addr(); !f.subnet.Contains(f.gateway) {
			return fmt.Errorf("gateway %s is not in the subnet %s", f.gateway, f.subnet)
		}
	}
	for name, v := range data.AuxAddresses {
		a, err := netip.ParsePrefix(fmt.Sprint(v))
		if err != nil {
			return fmt.Errorf("read auxiliary address %s: %w", name, err)
		}
		p.reserved = append(p.reserved, a.Addr())
	}
	return nil
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
	if n.Subnet != p.v4.text() || n.Subnet6 != p.v6.text() {
		return n, fmt.Errorf("network %s has the subnet %s in the fleet, not %s", n.ID, subnetsOf(n), p)
	}
	if p.foreign && n.Foreign != d.Host {
		return n, fmt.Errorf("network %s is in the fleet already: on this host it needs --ipam-driver clocker --ipam-opt %s=%s", n.ID, optNetwork, n.ID)
	}
	if n.ByHand && n.Name == "" && o.network == "" {
		// It was made a moment ago, by this very command, whose options are
		// known only now.
		return d.Addresses.Change(n.ID, func(n *record.Network) error {
			o.apply(n)
			return d.checkMTU(o.mtu, *n)
		})
	}
	return n, o.agree(n)
}

// lookUp finds a network that the fleet has.
func (d *Driver) lookUp(o options, p pool) (record.Network, error) {
	if o.network == "" {
		return d.bySubnets(p)
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

// bySubnets finds the network of the pools. Where the engine asked for a pool
// of each family, each has become a network, which are one from here on.
func (d *Driver) bySubnets(p pool) (record.Network, error) {
	var found []record.Network
	for _, f := range []family{p.v4, p.v6} {
		if !f.subnet.IsValid() {
			continue
		}
		n, ok := d.Addresses.BySubnet(f.subnet)
		if !ok {
			return n, fmt.Errorf("the fleet has no network with the subnet %s on this host", f.subnet)
		}
		found = append(found, n)
	}
	if len(found) == 1 || found[0].ID == found[1].ID {
		return found[0], nil
	}
	return d.Addresses.JoinFamilies(found[0].ID, found[1].ID)
}

// subnetsOf names a network's subnets.
func subnetsOf(n record.Network) string {
	return strings.Join(slices.DeleteFunc([]string{n.Subnet, n.Subnet6}, func(s string) bool { return s == "" }), " and ")
}

// register makes a network of the fleet from one of the engine's own subnets.
func (d *Driver) register(o options, p pool) (record.Network, error) {
	n := record.Network{Subnet6: p.v6.text()}
	o.apply(&n)
	if err := d.checkMTU(o.mtu, n); err != nil {
		return n, err
	}
	unfiltered := n.Unfiltered
	n, err := d.Addresses.CreateForeign(registry.Request{
		Subnet: p.v4.subnet, Gateway: p.v4.gateway, NoIPv4: !p.v4.subnet.IsValid(),
		Subnet6: p.v6.subnet, Gateway6: p.v6.gateway, IPv6: p.v6.subnet.IsValid(),
		Internal: n.Internal, Segment: n.Segment, Carrier: n.Carrier, Egress: n.Egress, MTU: n.MTU, Options: n.Options,
	})
	if err == nil && unfiltered {
		n, err = d.Addresses.Change(n.ID, func(n *record.Network) error { n.Unfiltered = true; return nil })
	}
	if errors.Is(err, registry.ErrOverlap) {
		return n, fmt.Errorf("%w; --ipam-driver clocker gives the network a subnet that is free on every host", err)
	}
	return n, err
}

// apply puts options into a network that is being made.
func (o options) apply(n *record.Network) {
	o.applyBridged(n)
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
	n.Unfiltered = o.unfiltered == "true"
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
	differs(optUnfiltered, fmt.Sprint(n.Unfiltered), o.unfiltered)
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
