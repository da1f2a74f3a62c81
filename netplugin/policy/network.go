package policy

import (
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/nft"
)

// networkChains are the rules of one network, for what leaves its endpoints
// and for what enters them.
func networkChains(n Network, f Fleet) []nft.Chain {
	return []nft.Chain{
		{Name: leaveChain(n.ID), Rules: leaveRules(n, f)},
		{Name: enterChain(n.ID), Rules: enterRules(n, f)},
	}
}

func leaveChain(network string) string { return "leave-" + network }
func enterChain(network string) string { return "enter-" + network }

// leaveRules say what a network's endpoints may send; what comes to their end
// may go on. They are used before destinations are translated too, where no
// link is known that a packet goes out by.
func leaveRules(n Network, f Fleet) []nft.Rule {
	var rules []nft.Rule
	for _, p := range n.subnets() {
		rules = append(rules, nft.Rule{nft.Destination(p.String()), nft.Return()})
	}
	// What belongs to no connection must not leave untranslated. Within the
	// network nothing is translated, and connection tracking sees only a part
	// of what goes the short way.
	rules = append(rules, nft.Rule{nft.ConnectionState("invalid"), nft.Drop()})
	for _, o := range f.Openings {
		rules = append(rules, o.rules(n.subnets(), nil, nft.Return())...)
	}
	rules = append(rules,
		nft.Rule{nft.InSet(setOpen, nft.FieldDestination), nft.Return()},
		nft.Rule{nft.InSet(setOpen6, nft.FieldDestination6), nft.Return()})
	switch v4, v6 := n.out(); {
	case !v4 && !v6:
		return append(rules, nft.Rule{nft.Drop()})
	case !v4:
		rules = append(rules, nft.Rule{nft.NetworkProtocol("ipv4"), nft.Drop()})
	case !v6:
		rules = append(rules, nft.Rule{nft.NetworkProtocol("ipv6"), nft.Drop()})
	}
	rules = append(rules, nft.Rule{nft.Translated(), nft.Return()})
	if !n.Unfiltered {
		rules = append(rules,
			nft.Rule{nft.InSet(setFleet, nft.FieldDestination), nft.Drop()},
			nft.Rule{nft.InSet(setFleet6, nft.FieldDestination6), nft.Drop()})
	}
	return append(rules,
		// Other hosts would take them for this host's own packets.
		nft.Rule{
			nft.InSet(setHosts, nft.FieldDestination),
			nft.NotInSet(setHostPorts, nft.FieldDestination, nft.FieldProtocol, nft.FieldDestinationPort), nft.Drop(),
		},
		nft.Rule{
			nft.InSet(setHosts6, nft.FieldDestination6),
			nft.NotInSet(setHostPorts6, nft.FieldDestination6, nft.FieldProtocol, nft.FieldDestinationPort), nft.Drop(),
		},
		// Engines' own networks are other networks too.
		nft.Rule{nft.OutLink(dockerBridges), nft.Drop()},
		nft.Rule{nft.OutLink(dockerBridgesBr), nft.Drop()})
}

// enterRules say what a network's endpoints may be sent.
func enterRules(n Network, f Fleet) []nft.Rule {
	if n.Unfiltered {
		return nil
	}
	var rules []nft.Rule
	for _, p := range n.subnets() {
		rules = append(rules, nft.Rule{nft.Source(p.String()), nft.Return()})
	}
	for _, o := range f.Openings {
		rules = append(rules, o.rules(nil, n.subnets(), nft.Return())...)
	}
	if n.Egress {
		rules = append(rules, nft.Rule{nft.Translated(), nft.Return()})
	}
	return append(rules, nft.Rule{nft.Drop()})
}

// rules are the opening's for packets from and to the given ranges; nil means
// any.
func (o Opening) rules(from, to []netip.Prefix, then nft.Statement) []nft.Rule {
	var rules []nft.Rule
	for _, f := range o.From {
		for _, t := range o.To {
			if f.Addr().Is4() != t.Addr().Is4() || !meets(f, from) || !meets(t, to) {
				continue
			}
			rule := nft.Rule{nft.Source(f.String()), nft.Destination(t.String())}
			switch name := o.Protocol; {
			case name == "icmp" && t.Addr().Is6():
				rule = append(rule, nft.Protocol("ipv6-icmp"))
			case name != "" && o.Port != 0 && name != "icmp":
				rule = append(rule, nft.DestinationPort(name, o.Port))
			case name != "":
				rule = append(rule, nft.Protocol(name))
			case o.Port != 0:
				rules = append(rules, append(slices.Clone(rule), nft.DestinationPort("udp", o.Port), then))
				rule = append(rule, nft.DestinationPort("tcp", o.Port))
			}
			rules = append(rules, append(rule, then))
		}
	}
	return rules
}

// meets reports whether a prefix overlaps one of others; nil are all.
func meets(p netip.Prefix, others []netip.Prefix) bool {
	return others == nil || slices.ContainsFunc(others, p.Overlaps)
}
