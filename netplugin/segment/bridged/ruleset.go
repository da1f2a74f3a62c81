package bridged

import (
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/segment"
)

// TableName is the name of the table of family bridge.
const TableName = "clocker"

// The sets' names.
const (
	setPins     = "pins"     // port, hardware address and IPv4 address that may send
	setPins6    = "pins6"    // the same of IPv6
	setStations = "stations" // port and hardware address
	setLoud     = "loud"     // ports of networks with broadcasts
	setBack     = "back"     // each port twice: from it to itself
	setUp       = "up"       // port, and hardware address that is the host's there
)

// port is what a port of a bridge may do.
type port struct {
	// mac and addresses are what may be sent from; without addresses it is
	// the port to other hosts, where those see to it.
	mac       mac
	addresses []netip.Addr
	// loud lets what comes from here go to many.
	loud bool
	// up are hardware addresses that are the host's own, beside those of
	// services.
	up []mac
}

// priority is that of nftables' manual for translations of bridged frames: it
// comes before the bridge hands packets to the filters of IP.
const priority = -300

// render works out the whole table.
func render(ports map[string]port) nft.Ruleset {
	r := nft.Ruleset{Family: nft.Bridge, Table: TableName, Sets: []nft.Set{
		{Name: setPins, Key: []string{"ifname", "ether_addr", "ipv4_addr"}},
		{Name: setPins6, Key: []string{"ifname", "ether_addr", "ipv6_addr"}},
		{Name: setStations, Key: []string{"ifname", "ether_addr"}},
		{Name: setLoud, Key: []string{"ifname"}},
		{Name: setBack, Key: []string{"ifname", "ifname"}},
		{Name: setUp, Key: []string{"ifname", "ether_addr"}},
	}, Chains: chains()}
	for name, p := range ports {
		for _, e := range elements(name, p) {
			i := slices.IndexFunc(r.Sets, func(s nft.Set) bool { return s.Name == e.Set })
			r.Sets[i].Elements = append(r.Sets[i].Elements, e)
		}
	}
	for _, s := range r.Sets {
		slices.SortFunc(s.Elements, func(a, b nft.Element) int { return slices.Compare(a.Key, b.Key) })
	}
	return r
}

// elements are what one port adds to the table.
func elements(name string, p port) []nft.Element {
	var all []nft.Element
	if p.loud {
		all = append(all, nft.Element{Set: setLoud, Key: []string{name}})
	}
	up := func(m mac) {
		all = append(all, nft.Element{Set: setUp, Key: []string{name, m.address().String()}})
	}
	for _, m := range p.up {
		up(m)
	}
	if len(p.addresses) == 0 {
		return all
	}
	up(serviceMAC)
	m := p.mac.address().String()
	all = append(all, nft.Element{Set: setStations, Key: []string{name, m}}, nft.Element{Set: setBack, Key: []string{name, name}})
	for _, a := range p.addresses {
		set := setPins
		if a.Is6() {
			set = setPins6
		}
		all = append(all, nft.Element{Set: set, Key: []string{name, m, a.String()}})
	}
	return all
}

// chains are the rules, which do not depend on what is on the host.
func chains() []nft.Chain {
	link, hardware := nft.FieldInLink, nft.FieldHardwareSource
	const linkLocal = "fe80::/10"
	return []nft.Chain{
		{Name: "guard", Type: "filter", Hook: "prerouting", Priority: priority, Rules: []nft.Rule{
			// Other hosts have seen to what comes from them.
			{nft.InLink(segment.LinkPrefix), nft.NotInLink(segment.TunnelPrefix), nft.Jump("sender")},
			{nft.InLink(segment.LinkPrefix), nft.InSet(setUp, link, nft.FieldHardwareDestination), nft.HandUp(gatewayMAC.address().String())},
		}},
		{Name: "sender", Rules: []nft.Rule{
			{nft.EtherType("ip"), nft.InSet(setPins, link, hardware, nft.FieldFrameSource), nft.Return()},
			{nft.EtherType("arp"), nft.GoTo("byarp")},
			{nft.EtherType("ip6"), nft.GoTo("byip6")},
			{nft.Drop()},
		}},
		// What is said in the packet counts, and the frame must agree.
		{Name: "byarp", Rules: []nft.Rule{
			{nft.NotInSet(setPins, link, nft.FieldARPHardware, nft.FieldARPSource), nft.Drop()},
			{nft.InSet(setPins, link, hardware, nft.FieldARPSource), nft.Return()},
			{nft.Drop()},
		}},
		{Name: "byip6", Rules: []nft.Rule{
			{nft.NotInSet(setStations, link, hardware), nft.Drop()},
			{nft.FrameICMP6(nft.NeighbourAdvertisement), nft.InSet(setPins6, link, hardware, nft.FieldNeighbour), nft.Return()},
			{nft.FrameICMP6(nft.NeighbourAdvertisement), nft.Drop()},
			{nft.EtherType("ip6"), nft.InSet(setPins6, link, hardware, nft.FieldFrameSource6), nft.Return()},
			// Hosts look for neighbours from link-local addresses that they
			// made up, and for whether theirs is free from none.
			{nft.FrameICMP6(nft.NeighbourSolicitation), nft.FrameSource6(linkLocal), nft.Return()},
			{nft.FrameICMP6(nft.NeighbourSolicitation), nft.FrameSource6("::"), nft.Return()},
			{nft.Drop()},
		}},
		{Name: "forward", Type: "filter", Hook: "forward", Priority: priority, Rules: []nft.Rule{
			{nft.MulticastFrame(), nft.InLink(segment.LinkPrefix), nft.Jump("tomany")},
		}},
		// Nothing goes to many but where that is asked for, and questions for a
		// neighbour among the containers of a host.
		{Name: "tomany", Rules: []nft.Rule{
			{nft.InSet(setBack, link, nft.FieldOutLink), nft.Drop()},
			{nft.InSet(setLoud, link), nft.Accept()},
			{nft.EtherType("arp"), nft.Accept()},
			{nft.FrameICMP6(nft.NeighbourSolicitation), nft.Accept()},
			{nft.FrameICMP6(nft.NeighbourAdvertisement), nft.Accept()},
			{nft.Drop()},
		}},
	}
}
