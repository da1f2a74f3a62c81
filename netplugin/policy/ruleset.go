package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/pkg/hostconfig"
)

// TableName is the name of the one table, of family inet.
const TableName = "clocker"

// metadata is where clouds tell a machine its secrets; containers must not
// ask in the machine's name.
var metadata = netip.MustParseAddr("169.254.169.254")

// The sets' names.
const (
	setFleet     = "fleet"     // all address space of the fleet
	setEgress    = "egress"    // subnets whose containers get out here
	setGateways  = "gateways"  // gateways of the networks here
	setPins      = "pins"      // link and the address it may send from
	setLeave     = "leave"     // link to the rules for what leaves it
	setEnter     = "enter"     // link to the rules for what enters it
	setPublished = "published" // port of the host to endpoint
	setPublishIP = "publiship" // port of one address of the host to endpoint
	setSelf      = "self"      // endpoint to itself, by a published port
)

// Render works out the whole table.
func Render(s State) nft.Ruleset {
	sets := map[string][]nft.Element{}
	for _, e := range networkElements(s) {
		sets[e.Set] = append(sets[e.Set], e)
	}
	for _, e := range s.Endpoints {
		for _, x := range append(endpointElements(e), portElements(e)...) {
			sets[x.Set] = append(sets[x.Set], x)
		}
	}
	r := nft.Ruleset{Family: nft.INet, Table: TableName, Sets: emptySets(), Chains: baseChains()}
	for i := range r.Sets {
		r.Sets[i].Elements = sets[r.Sets[i].Name]
		slices.SortFunc(r.Sets[i].Elements, func(a, b nft.Element) int { return slices.Compare(a.Key, b.Key) })
	}
	networks := slices.Clone(s.Networks)
	slices.SortFunc(networks, func(a, b Network) int { return strings.Compare(a.ID, b.ID) })
	for _, n := range networks {
		r.Chains = append(r.Chains, networkChains(n)...)
	}
	return r
}

func emptySets() []nft.Set {
	return []nft.Set{
		{Name: setFleet, Key: []string{"ipv4_addr"}, Interval: true},
		{Name: setEgress, Key: []string{"ipv4_addr"}, Interval: true},
		{Name: setGateways, Key: []string{"ipv4_addr"}},
		{Name: setPins, Key: []string{"ifname", "ipv4_addr"}},
		{Name: setLeave, Key: []string{"ifname"}, Data: []string{"verdict"}},
		{Name: setEnter, Key: []string{"ifname"}, Data: []string{"verdict"}},
		{Name: setPublished, Key: []string{"inet_proto", "inet_service"}, Data: []string{"ipv4_addr", "inet_service"}},
		{Name: setPublishIP, Key: []string{"ipv4_addr", "inet_proto", "inet_service"}, Data: []string{"ipv4_addr", "inet_service"}},
		{Name: setSelf, Key: []string{"ipv4_addr", "ipv4_addr"}},
	}
}

// Priorities are those of nftables' manual: ours stand just before iptables'
// for filters, so that what we drop is not even looked at there.
const (
	priorityRaw     = -300
	priorityDNAT    = -100
	priorityFilter  = -10
	prioritySNAT    = 100
	loopbackNet     = "127.0.0.0/8"
	linkLocalNet    = "169.254.0.0/16"
	dockerBridges   = "docker"
	dockerBridgesBr = "br-"
)

