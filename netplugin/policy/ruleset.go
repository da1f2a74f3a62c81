package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/pkg/hostconfig"
)

// TableName is the name of the one table, of family inet.
const TableName = "clocker"

// metadata is where clouds tell a machine its secrets; containers must not
// ask in the machine's name.
var metadata = netip.MustParseAddr("169.254.169.254")

// Ruleset is the content of the table.
type Ruleset struct {
	Sets   []Set
	Chains []Chain
}

// Set is a named set or map with its elements.
type Set struct {
	Name string
	// Key and Data are the names of nftables' types; Data is empty for a
	// set, and "verdict" for a verdict map.
	Key, Data []string
	// Interval sets hold prefixes, all others single values.
	Interval bool
	Elements []Element
}

// Element is one element, in nftables' notation: a field for each type of the
// key, and of the data.
type Element struct {
	Set       string
	Key, Data []string
}

// Chain is a chain of rules. Base chains have a hook.
type Chain struct {
	Name string
	// Type and Hook are empty for chains that others jump to.
	Type, Hook string
	Priority   int
	Rules      []Rule
}

// Rule is a list of statements; see statement.go.
type Rule []Statement

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
func Render(s State) Ruleset {
	sets := map[string][]Element{}
	for _, e := range networkElements(s) {
		sets[e.Set] = append(sets[e.Set], e)
	}
	for _, e := range s.Endpoints {
		for _, x := range append(endpointElements(e), portElements(e)...) {
			sets[x.Set] = append(sets[x.Set], x)
		}
	}
	r := Ruleset{Sets: emptySets(), Chains: baseChains()}
	for i := range r.Sets {
		r.Sets[i].Elements = sets[r.Sets[i].Name]
		slices.SortFunc(r.Sets[i].Elements, func(a, b Element) int { return slices.Compare(a.Key, b.Key) })
	}
	networks := slices.Clone(s.Networks)
	slices.SortFunc(networks, func(a, b Network) int { return strings.Compare(a.ID, b.ID) })
	for _, n := range networks {
		r.Chains = append(r.Chains, networkChains(n)...)
	}
	return r
}

