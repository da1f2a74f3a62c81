package driver

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// fleetOf works out what the filter must know of the fleet. local are this
// host's networks: one made a moment ago may not have come back from etcd.
func fleetOf(t *topology.Topology, local []record.Network, machines []policy.Machine) policy.Fleet {
	f := policy.Fleet{Prefixes: t.Prefixes(), Machines: machines}
	networks := map[string]record.Network{}
	for _, n := range local {
		networks[n.ID] = n
		f.Prefixes = append(f.Prefixes, subnets(n)...)
	}
	for id, n := range t.Networks {
		networks[id] = n
	}
	for _, n := range networks {
		if n.Unfiltered && !n.Internal {
			f.Open = append(f.Open, subnets(n)...)
		}
	}
	for _, u := range t.Underlays {
		f.Hosts = append(f.Hosts, hostAddresses(u)...)
	}
	f.Reachable = reachable(t)
	for _, r := range t.Rules {
		o := policy.Opening{From: side(networks, r.From), To: side(networks, r.To), Protocol: r.Protocol, Port: r.Port}
		if len(o.From) > 0 && len(o.To) > 0 {
			f.Openings = append(f.Openings, o)
		}
	}
	sortFleet(&f)
	return f
}

// sortFleet gives lists that come from maps one order, so that equal fleets
// are seen to be equal.
func sortFleet(f *policy.Fleet) {
	slices.SortFunc(f.Hosts, netip.Addr.Compare)
	f.Hosts = slices.Compact(f.Hosts)
	slices.SortFunc(f.Reachable, func(a, b policy.HostPort) int {
		if c := a.Host.Compare(b.Host); c != 0 {
			return c
		}
		if c := strings.Compare(a.Protocol, b.Protocol); c != 0 {
			return c
		}
		return int(a.Port) - int(b.Port)
	})
	slices.SortFunc(f.Openings, func(a, b policy.Opening) int {
		for _, c := range []int{
			slices.CompareFunc(a.From, b.From, comparePrefixes), slices.CompareFunc(a.To, b.To, comparePrefixes),
			strings.Compare(a.Protocol, b.Protocol), int(a.Port) - int(b.Port),
		} {
			if c != 0 {
				return c
			}
		}
		return 0
	})
	slices.SortFunc(f.Machines, func(a, b policy.Machine) int { return slices.CompareFunc(a.Addresses, b.Addresses, netip.Addr.Compare) })
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// reachable are the ports of hosts that lead to containers: those that every
// host answers on, and those of replicas.
func reachable(t *topology.Topology) []policy.HostPort {
	var all []policy.HostPort
	add := func(host record.Underlay, at, protocol string, port uint16) {
		if port == 0 {
			return
		}
		only, err := netip.ParseAddr(at)
		for _, a := range hostAddresses(host) {
			if err != nil || only.IsUnspecified() || only.Unmap() == a {
				all = append(all, policy.HostPort{Host: a, Protocol: protocol, Port: port})
			}
		}
	}
	for _, u := range t.Underlays {
		for _, p := range t.Published {
			add(u, p.HostIP, p.Protocol, p.HostPort)
		}
	}
	for _, endpoints := range t.Endpoints {
		for _, e := range endpoints {
			for text := range strings.SplitSeq(e.Ports, ",") {
				if at, protocol, port, ok := readPort(text); ok {
					add(t.Underlays[e.Host], at, protocol, port)
				}
			}
		}
	}
	return all
}

// hostAddresses are a host's own, the one that the others use among them.
func hostAddresses(u record.Underlay) []netip.Addr {
	var all []netip.Addr
	for _, text := range append([]string{u.Address}, u.Addresses...) {
		if a, err := netip.ParseAddr(text); err == nil && !slices.Contains(all, a.Unmap()) {
			all = append(all, a.Unmap())
		}
	}
	return all
}

// portsText is published ports as record.Endpoint has them.
func portsText(ports []policy.Port) string {
	var texts []string
	for _, p := range ports {
		texts = append(texts, portText(p))
	}
	return strings.Join(texts, ",")
}

// portText is one of them, and readPort reads it.
func portText(p policy.Port) string {
	parts := []string{p.ProtocolName(), strconv.Itoa(int(p.HostPort))}
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		parts = slices.Insert(parts, 1, p.HostIP.String())
	}
	return strings.Join(parts, "/")
}

func readPort(text string) (at, protocol string, port uint16, ok bool) {
	parts := strings.Split(text, "/")
	if len(parts) == 3 {
		at = parts[1]
		parts = []string{parts[0], parts[2]}
	}
	if len(parts) != 2 || !slices.Contains([]string{"tcp", "udp", "sctp"}, parts[0]) {
		return "", "", 0, false
	}
	n, err := strconv.ParseUint(parts[1], 10, 16)
	return at, parts[0], uint16(n), err == nil
}

// subnets are a network's, of either family.
func subnets(n record.Network) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range []string{n.Subnet, n.Subnet6} {
		if p, err := netip.ParsePrefix(s); err == nil {
			ps = append(ps, p.Masked())
		}
	}
	return ps
}

// side is one side of a rule: a network's subnets, a prefix, or an address.
func side(networks map[string]record.Network, text string) []netip.Prefix {
	if n, ok := networks[text]; ok {
		return subnets(n)
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return []netip.Prefix{p.Masked()}
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	}
	return nil
}

// openTo are the ranges beside its own that rules open a network to, or to
// the network.
func openTo(t *topology.Topology, n segment.Network) []netip.Prefix {
	own := func(p netip.Prefix) bool {
		return n.Subnet.IsValid() && n.Subnet.Overlaps(p) || n.Subnet6.IsValid() && n.Subnet6.Overlaps(p)
	}
	var ps []netip.Prefix
	for _, r := range t.Rules {
		from, to := side(t.Networks, r.From), side(t.Networks, r.To)
		if slices.ContainsFunc(from, own) {
			ps = append(ps, to...)
		}
		if slices.ContainsFunc(to, own) {
			ps = append(ps, from...)
		}
	}
	ps = slices.DeleteFunc(ps, func(p netip.Prefix) bool { return own(p) || p.Bits() == 0 })
	slices.SortFunc(ps, comparePrefixes)
	return slices.Compact(ps)
}
