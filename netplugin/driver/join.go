package driver

import (
	"fmt"
	"net/netip"

	"github.com/docker/go-plugins-helpers/network"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/hostconfig"
)

// Route types of Join's reply.
const (
	nextHop   = 0
	connected = 1
)

// outside6 is where IPv6 leads to beyond the fleet: global unicast addresses
// and unique local ones (RFC 4291, RFC 4193).
var outside6 = []string{"2000::/3", "fc00::/7"}

// Join tells the engine how to set the container's interface up.
func (d *Driver) Join(r *network.JoinRequest) (*network.JoinResponse, error) {
	defer d.exclusive(r.EndpointID)()
	e, n, ok := d.known(r.EndpointID)
	if !ok {
		return nil, fmt.Errorf("join: endpoint %s is not known on this host", r.EndpointID)
	}
	wanted, told, err := bindings(r.Options)
	if err != nil {
		return nil, err
	}
	if told {
		e.Wanted = wanted
	}
	e.Left, e.Sandbox = false, r.SandboxKey
	e.DNS, e.First6 = d.firstOf(e)
	if err := d.remember(e); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return joinReply(e, n, d.opened(e.Network)), nil
}

// firstOf reports whether no other endpoint of the sandbox has the route to
// DNS, or the ways of IPv6.
func (d *Driver) firstOf(e endpointState) (dns, first6 bool) {
	dns, first6 = e.Address.IsValid(), e.Address6.IsValid()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, x := range d.endpoints {
		if x.ID != e.ID && x.Sandbox == e.Sandbox {
			dns, first6 = dns && !x.DNS, first6 && !x.First6
		}
	}
	return dns, first6
}

// opened are the ranges beside its own that a network's containers may send
// to, or may be sent from.
func (d *Driver) opened(n segment.Network) []netip.Prefix {
	var ps []netip.Prefix
	d.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) { ps = openTo(t, n) })
	return ps
}

// joinReply works out the container's routes. Engines set interface routes
// first, then those by a next hop, then the default route.
func joinReply(e endpointState, n networkState, opened []netip.Prefix) *network.JoinResponse {
	j := &network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: segment.PeerName(e.ID), DstPrefix: "eth"},
		// An internal network has no way out, not even by docker_gwbridge.
		DisableGatewayService: n.Network.Internal,
	}
	by := func(gateway netip.Addr, destinations ...string) {
		for _, dst := range destinations {
			j.StaticRoutes = append(j.StaticRoutes, &network.StaticRoute{Destination: dst, RouteType: nextHop, NextHop: gateway.String()})
		}
	}
	onLink := func(a netip.Addr) {
		j.StaticRoutes = append(j.StaticRoutes, &network.StaticRoute{Destination: netip.PrefixFrom(a, a.BitLen()).String(), RouteType: connected})
	}
	plugin := n.Network.Egress == egressPlugin && !n.Network.Internal
	if e.Address.IsValid() {
		gateway := e.Network.Gateway
		if e.Address.IsSingleIP() {
			onLink(gateway)
			by(gateway, e.Network.Subnet.String())
		}
		if e.DNS {
			by(gateway, hostconfig.DNSAddress+"/32")
		}
		if plugin {
			j.Gateway = gateway.String()
		}
	}
	if e.Address6.IsValid() {
		gateway := e.Network.Gateway6
		switch {
		case e.Address6.IsSingleIP():
			onLink(gateway)
			by(gateway, e.Network.Subnet6.String())
		case e.Network.Kind != bridged:
			// The container takes the subnet to be on its link, where nobody
			// answers for its neighbours: both halves lead to the gateway.
			onLink(gateway)
			by(gateway, halves(e.Network.Subnet6)...)
		}
		if e.First6 {
			by(gateway, hostconfig.DNSAddress6+"/128")
		}
		switch {
		case plugin:
			j.GatewayIPv6 = gateway.String()
		case e.First6 && !n.Network.Internal:
			// With a gateway in the reply the engine would leave out
			// docker_gwbridge, and that has no IPv6.
			by(gateway, outside6...)
		}
	}
	if plugin {
		return j // its default route leads there
	}
	for _, p := range opened {
		gateway := e.Network.Gateway
		if p.Addr().Is6() {
			gateway = e.Network.Gateway6
		}
		if gateway.IsValid() {
			by(gateway, p.String())
		}
	}
	return j
}

// halves are the two halves of a prefix.
func halves(p netip.Prefix) []string {
	bits := p.Bits() + 1
	lower := p.Masked().Addr()
	b := lower.AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	upper, _ := netip.AddrFromSlice(b)
	return []string{netip.PrefixFrom(lower, bits).String(), netip.PrefixFrom(upper, bits).String()}
}