func emptySets() []Set {
	return []Set{
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
func baseChains() []Chain {
	ours := segment.LinkPrefix
	dns := netip.MustParseAddr(hostconfig.DNSAddress).String()
	return []Chain{
		{Name: "guard", Type: "filter", Hook: "prerouting", Priority: priorityRaw, Rules: []Rule{
			{InLink(ours), Jump("sender")},
			// A local endpoint's address can only come from its link.
			{NotInLink(ours), InSet(setFleet, fieldSource), SourceLeadsTo(ours), Drop()},
		}},
		{Name: "sender", Rules: []Rule{
			{Family("ipv6"), Drop()},
			{NotInSet(setPins, fieldInLink, fieldSource), Drop()},
			{Destination(loopbackNet), Drop()},
			{Destination(metadata.String()), Drop()},
		}},
		{Name: "forward", Type: "filter", Hook: "forward", Priority: priorityFilter, Rules: []Rule{
			{InLink(ours), Connection("invalid"), Drop()},
			{Connection("established", "related"), Accept()},
			{InLink(ours), Jump("leaving")},
			{OutLink(ours), Jump("entering")},
		}},
		{Name: "leaving", Rules: []Rule{{Dispatch(setLeave, fieldInLink)}, {Drop()}}},
		{Name: "entering", Rules: []Rule{{Dispatch(setEnter, fieldOutLink)}, {Drop()}}},
		{Name: "input", Type: "filter", Hook: "input", Priority: priorityFilter, Rules: []Rule{
			{InLink(ours), Jump("tohost")},
		}},
		{Name: "tohost", Rules: []Rule{
			{Connection("established", "related"), Accept()},
			{Destination(dns), DestinationPort("udp", 53), Accept()},
			{Destination(dns), DestinationPort("tcp", 53), Accept()},
			{Echo(), InSet(setGateways, fieldDestination), Accept()},
			{Drop()},
		}},
		{Name: "fromhost", Type: "filter", Hook: "postrouting", Priority: priorityFilter, Rules: []Rule{
			{NotOutLink(ours), Accept()},
			{NotLocalSource(), Accept()},
			{Connection("established", "related"), Accept()},
			{Translated(), Accept()},
			{Echo(), Accept()},
			{Drop()},
		}},
		{Name: "prerouting", Type: "nat", Hook: "prerouting", Priority: priorityDNAT, Rules: []Rule{
			{LocalDestination(), Jump("publish")},
		}},
		{Name: "output", Type: "nat", Hook: "output", Priority: priorityDNAT, Rules: []Rule{
			{LocalDestination(), Jump("publish")},
		}},
		{Name: "publish", Rules: []Rule{
			// The gateways and the address of DNS are not the host's to publish.
			{Destination(linkLocalNet), Return()},
			{InSet(setGateways, fieldDestination), Return()},
			{TranslateTo(setPublishIP, fieldDestination, fieldProtocol, fieldDestinationPort)},
			{TranslateTo(setPublished, fieldProtocol, fieldDestinationPort)},
		}},
		{Name: "postrouting", Type: "nat", Hook: "postrouting", Priority: prioritySNAT, Rules: []Rule{
			{InSet(setSelf, fieldSource, fieldDestination), Masquerade()},
			{Source(loopbackNet), OutLink(ours), Masquerade()},
			{InSet(setEgress, fieldSource), NotInSet(setFleet, fieldDestination), Masquerade()},
		}},
	}
}

// networkChains are the rules of one network, for what leaves its endpoints
// and for what enters them.
func networkChains(n Network) []Chain {
	subnet := n.Subnet.String()
	leave := []Rule{{Destination(subnet), Return()}}
	enter := []Rule{{Source(subnet), Return()}}
	if n.Egress {
		leave = append(leave,
			Rule{Translated(), Return()},
			Rule{InSet(setFleet, fieldDestination), Drop()},
			// Engines' own networks are other networks too.
			Rule{OutLink(dockerBridges), Drop()},
			Rule{OutLink(dockerBridgesBr), Drop()})
		enter = append(enter, Rule{Translated(), Return()})
	} else {
		leave = append(leave, Rule{Drop()})
	}
	return []Chain{
		{Name: leaveChain(n.ID), Rules: leave},
		{Name: enterChain(n.ID), Rules: append(enter, Rule{Drop()})},
	}
}

func leaveChain(network string) string { return "leave-" + network }
func enterChain(network string) string { return "enter-" + network }

// networkElements are the elements that follow from networks and pools.
func networkElements(s State) []Element {
	var all []Element
	for _, p := range merge(s.Fleet) {
		all = append(all, Element{Set: setFleet, Key: []string{p.String()}})
	}
	var egress []netip.Prefix
	seen := map[netip.Addr]bool{}
	for _, n := range s.Networks {
		if n.Egress {
			egress = append(egress, n.Subnet)
		}
		if !seen[n.Gateway] {
			seen[n.Gateway] = true
			all = append(all, Element{Set: setGateways, Key: []string{n.Gateway.String()}})
		}
	}
	for _, p := range merge(egress) {
		all = append(all, Element{Set: setEgress, Key: []string{p.String()}})
	}
	return all
}

// endpointElements are the elements of one endpoint but for its ports.
func endpointElements(e Endpoint) []Element {
	return []Element{
		{Set: setPins, Key: []string{e.Link, e.Address.String()}},
		{Set: setLeave, Key: []string{e.Link}, Data: []string{"goto " + leaveChain(e.Network)}},
		{Set: setEnter, Key: []string{e.Link}, Data: []string{"goto " + enterChain(e.Network)}},
	}
}

// portElements are the elements of an endpoint's published ports.
func portElements(e Endpoint) []Element {
	if len(e.Ports) == 0 {
		return nil
	}
	a := e.Address.String()
	all := []Element{{Set: setSelf, Key: []string{a, a}}}
	for _, p := range e.Ports {
		key := []string{protocolName(p.Protocol), fmt.Sprint(p.HostPort)}
		set := setPublished
		if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
			key, set = append([]string{p.HostIP.String()}, key...), setPublishIP
		}
		all = append(all, Element{Set: set, Key: key, Data: []string{a, fmt.Sprint(p.Port)}})
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
