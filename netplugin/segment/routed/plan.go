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
// link, to another host, or to the host itself.
const (
	Nowhere Target = iota
	ToLink
	ToHost
	ToSelf
)

// Route is one route that this host must have.
type Route struct {
	Dst    netip.Prefix
	Target Target
	// Link is the name of the local endpoint's link; Source is the address
	// that the host itself uses on the way, not valid for whichever it has.
	Link   string
	Source netip.Addr
	// Host is the other host's id, Via its underlay address, Carrier the name
	// of the way there, and MTU the network's.
	Host    string
	Via     netip.Addr
	Carrier string
	MTU     int
}

// place is what is on a host, from which its routes follow.
type place struct {
	host      string
	networks  []segment.Network
	endpoints []segment.Endpoint
	// machines are the host's own addresses on networks, by network.
	machines map[string][]netip.Addr
}

// plan works out every route of a host: for each network that is present
// there, its subnet leads nowhere, but other hosts' blocks lead to their
// owners, addresses in use outside their host's blocks lead to that host, and
// local endpoints to their links. Networks that rules open to those here have
// routes too, but for the local ones. The most specific route wins in the
// kernel; where two are for the same destination, the local one wins here.
func plan(p place, t *topology.Topology) []Route {
	routes := map[netip.Prefix]Route{}
	add := func(r Route) { routes[r.Dst] = r }
	for _, n := range append(opened(p, t), p.networks...) {
		for _, s := range n.Subnets() {
			add(Route{Dst: s.Prefix, Target: Nowhere})
		}
		toHost := func(dst netip.Prefix, owner string) {
			via, err := netip.ParseAddr(t.Underlays[owner].Address)
			if err == nil && owner != p.host {
				add(Route{Dst: dst, Target: ToHost, Host: owner, Via: via, Carrier: carrierName(n), MTU: n.MTU, Source: p.source(n, dst.Addr())})
			}
		}
		// What the host itself sends to a service is routed before package lb
		// translates it, and again after that.
		for _, a := range p.services(n, t) {
			add(Route{Dst: netip.PrefixFrom(a, a.BitLen()), Target: ToSelf, Source: p.source(n, a)})
		}
		blocks := t.Blocks[n.ID]
		for block, b := range blocks {
			// This host's own blocks need no route: the subnet's takes care of
			// addresses that no endpoint has.
			if within(n, block.Addr()) {
				toHost(block, b.Host)
			}
		}
		sizes := sizesOf(blocks)
		for a, e := range t.Endpoints[n.ID] {
			if e.Host != p.host && within(n, a) && owner(blocks, sizes, a) != e.Host {
				toHost(netip.PrefixFrom(a, a.BitLen()), e.Host)
			}
		}
	}
	for _, e := range p.endpoints {
		for _, a := range e.Addresses() {
			add(Route{Dst: netip.PrefixFrom(a, a.BitLen()), Target: ToLink, Link: segment.LinkName(e.ID), Source: p.near(e.Network, a)})
		}
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

// within reports whether an address is of the network.
func within(n segment.Network, a netip.Addr) bool {
	return n.Subnet.IsValid() && n.Subnet.Contains(a) || n.Subnet6.IsValid() && n.Subnet6.Contains(a)
}

// source is what the host itself talks to others of a network as: its own
// address there, if it has one.
func (p place) source(n segment.Network, to netip.Addr) netip.Addr {
	for _, a := range p.machines[n.ID] {
		if a.Is4() == to.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// services are the services' addresses that the host itself may ask, as a
// machine on the network.
func (p place) services(n segment.Network, t *topology.Topology) []netip.Addr {
	if len(p.machines[n.ID]) == 0 {
		return nil
	}
	var all []netip.Addr
	for _, v := range t.Services[n.ID] {
		for _, text := range []string{v.Address, v.Address6} {
			if a, err := netip.ParseAddr(text); err == nil && p.source(n, a).IsValid() {
				all = append(all, a)
			}
		}
	}
	return all
}

// near is what the host itself talks to local endpoints as: at least the
// gateway, so that they answer by their link.
func (p place) near(n segment.Network, to netip.Addr) netip.Addr {
	if a := p.source(n, to); a.IsValid() {
		return a
	}
	if to.Is4() {
		return n.Gateway
	}
	return n.Gateway6
}

// opened are the networks that rules open to one of those here, or one of
// those here to, and that are not here themselves.
func opened(p place, t *topology.Topology) []segment.Network {
	if len(t.Rules) == 0 {
		return nil
	}
	here := map[string]bool{}
	for _, n := range p.networks {
		here[n.ID] = true
	}
	far := map[string]bool{}
	for _, r := range t.Rules {
		if here[r.From] && !here[r.To] {
			far[r.To] = true
		}
		if here[r.To] && !here[r.From] {
			far[r.From] = true
		}
	}
	var all []segment.Network
	for id := range far {
		r, ok := t.Networks[id]
		if !ok {
			continue
		}
		n := segment.Network{ID: id, MTU: r.MTU, Carrier: r.Carrier, Kind: r.Segment}
		n.Subnet, _ = netip.ParsePrefix(r.Subnet)
		n.Subnet6, _ = netip.ParsePrefix(r.Subnet6)
		all = append(all, n)
	}
	return all
}

// carrierName is the carrier of a network; those of the first version name
// none.
func carrierName(n segment.Network) string {
	if n.Carrier == "" {
		return "direct"
	}
	return n.Carrier
}

// sizesOf are the prefix lengths that blocks have, those of each family:
// seldom more than one.
func sizesOf(blocks map[netip.Prefix]record.Block) (sizes [2][]int) {
	for b := range blocks {
		f := familyOf(b.Addr())
		if !slices.Contains(sizes[f], b.Bits()) {
			sizes[f] = append(sizes[f], b.Bits())
		}
	}
	return sizes
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// owner is the host that owns the block an address is in, or "". Blocks do
// not overlap.
func owner(blocks map[netip.Prefix]record.Block, sizes [2][]int, a netip.Addr) string {
	for _, bits := range sizes[familyOf(a)] {
		if p, err := a.Prefix(bits); err == nil {
			if b, ok := blocks[p]; ok {
				return b.Host
			}
		}
	}
	return ""
}
