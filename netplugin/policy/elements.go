package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/nft"
)

// The sets' names; those that end with 6 are of IPv6.
const (
	setFleet      = "fleet"  // all address space of the fleet
	setFleet6     = "fleet6" //
	setOpen       = "open"   // subnets that are not filtered
	setOpen6      = "open6"
	setHosts      = "hosts" // hosts' underlay addresses
	setHosts6     = "hosts6"
	setHostPorts  = "hostports" // ports of hosts that lead to containers
	setHostPorts6 = "hostports6"
	setEgress     = "egress" // subnets whose containers get out here
	setEgress6    = "egress6"
	setGateways   = "gateways" // gateways of the networks here
	setGateways6  = "gateways6"
	setPins       = "pins" // link and the address it may send from
	setPins6      = "pins6"
	setLeave      = "leave"     // link to the rules for what leaves it
	setEnter      = "enter"     // link to the rules for what enters it
	setPublished  = "published" // port of the host to endpoint
	setPublished6 = "published6"
	setPublishIP  = "publiship" // port of one address of the host to endpoint
	setPublishIP6 = "publiship6"
	setSelf       = "self" // endpoint to itself, by a published port
	setSelf6      = "self6"
)

// What the sets of the fleet and of networks are called.
var (
	fleetSets   = []string{setFleet, setFleet6, setOpen, setOpen6, setHosts, setHosts6, setHostPorts, setHostPorts6}
	networkSets = []string{setEgress, setEgress6, setGateways, setGateways6, setBridged}
)

func emptySets() []nft.Set {
	var all []nft.Set
	for _, f := range []struct{ suffix, addr string }{{"", "ipv4_addr"}, {"6", "ipv6_addr"}} {
		to := []string{f.addr, "inet_service"}
		all = append(all,
			nft.Set{Name: setFleet + f.suffix, Key: []string{f.addr}, Interval: true},
			nft.Set{Name: setOpen + f.suffix, Key: []string{f.addr}, Interval: true},
			nft.Set{Name: setHosts + f.suffix, Key: []string{f.addr}},
			nft.Set{Name: setHostPorts + f.suffix, Key: []string{f.addr, "inet_proto", "inet_service"}},
			nft.Set{Name: setEgress + f.suffix, Key: []string{f.addr}, Interval: true},
			nft.Set{Name: setGateways + f.suffix, Key: []string{f.addr}},
			nft.Set{Name: setPins + f.suffix, Key: []string{"ifname", f.addr}},
			nft.Set{Name: setPublished + f.suffix, Key: []string{"inet_proto", "inet_service"}, Data: to},
			nft.Set{Name: setPublishIP + f.suffix, Key: []string{f.addr, "inet_proto", "inet_service"}, Data: to},
			nft.Set{Name: setSelf + f.suffix, Key: []string{f.addr, f.addr}})
	}
	return append(append(all, bridgedSets()...),
		nft.Set{Name: setLeave, Key: []string{"ifname"}, Data: []string{"verdict"}},
		nft.Set{Name: setEnter, Key: []string{"ifname"}, Data: []string{"verdict"}})
}

// of is the name of a set for a family.
func of(set string, a netip.Addr) string {
	if a.Is6() {
		return set + "6"
	}
	return set
}

// fleetElements are the elements that follow from the fleet.
func fleetElements(f Fleet) []nft.Element {
	all := slices.Concat(prefixElements(setFleet, f.Prefixes), prefixElements(setOpen, f.Open))
	hosts := map[netip.Addr]bool{}
	for _, a := range f.Hosts {
		if !hosts[a] {
			hosts[a] = true
			all = append(all, nft.Element{Set: of(setHosts, a), Key: []string{a.String()}})
		}
	}
	ports := map[HostPort]bool{}
	for _, p := range f.Reachable {
		if !ports[p] {
			ports[p] = true
			all = append(all, nft.Element{Set: of(setHostPorts, p.Host), Key: []string{p.Host.String(), p.Protocol, fmt.Sprint(p.Port)}})
		}
	}
	return all
}

func prefixElements(set string, ps []netip.Prefix) []nft.Element {
	var all []nft.Element
	for _, p := range merge(ps) {
		all = append(all, nft.Element{Set: of(set, p.Addr()), Key: []string{p.String()}})
	}
	return all
}

// networkElements are the elements that follow from the networks.
func networkElements(networks []Network) []nft.Element {
	var all []nft.Element
	var egress []netip.Prefix
	seen := map[netip.Addr]bool{}
	for _, n := range networks {
		if n.Egress && !n.Unfiltered {
			egress = append(egress, valid(n.Subnet)...)
		}
		if n.Egress6 && !n.Unfiltered {
			egress = append(egress, valid(n.Subnet6)...)
		}
		for _, g := range []netip.Addr{n.Gateway, n.Gateway6} {
			if g.IsValid() && !seen[g] {
				seen[g] = true
				all = append(all, nft.Element{Set: of(setGateways, g), Key: []string{g.String()}})
			}
		}
	}
	return slices.Concat(all, prefixElements(setEgress, egress), bridgedElements(networks))
}

// endpointElements are the elements of one endpoint but for its ports.
func endpointElements(e Endpoint) []nft.Element {
	all := []nft.Element{
		{Set: setLeave, Key: []string{e.Link}, Data: []string{"goto " + leaveChain(e.Network)}},
		{Set: setEnter, Key: []string{e.Link}, Data: []string{"goto " + enterChain(e.Network)}},
	}
	for _, a := range e.addresses() {
		all = append(all, nft.Element{Set: of(setPins, a), Key: []string{e.Link, a.String()}})
	}
	return all
}

func (e Endpoint) addresses() []netip.Addr {
	return slices.DeleteFunc([]netip.Addr{e.Address, e.Address6}, func(a netip.Addr) bool { return !a.IsValid() })
}

// portElements are the elements of an endpoint's published ports, of each
// family that both it and the host's address have.
func portElements(e Endpoint) []nft.Element {
	if len(e.Ports) == 0 {
		return nil
	}
	var all []nft.Element
	for _, a := range e.addresses() {
		all = append(all, nft.Element{Set: of(setSelf, a), Key: []string{a.String(), a.String()}})
		for _, p := range e.Ports {
			if p.HostIP.IsValid() && p.HostIP.Is6() != a.Is6() {
				continue
			}
			key := []string{protocolName(p.Protocol), fmt.Sprint(p.HostPort)}
			set := setPublished
			if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
				key, set = append([]string{p.HostIP.String()}, key...), setPublishIP
			}
			all = append(all, nft.Element{Set: of(set, a), Key: key, Data: []string{a.String(), fmt.Sprint(p.Port)}})
		}
	}
	return all
}

// merge removes prefixes that others contain, and sorts: an interval set must
// not hold overlapping ones.
func merge(ps []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(ps)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range sorted {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
