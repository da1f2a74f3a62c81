package routed

import (
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// Target says what a route leads to.
type Target int

// A route leads to nothing (and the sender is told so), to a local endpoint's
// link, or to another host.
const (
	Nowhere Target = iota
	ToLink
	ToHost
)

// Route is one route that this host must have.
type Route struct {
	Dst    netip.Prefix
	Target Target
	// Link is the name of the local endpoint's link; Source is the address
	// that the host itself uses on it.
	Link   string
	Source netip.Addr
	// Host is the other host's id, Via its underlay address, Carrier the name
	// of the way there.
	Host    string
	Via     netip.Addr
	Carrier string
}

// plan works out every route of a host: for each network that is present
// there, its subnet leads nowhere, but other hosts' blocks lead to their
// owners, addresses in use outside their host's blocks lead to that host, and
// local endpoints to their links. The most specific route wins in the kernel;
// where two are for the same destination, the local one wins here.
func plan(host string, networks []segment.Network, endpoints []segment.Endpoint, t *topology.Topology) []Route {
	routes := map[netip.Prefix]Route{}
	add := func(r Route) { routes[r.Dst] = r }
	toHost := func(dst netip.Prefix, owner string, n segment.Network) {
		via, err := netip.ParseAddr(t.Underlays[owner].Address)
		if err == nil && owner != host {
			add(Route{Dst: dst, Target: ToHost, Host: owner, Via: via, Carrier: carrierName(n)})
		}
	}
	for _, n := range networks {
		add(Route{Dst: n.Subnet, Target: Nowhere})
		for block, b := range t.Blocks[n.ID] {
			// This host's own blocks need no route: the subnet's takes care of
			// addresses that no endpoint has.
			if n.Subnet.Overlaps(block) {
				toHost(block, b.Host, n)
			}
		}
		for a, e := range t.Endpoints[n.ID] {
			if n.Subnet.Contains(a) && owner(t.Blocks[n.ID], a) != e.Host {
				toHost(netip.PrefixFrom(a, a.BitLen()), e.Host, n)
			}
		}
	}
	for _, e := range endpoints {
		a := e.Address.Addr()
		add(Route{Dst: netip.PrefixFrom(a, a.BitLen()), Target: ToLink, Link: segment.LinkName(e.ID), Source: e.Network.Gateway})
	}
	all := make([]Route, 0, len(routes))
	for _, r := range routes {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Route) int {
		if c := a.Dst.Addr().Compare(b.Dst.Addr()); c != 0 {
			return c
		}
		return a.Dst.Bits() - b.Dst.Bits()
	})
	return all
}

// carrierName is the carrier of a network; "auto" is the direct one as long as
// there is no other to choose.
func carrierName(n segment.Network) string {
	if n.Carrier == "" || n.Carrier == "auto" {
		return "direct"
	}
	return n.Carrier
}

// owner is the host that owns the block an address is in, or "". Blocks do
// not overlap.
func owner(blocks map[netip.Prefix]record.Block, a netip.Addr) string {
	for bits := a.BitLen(); bits > 0; bits-- {
		if b, ok := blocks[netip.PrefixFrom(a, bits).Masked()]; ok {
			return b.Host
		}
	}
	return ""
}
