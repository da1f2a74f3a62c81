package lb

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/segment"
)

// TableName is the name of the one table, of family inet.
const TableName = "clocker-lb"

// family are the sets of one address family, and how its packets are read.
type family struct {
	vips     string // addresses of services
	owners   string // address of a service to the rules of its network
	spread   string // address of a service to the rule for so many replicas
	replicas string // address of a service and slot to replica
	ports    string // port of the host to the rule for so many replicas
	portsAt  string // port of one address of the host, likewise
	targets  string // port of the host and slot to a replica here or another host
	here     string // port of the host to the rule for so many replicas here
	loop     string // the same, for what the host itself asks on 127.0.0.1
	near     string // port of the host and slot to replica here
	hosts    string // addresses of the fleet's hosts
	self     string // local replica to itself
	fleet    string // address space of the fleet
	kind     string

	source, destination nft.Field
	address, socket     func(set string, fields ...nft.Field) nft.Statement
}

var v4 = family{
	"vips", "owners", "spread", "replicas", "ports", "ports-at", "targets", "here", "loop", "near", "hosts", "self", "fleet", "ipv4_addr",
	nft.FieldSource, nft.FieldDestination, nft.TranslateAddress, nft.TranslateTo,
}

var v6 = family{
	"vips6", "owners6", "spread6", "replicas6", "ports6", "ports-at6", "targets6", "here6", "loop6", "near6", "hosts6", "self6", "fleet6", "ipv6_addr",
	nft.FieldSource6, nft.FieldDestination6, nft.TranslateAddress6, nft.TranslateTo6,
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

func emptySets() []nft.Set {
	var all []nft.Set
	for _, f := range []family{v4, v6} {
		a := f.kind
		all = append(all,
			nft.Set{Name: f.vips, Key: []string{a}},
			nft.Set{Name: f.owners, Key: []string{a}, Data: []string{"verdict"}},
			nft.Set{Name: f.spread, Key: []string{a}, Data: []string{"verdict"}},
			nft.Set{Name: f.replicas, Key: []string{a, nft.TypeNumber}, Data: []string{a}},
			nft.Set{Name: f.ports, Key: []string{"inet_proto", "inet_service"}, Data: []string{"verdict"}},
			nft.Set{Name: f.portsAt, Key: []string{a, "inet_proto", "inet_service"}, Data: []string{"verdict"}},
			nft.Set{Name: f.targets, Key: []string{"inet_proto", "inet_service", nft.TypeNumber}, Data: []string{a, "inet_service"}},
			nft.Set{Name: f.here, Key: []string{"inet_proto", "inet_service"}, Data: []string{"verdict"}},
			nft.Set{Name: f.loop, Key: []string{"inet_proto", "inet_service"}, Data: []string{"verdict"}},
			nft.Set{Name: f.near, Key: []string{"inet_proto", "inet_service", nft.TypeNumber}, Data: []string{a, "inet_service"}},
			nft.Set{Name: f.hosts, Key: []string{a}},
			nft.Set{Name: f.self, Key: []string{a, a}},
			nft.Set{Name: f.fleet, Key: []string{a}, Interval: true},
		)
	}
	return all
}

// Mark is the bit in the marks of connections, and of packets that this host
// passes on, that came by a port which every host answers on.
const Mark = 1 << 25

// Priorities are those of nftables' manual. Ours come just before others' of
// the same kind, but for the refusal, which is for what was not translated.
const (
	priorityDNAT   = -100 - 1
	priorityRefuse = -100 + 10
	prioritySNAT   = 100 - 1
	priorityFilter = 0 - 9
	linkLocalNet   = "169.254.0.0/16"
	loopbackNet    = "127.0.0.0/8"
	loopback6      = "::1"
	chainRefused   = "refused"
)

// baseChains are the rules that do not depend on anything.
func baseChains() []nft.Chain {
	ours := segment.LinkPrefix
	translate := []nft.Rule{
		{nft.DispatchBy(v4.owners, v4.destination)},
		{nft.DispatchBy(v6.owners, v6.destination)},
		{nft.LocalDestination(), nft.Jump("ports")},
	}
	refuse := []nft.Rule{
		{nft.InSet(v4.vips, v4.destination), nft.Jump(chainRefused)},
		{nft.InSet(v6.vips, v6.destination), nft.Jump(chainRefused)},
	}
	return []nft.Chain{
		{Name: "prerouting", Type: "nat", Hook: "prerouting", Priority: priorityDNAT, Rules: translate},
		{Name: "output", Type: "nat", Hook: "output", Priority: priorityDNAT, Rules: translate},
		{Name: "ports", Rules: []nft.Rule{
			// The gateways and the address of DNS are not for others' ports.
			{nft.Destination(linkLocalNet), nft.Return()},
			{nft.InSet(v4.fleet, v4.destination), nft.Return()},
			{nft.InSet(v6.fleet, v6.destination), nft.Return()},
			// Another host has chosen this one. Packets of the loopback device
			// cannot leave the host.
			{nft.InSet(v4.hosts, v4.source), nft.DispatchBy(v4.here, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.InSet(v6.hosts, v6.source), nft.DispatchBy(v6.here, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.Destination(loopbackNet), nft.DispatchBy(v4.loop, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.Destination(loopbackNet), nft.Return()},
			{nft.Destination(loopback6), nft.Return()},
			{nft.NetworkProtocol("ipv4"), nft.DispatchBy(v4.portsAt, v4.destination, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.NetworkProtocol("ipv4"), nft.DispatchBy(v4.ports, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.NetworkProtocol("ipv6"), nft.DispatchBy(v6.portsAt, v6.destination, nft.FieldProtocol, nft.FieldDestinationPort)},
			{nft.NetworkProtocol("ipv6"), nft.DispatchBy(v6.ports, nft.FieldProtocol, nft.FieldDestinationPort)},
		}},
		// What still goes to a service's address has no replica to go to, or
		// comes from another network.
		{Name: "refuse", Type: "filter", Hook: "prerouting", Priority: priorityRefuse, Rules: refuse},
		{Name: "refuse-own", Type: "filter", Hook: "output", Priority: priorityRefuse, Rules: refuse},
		{Name: chainRefused, Rules: []nft.Rule{{nft.Reset()}, {nft.Refuse()}}},
		{Name: "postrouting", Type: "nat", Hook: "postrouting", Priority: prioritySNAT, Rules: []nft.Rule{
			{nft.OutLink(ours), nft.InSet(v4.self, v4.source, v4.destination), nft.Masquerade()},
			{nft.OutLink(ours), nft.InSet(v6.self, v6.source, v6.destination), nft.Masquerade()},
			// The other host's answers must come back here.
			{nft.NotOutLink(ours), nft.ConnectionMark(Mark, Mark), nft.Masquerade()},
		}},
		// So that Docker lets them pass; see [assertDockerUser].
		{Name: "forward", Type: "filter", Hook: "forward", Priority: priorityFilter, Rules: []nft.Rule{
			{nft.ConnectionMark(Mark, Mark), nft.SetMark(Mark, Mark)},
		}},
	}
}

// Render works out the whole table.
func Render(s State) nft.Ruleset {
	r := nft.Ruleset{Family: nft.INet, Table: TableName, Sets: emptySets(), Chains: baseChains()}
	sets := map[string][]nft.Element{}
	for _, e := range s.elements() {
		sets[e.Set] = append(sets[e.Set], e)
	}
	for i := range r.Sets {
		r.Sets[i].Elements = sets[r.Sets[i].Name]
		if !r.Sets[i].Interval { // those are in order already
			slices.SortFunc(r.Sets[i].Elements, func(a, b nft.Element) int { return slices.Compare(a.Key, b.Key) })
		}
	}
	chains := s.chains()
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		r.Chains = append(r.Chains, nft.Chain{Name: name, Rules: chains[name]})
	}
	return r
}

// chains are the rules that elements lead to, by name: those of networks, and
// one for each number of replicas that there is.
func (s State) chains() map[string][]nft.Rule {
	all := map[string][]nft.Rule{}
	for id, n := range s.Networks {
		var rules []nft.Rule
		for _, a := range n.Gateways {
			rules = append(rules, nft.Rule{nft.Source(a.String()), nft.GoTo(chainRefused)})
		}
		for _, p := range n.From {
			f := familyOf(p.Addr())
			rules = append(rules, nft.Rule{nft.Source(p.String()), nft.DispatchBy(f.spread, f.destination)})
		}
		all[networkChain(id)] = rules
	}
	for _, v := range s.Services {
		if n := len(v.Replicas); n > 0 {
			all[spreadChain(n)] = []nft.Rule{
				{v4.address(v4.replicas, v4.destination, nft.FieldChance(n))},
				{v6.address(v6.replicas, v6.destination, nft.FieldChance(n))},
			}
		}
	}
	for _, p := range s.Ports {
		for _, n := range []int{len(p.Replicas), len(p.Replicas6)} {
			if n > 0 {
				all[targetChain(n)] = socketRules(v4.targets, v6.targets, n)
			}
		}
		for _, n := range []int{len(p.Here), len(p.Here6)} {
			if n > 0 {
				all[nearChain(n)] = socketRules(v4.near, v6.near, n)
			}
		}
	}
	return all
}

// socketRules send a connection to one of n slots of a map.
func socketRules(map4, map6 string, n int) []nft.Rule {
	by := []nft.Field{nft.FieldProtocol, nft.FieldDestinationPort, nft.FieldChance(n)}
	return []nft.Rule{
		{nft.SetConnectionMark(Mark, Mark)},
		{nft.NetworkProtocol("ipv4"), v4.socket(map4, by...)},
		{nft.NetworkProtocol("ipv6"), v6.socket(map6, by...)},
	}
}

func networkChain(id string) string { return "net-" + id }
func spreadChain(n int) string      { return fmt.Sprintf("spread-%d", n) }
func targetChain(n int) string      { return fmt.Sprintf("target-%d", n) }
func nearChain(n int) string        { return fmt.Sprintf("near-%d", n) }

// elements are all elements of the table.
func (s State) elements() []nft.Element {
	var all []nft.Element
	for address, v := range s.Services {
		all = append(all, v.elements(address)...)
	}
	for socket, p := range s.Ports {
		all = append(all, p.elements(socket)...)
	}
	for a := range s.Local {
		all = append(all, selfElement(a))
	}
	for a := range s.Hosts {
		all = append(all, hostElement(a))
	}
	for _, p := range s.Fleet {
		all = append(all, nft.Element{Set: familyOf(p.Addr()).fleet, Key: []string{p.String()}})
	}
	return all
}

func (v Service) elements(address netip.Addr) []nft.Element {
	f, key := familyOf(address), []string{address.String()}
	all := []nft.Element{{Set: f.vips, Key: key}, {Set: f.owners, Key: key, Data: []string{"goto " + networkChain(v.Network)}}}
	if len(v.Replicas) > 0 {
		all = append(all, nft.Element{Set: f.spread, Key: key, Data: []string{"goto " + spreadChain(len(v.Replicas))}})
	}
	for i, a := range v.Replicas {
		all = append(all, nft.Element{Set: f.replicas, Key: []string{key[0], nft.Number(i)}, Data: []string{a.String()}})
	}
	return all
}

func (p Port) elements(s Socket) []nft.Element {
	return append(p.half(s, v4, p.Replicas, p.Here), p.half(s, v6, p.Replicas6, p.Here6)...)
}

// half are the elements of one family.
func (p Port) half(s Socket, f family, replicas, here []netip.Addr) []nft.Element {
	var all []nft.Element
	key := []string{s.Protocol, fmt.Sprint(s.Port)}
	slot := func(set string, i int, to netip.Addr, port uint16) {
		all = append(all, nft.Element{Set: set, Key: []string{key[0], key[1], nft.Number(i)}, Data: []string{to.String(), fmt.Sprint(port)}})
	}
	to := "goto " + chainRefused
	if len(replicas) > 0 {
		to = "goto " + targetChain(len(replicas))
	}
	switch {
	case !p.Address.IsValid():
		all = append(all, nft.Element{Set: f.ports, Key: key, Data: []string{to}})
	case familyOf(p.Address).kind == f.kind:
		all = append(all, nft.Element{Set: f.portsAt, Key: append([]string{p.Address.String()}, key...), Data: []string{to}})
	}
	for i, a := range replicas {
		if host, far := p.Hosts[a]; far {
			slot(f.targets, i, host, s.Port)
		} else {
			slot(f.targets, i, a, p.Target)
		}
	}
	if len(here) > 0 {
		near := []string{"goto " + nearChain(len(here))}
		all = append(all, nft.Element{Set: f.here, Key: key, Data: near})
		if !p.Address.IsValid() || p.Address.IsLoopback() {
			all = append(all, nft.Element{Set: f.loop, Key: key, Data: near})
		}
	}
	for i, a := range here {
		slot(f.near, i, a, p.Target)
	}
	return all
}

func hostElement(a netip.Addr) nft.Element {
	return nft.Element{Set: familyOf(a).hosts, Key: []string{a.String()}}
}

func selfElement(a netip.Addr) nft.Element {
	return nft.Element{Set: familyOf(a).self, Key: []string{a.String(), a.String()}}
}