// baseChains are the rules that do not depend on what is on the host.
func baseChains() []nft.Chain {
	ours := segment.LinkPrefix
	dns := netip.MustParseAddr(hostconfig.DNSAddress).String()
	return []nft.Chain{
		{Name: "guard", Type: "filter", Hook: "prerouting", Priority: priorityRaw, Rules: []nft.Rule{
			{nft.InLink(ours), nft.Jump("sender")},
			// A local endpoint's address can only come from its link.
			{nft.NotInLink(ours), nft.InSet(setFleet, nft.FieldSource), nft.SourceLeadsTo(ours), nft.Drop()},
		}},
		{Name: "sender", Rules: []nft.Rule{
			{nft.NetworkProtocol("ipv6"), nft.Drop()},
			{nft.NotInSet(setPins, nft.FieldInLink, nft.FieldSource), nft.Drop()},
			{nft.Destination(loopbackNet), nft.Drop()},
			{nft.Destination(metadata.String()), nft.Drop()},
		}},
		{Name: "forward", Type: "filter", Hook: "forward", Priority: priorityFilter, Rules: []nft.Rule{
			{nft.InLink(ours), nft.ConnectionState("invalid"), nft.Drop()},
			{nft.ConnectionState("established", "related"), nft.Accept()},
			{nft.InLink(ours), nft.Jump("leaving")},
			{nft.OutLink(ours), nft.Jump("entering")},
		}},
		{Name: "leaving", Rules: []nft.Rule{{nft.Dispatch(setLeave, nft.FieldInLink)}, {nft.Drop()}}},
		{Name: "entering", Rules: []nft.Rule{{nft.Dispatch(setEnter, nft.FieldOutLink)}, {nft.Drop()}}},
		{Name: "input", Type: "filter", Hook: "input", Priority: priorityFilter, Rules: []nft.Rule{
			{nft.InLink(ours), nft.Jump("tohost")},
		}},
		{Name: "tohost", Rules: []nft.Rule{
			{nft.ConnectionState("established", "related"), nft.Accept()},
			{nft.Destination(dns), nft.DestinationPort("udp", 53), nft.Accept()},
			{nft.Destination(dns), nft.DestinationPort("tcp", 53), nft.Accept()},
			{nft.Echo(), nft.InSet(setGateways, nft.FieldDestination), nft.Accept()},
			{nft.Drop()},
		}},
		{Name: "fromhost", Type: "filter", Hook: "postrouting", Priority: priorityFilter, Rules: []nft.Rule{
			{nft.NotOutLink(ours), nft.Accept()},
			{nft.NotLocalSource(), nft.Accept()},
			{nft.ConnectionState("established", "related"), nft.Accept()},
			{nft.Translated(), nft.Accept()},
			{nft.Echo(), nft.Accept()},
			{nft.Drop()},
		}},
		{Name: "prerouting", Type: "nat", Hook: "prerouting", Priority: priorityDNAT, Rules: []nft.Rule{
			{nft.LocalDestination(), nft.Jump("publish")},
		}},
		{Name: "output", Type: "nat", Hook: "output", Priority: priorityDNAT, Rules: []nft.Rule{
			{nft.LocalDestination(), nft.Jump("publish")},
		}},
		{Name: "publish", Rules: []nft.Rule{
			// The gateways and the address of DNS are not the host's to publish.
			{nft.Destination(linkLocalNet), nft.Return()},
			{nft.InSet(setGateways, nft.FieldDestination), nft.Return()},
			{nft.TranslateTo(setPublishIP, nft.FieldDestination, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.TranslateTo(setPublished, nft.FieldProtocol, nft.FieldDestinationPort)},
		}},
		{Name: "postrouting", Type: "nat", Hook: "postrouting", Priority: prioritySNAT, Rules: []nft.Rule{
			{nft.InSet(setSelf, nft.FieldSource, nft.FieldDestination), nft.Masquerade()},
			{nft.Source(loopbackNet), nft.OutLink(ours), nft.Masquerade()},
			{nft.InSet(setEgress, nft.FieldSource), nft.NotInSet(setFleet, nft.FieldDestination), nft.Masquerade()},
		}},
	}
}

// networkChains are the rules of one network, for what leaves its endpoints
// and for what enters them.
func networkChains(n Network) []nft.Chain {
	subnet := n.Subnet.String()
	leave := []nft.Rule{{nft.Destination(subnet), nft.Return()}}
	enter := []nft.Rule{{nft.Source(subnet), nft.Return()}}
	if n.Egress {
		leave = append(leave,
			nft.Rule{nft.Translated(), nft.Return()},
			nft.Rule{nft.InSet(setFleet, nft.FieldDestination), nft.Drop()},
			// Engines' own networks are other networks too.
			nft.Rule{nft.OutLink(dockerBridges), nft.Drop()},
			nft.Rule{nft.OutLink(dockerBridgesBr), nft.Drop()})
		enter = append(enter, nft.Rule{nft.Translated(), nft.Return()})
	} else {
		leave = append(leave, nft.Rule{nft.Drop()})
	}
	return []nft.Chain{
		{Name: leaveChain(n.ID), Rules: leave},
		{Name: enterChain(n.ID), Rules: append(enter, nft.Rule{nft.Drop()})},
	}
}

func leaveChain(network string) string { return "leave-" + network }
func enterChain(network string) string { return "enter-" + network }

// networkElements are the elements that follow from networks and pools.
func networkElements(s State) []nft.Element {
	var all []nft.Element
	for _, p := range merge(s.Fleet) {
		all = append(all, nft.Element{Set: setFleet, Key: []string{p.String()}})
	}
	var egress []netip.Prefix
	seen := map[netip.Addr]bool{}
	for _, n := range s.Networks {
		if n.Egress {
			egress = append(egress, n.Subnet)
		}
		if !seen[n.Gateway] {
			seen[n.Gateway] = true
			all = append(all, nft.Element{Set: setGateways, Key: []string{n.Gateway.String()}})
		}
	}
	for _, p := range merge(egress) {
		all = append(all, nft.Element{Set: setEgress, Key: []string{p.String()}})
	}
	return all
}

// endpointElements are the elements of one endpoint but for its ports.
func endpointElements(e Endpoint) []nft.Element {
	return []nft.Element{
		{Set: setPins, Key: []string{e.Link, e.Address.String()}},
		{Set: setLeave, Key: []string{e.Link}, Data: []string{"goto " + leaveChain(e.Network)}},
		{Set: setEnter, Key: []string{e.Link}, Data: []string{"goto " + enterChain(e.Network)}},
	}
}

// portElements are the elements of an endpoint's published ports.
func portElements(e Endpoint) []nft.Element {
	if len(e.Ports) == 0 {
		return nil
	}
	a := e.Address.String()
	all := []nft.Element{{Set: setSelf, Key: []string{a, a}}}
	for _, p := range e.Ports {
		key := []string{protocolName(p.Protocol), fmt.Sprint(p.HostPort)}
		set := setPublished
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			key, set = append([]string{p.HostIP.String()}, key...), setPublishIP
		}
		all = append(all, nft.Element{Set: set, Key: key, Data: []string{a, fmt.Sprint(p.Port)}})
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
