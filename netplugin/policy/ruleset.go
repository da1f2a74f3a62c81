package policy

import (
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
var metadata = []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("fd00:ec2::254")}

// Render works out the whole table.
func Render(s State) nft.Ruleset {
	sets := map[string][]nft.Element{}
	add := func(es []nft.Element) {
		for _, e := range es {
			sets[e.Set] = append(sets[e.Set], e)
		}
	}
	add(fleetElements(s.Fleet))
	add(networkElements(s.Networks))
	for _, n := range s.Networks {
		add(bridgeElements(n))
	}
	for _, e := range s.Endpoints {
		add(endpointElements(e))
		add(portElements(e))
	}
	r := nft.Ruleset{Family: nft.INet, Table: TableName, Sets: emptySets(), Chains: baseChains(s.Fleet)}
	for i := range r.Sets {
		r.Sets[i].Elements = sets[r.Sets[i].Name]
		if !r.Sets[i].Interval { // those are sorted by address
			slices.SortFunc(r.Sets[i].Elements, func(a, b nft.Element) int { return slices.Compare(a.Key, b.Key) })
		}
	}
	r.Chains = append(r.Chains, fromBridges()...)
	networks := slices.Clone(s.Networks)
	slices.SortFunc(networks, func(a, b Network) int { return strings.Compare(a.ID, b.ID) })
	for _, n := range networks {
		r.Chains = append(r.Chains, networkChains(n, s.Fleet)...)
	}
	return r
}

// Priorities are those of nftables' manual: ours stand just before iptables'
// for filters, so that what we drop is not even looked at there.
const (
	priorityRaw     = -300
	priorityMangle  = -150
	priorityTarget  = -110 // before any translation of destinations
	priorityDNAT    = -100
	priorityFilter  = -10
	prioritySNAT    = 100
	loopbackNet     = "127.0.0.0/8"
	loopback6       = "::1"
	linkLocalNet    = "169.254.0.0/16"
	linkLocalNet6   = "fe80::/10"
	dockerBridges   = "docker"
	dockerBridgesBr = "br-"
)

// baseChains are the rules that do not depend on the networks of the host.
func baseChains(f Fleet) []nft.Chain {
	ours := segment.LinkPrefix
	return []nft.Chain{
		{Name: "guard", Type: "filter", Hook: "prerouting", Priority: priorityRaw, Rules: []nft.Rule{
			{nft.InLink(segment.BridgePrefix), nft.Jump("frames")},
			append(fromLink(), nft.Jump("sender")),
			// A local endpoint's address can only come from its link.
			{nft.NotInLink(ours), nft.InSet(setFleet, nft.FieldSource), nft.SourceLeadsTo(ours), nft.Drop()},
			{nft.NotInLink(ours), nft.InSet(setFleet6, nft.FieldSource6), nft.SourceLeadsTo(ours), nft.Drop()},
		}},
		{Name: "sender", Rules: []nft.Rule{
			// A container finds its gateway by these, from any address: they
			// go no further than its link.
			{nft.NeighbourSolicit(), nft.Return()},
			{nft.NeighbourAdvert(), nft.Return()},
			{nft.NotInSet(setPins, nft.FieldInLink, nft.FieldSource), nft.Drop()},
			{nft.NotInSet(setPins6, nft.FieldInLink, nft.FieldSource6), nft.Drop()},
			{nft.Destination(loopbackNet), nft.Drop()},
			{nft.Destination(metadata[0].String()), nft.Drop()},
			{nft.Destination(metadata[1].String()), nft.Drop()},
		}},
		// What was asked for counts, not what it is translated to: a service's
		// address is of its network, wherever its replicas are.
		{Name: "target", Type: "filter", Hook: "prerouting", Priority: priorityTarget, Rules: []nft.Rule{
			{nft.InLink(ours), nft.ConnectionState("new"), nft.InSet(setFleet, nft.FieldDestination), nft.Jump("leaving")},
			{nft.InLink(ours), nft.ConnectionState("new"), nft.InSet(setFleet6, nft.FieldDestination6), nft.Jump("leaving")},
		}},
		// Ways may take less than the links of containers: then TCP must know.
		{Name: "clamp", Type: "filter", Hook: "forward", Priority: priorityMangle, Rules: []nft.Rule{
			{nft.InLink(ours), nft.ClampMSS()},
			{nft.OutLink(ours), nft.ClampMSS()},
		}},
		{Name: "forward", Type: "filter", Hook: "forward", Priority: priorityFilter, Rules: []nft.Rule{
			{nft.InSet(setBridged, nft.FieldInLink, nft.FieldOutLink), nft.Accept()},
			{nft.ConnectionState("established", "related"), nft.Accept()},
			{nft.InLink(ours), nft.Jump("leaving")},
			{nft.OutLink(ours), nft.Jump("entering")},
		}},
		{Name: "leaving", Rules: []nft.Rule{{nft.Dispatch(setLeave, nft.FieldInLink)}, {nft.Drop()}}},
		{Name: "entering", Rules: []nft.Rule{{nft.Dispatch(setEnter, nft.FieldOutLink)}, {nft.Drop()}}},
		{Name: "input", Type: "filter", Hook: "input", Priority: priorityFilter, Rules: inputRules(f)},
		{Name: "tohost", Rules: toHost(f)},
		{Name: "tomachine", Rules: toMachine(f)},
		{Name: "fromhost", Type: "filter", Hook: "postrouting", Priority: priorityFilter, Rules: fromHost(f)},
		{Name: "prerouting", Type: "nat", Hook: "prerouting", Priority: priorityDNAT, Rules: []nft.Rule{
			{nft.LocalDestination(), nft.Jump("publish")},
		}},
		{Name: "output", Type: "nat", Hook: "output", Priority: priorityDNAT, Rules: []nft.Rule{
			{nft.LocalDestination(), nft.Jump("publish")},
		}},
		{Name: "publish", Rules: []nft.Rule{
			// The gateways and the addresses of DNS are not the host's to
			// publish.
			{nft.Destination(linkLocalNet), nft.Return()},
			{nft.Destination(linkLocalNet6), nft.Return()},
			{nft.Destination(hostconfig.DNSAddress6), nft.Return()},
			{nft.InSet(setGateways, nft.FieldDestination), nft.Return()},
			{nft.InSet(setGateways6, nft.FieldDestination6), nft.Return()},
			{nft.TranslateTo(setPublishIP, nft.FieldDestination, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.TranslateTo6(setPublishIP6, nft.FieldDestination6, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.TranslateTo(setPublished, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.TranslateTo6(setPublished6, nft.FieldProtocol, nft.FieldDestinationPort)},
		}},
		{Name: "postrouting", Type: "nat", Hook: "postrouting", Priority: prioritySNAT, Rules: []nft.Rule{
			{nft.InSet(setSelf, nft.FieldSource, nft.FieldDestination), nft.Masquerade()},
			{nft.InSet(setSelf6, nft.FieldSource6, nft.FieldDestination6), nft.Masquerade()},
			{nft.Source(loopbackNet), nft.OutLink(ours), nft.Masquerade()},
			{nft.Source(loopback6), nft.OutLink(ours), nft.Masquerade()},
			// What goes to a bridge goes to the network itself.
			{nft.OutLink(segment.BridgePrefix), nft.Accept()},
			{nft.InSet(setEgress, nft.FieldSource), nft.NotInSet(setFleet, nft.FieldDestination), nft.Masquerade()},
			{nft.InSet(setEgress6, nft.FieldSource6), nft.NotInSet(setFleet6, nft.FieldDestination6), nft.Masquerade()},
		}},
	}
}

func inputRules(f Fleet) []nft.Rule {
	rules := []nft.Rule{{nft.InLink(segment.LinkPrefix), nft.Jump("tohost")}}
	if len(f.Machines) > 0 {
		rules = append(rules, nft.Rule{nft.NotInLink(segment.LinkPrefix), nft.Jump("tomachine")})
	}
	return rules
}

// toHost are the rules for what containers send to the host itself.
func toHost(f Fleet) []nft.Rule {
	rules := []nft.Rule{
		{nft.ConnectionState("established", "related"), nft.Accept()},
		{nft.NeighbourSolicit(), nft.Accept()},
		{nft.NeighbourAdvert(), nft.Accept()},
		{nft.Echo(), nft.InSet(setGateways, nft.FieldDestination), nft.Accept()},
		{nft.Echo6(), nft.InSet(setGateways6, nft.FieldDestination6), nft.Accept()},
	}
	for _, dns := range []string{hostconfig.DNSAddress, hostconfig.DNSAddress6} {
		for _, protocol := range []string{"udp", "tcp"} {
			rules = append(rules, nft.Rule{nft.Destination(dns), nft.DestinationPort(protocol, 53), nft.Accept()})
		}
	}
	for _, m := range f.Machines {
		rules = append(rules, m.reached(nft.Accept())...)
	}
	for _, o := range f.Openings {
		rules = append(rules, o.rules(nil, nil, nft.Accept())...)
	}
	return append(rules, nft.Rule{nft.Drop()})
}

// toMachine are the rules for what others than local containers send to the
// host's own addresses on networks.
func toMachine(f Fleet) []nft.Rule {
	rules := []nft.Rule{
		{nft.ConnectionState("established", "related"), nft.Accept()},
		{nft.FromLoopback(), nft.Accept()},
	}
	for _, m := range f.Machines {
		rules = append(rules, m.reached(nft.Accept())...)
		for _, a := range m.Addresses {
			rules = append(rules, nft.Rule{nft.Destination(a.String()), nft.Drop()})
		}
	}
	return rules
}

// fromHost are the rules for what the host itself sends to containers.
func fromHost(f Fleet) []nft.Rule {
	rules := []nft.Rule{
		{nft.NotOutLink(segment.LinkPrefix), nft.Accept()},
		{nft.NotLocalSource(), nft.Accept()},
		{nft.ConnectionState("established", "related"), nft.Accept()},
		{nft.Translated(), nft.Accept()},
		{nft.Echo(), nft.Accept()},
		{nft.Echo6(), nft.Accept()},
		{nft.NeighbourSolicit(), nft.Accept()},
		{nft.NeighbourAdvert(), nft.Accept()},
		// About packets that never became a connection.
		{nft.Unreachable(), nft.Accept()},
		{nft.Unreachable6(), nft.Accept()},
		{nft.TooBig6(), nft.Accept()},
		{nft.InSet(setOpen, nft.FieldDestination), nft.Accept()},
		{nft.InSet(setOpen6, nft.FieldDestination6), nft.Accept()},
	}
	for _, m := range f.Machines {
		for _, a := range m.Addresses {
			for _, p := range m.Subnets {
				if sameFamily(a, p) {
					rules = append(rules, nft.Rule{nft.Source(a.String()), nft.Destination(p.String()), nft.Accept()})
				}
			}
		}
	}
	for _, o := range f.Openings {
		rules = append(rules, o.rules(nil, nil, nft.Accept())...)
	}
	return append(rules, nft.Rule{nft.Drop()})
}

func sameFamily(a netip.Addr, p netip.Prefix) bool { return a.Is4() == p.Addr().Is4() }

// reached are the rules for what a network's containers send to the machine.
func (m Machine) reached(then nft.Statement) []nft.Rule {
	var rules []nft.Rule
	for _, a := range m.Addresses {
		for _, p := range m.Subnets {
			if sameFamily(a, p) {
				rules = append(rules, nft.Rule{nft.Source(p.String()), nft.Destination(a.String()), then})
			}
		}
	}
	return rules
}
