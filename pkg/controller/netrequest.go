package controller

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

var networkNamePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// family is what a request asks of one family.
type family struct {
	name                 string
	bits                 int
	subnet, rng          netip.Prefix
	gateway              netip.Addr
	wanted, pool         bool
	minSubnet, maxSubnet int
}

// askedNetwork is a request read and checked.
type askedNetwork struct {
	v4, v6   family
	reserved []netip.Addr
	dns      []netip.Addr
	// egress and unfiltered are as in record.Network.
	egress     string
	unfiltered bool
}

// checkNetwork reads a request and returns everything that speaks against it.
// What its options say is moved into its fields.
func (s *netState) checkNetwork(q *api.NetworkRequest) (askedNetwork, []string) {
	a := askedNetwork{
		v4: family{name: "IPv4", bits: 32, wanted: !q.NoIPv4, minSubnet: ipam.MinSubnetBits, maxSubnet: ipam.MaxSubnetBits},
		v6: family{name: "IPv6", bits: 128, wanted: q.IPv6, minSubnet: ipam.MinSubnetBits6, maxSubnet: ipam.MaxSubnetBits6},
	}
	var problems []string
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if !networkNamePattern.MatchString(q.Name) {
		say("name %q: letters, digits, '_', '.' and '-' are allowed, and it begins with a letter or digit", q.Name)
	}
	a.options(q, say)
	a.subnets(*q, say)
	a.ranges(*q, say)
	a.gateways(*q, say)
	a.aux(*q, say)
	a.pools(s, *q, say)
	oneOf := func(what, got string, among ...string) {
		if got != "" && !slices.Contains(among, got) {
			say("%s %q is not known: it is %s", what, got, strings.Join(among, ", "))
		}
	}
	oneOf("segment", q.Segment, "routed", "bridged")
	oneOf("carrier", q.Carrier, "auto", "direct", "vxlan", "wireguard")
	if q.Segment == "bridged" && q.Carrier == "wireguard" {
		say("a bridged network cannot be carried by wireguard, which has no frames: leave --segment bridged out")
	}
	s.checkMTU(*q, say)
	for _, text := range q.DNS {
		d, err := netip.ParseAddr(text)
		if err != nil {
			say("DNS server %q is not an address", text)
		}
		a.dns = append(a.dns, d)
	}
	s.checkPlace(a, say)
	return a, problems
}

func (a *askedNetwork) of(is4 bool) *family {
	if is4 {
		return &a.v4
	}
	return &a.v6
}

type sayer func(format string, args ...any)

func (a *askedNetwork) subnets(q api.NetworkRequest, say sayer) {
	for _, text := range q.Subnets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			say("subnet %q is not in CIDR form, like 10.1.0.0/16", text)
			continue
		}
		f := a.of(p.Addr().Is4())
		switch {
		case p != p.Masked():
			say("subnet %s has bits set beyond its prefix: it is %s", p, p.Masked())
		case f.subnet.IsValid():
			say("subnets %s and %s are both %s: a network has one of each family", f.subnet, p, f.name)
		case p.Bits() < f.minSubnet || p.Bits() > f.maxSubnet:
			say("subnet %s: an %s subnet is from /%d to /%d", p, f.name, f.minSubnet, f.maxSubnet)
		}
		f.subnet, f.wanted = p.Masked(), true
	}
	if q.NoIPv4 && a.v4.subnet.IsValid() {
		say("subnet %s is IPv4, which --ipv4=false leaves out", a.v4.subnet)
	}
	if !a.v4.wanted && !a.v6.wanted {
		say("without IPv4 the network needs --ipv6")
	}
}

func (a *askedNetwork) ranges(q api.NetworkRequest, say sayer) {
	for _, text := range q.Ranges {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			say("address range %q is not in CIDR form", text)
			continue
		}
		f := a.of(p.Addr().Is4())
		switch {
		case !f.subnet.IsValid():
			say("address range %s needs a subnet: say --subnet", p)
		case !f.subnet.Contains(p.Addr()) || p.Bits() < f.subnet.Bits():
			say("address range %s is not within subnet %s", p, f.subnet)
		case f.rng.IsValid():
			say("address ranges %s and %s are both %s", f.rng, p, f.name)
		}
		f.rng = p.Masked()
	}
}

func (a *askedNetwork) gateways(q api.NetworkRequest, say sayer) {
	for _, text := range q.Gateways {
		g, err := netip.ParseAddr(text)
		if err != nil {
			say("gateway %q is not an address", text)
			continue
		}
		f := a.of(g.Is4())
		switch {
		case !f.subnet.IsValid():
			say("gateway %s needs a subnet: say --subnet", g)
		case !f.subnet.Contains(g):
			say("gateway %s is not in subnet %s", g, f.subnet)
		case f.gateway.IsValid():
			say("gateways %s and %s are both %s", f.gateway, g, f.name)
		case g == f.subnet.Addr():
			say("gateway %s is the subnet's own address", g)
		}
		f.gateway = g
	}
}

func (a *askedNetwork) aux(q api.NetworkRequest, say sayer) {
	for _, name := range slices.Sorted(maps.Keys(q.Aux)) {
		x, err := netip.ParseAddr(q.Aux[name])
		if err != nil {
			say("auxiliary address %s=%s is not an address", name, q.Aux[name])
			continue
		}
		f := a.of(x.Is4())
		switch {
		case !f.subnet.IsValid():
			say("auxiliary address %s=%s needs a subnet: say --subnet", name, x)
		case !f.subnet.Contains(x):
			say("auxiliary address %s=%s is not in subnet %s", name, x, f.subnet)
		case x == f.gateway:
			say("auxiliary address %s=%s is the gateway", name, x)
		case slices.Contains(a.reserved, x):
			say("auxiliary address %s is given twice", x)
		}
		a.reserved = append(a.reserved, x)
	}
}

// pools checks what says where a subnet is taken from.
func (a *askedNetwork) pools(s *netState, q api.NetworkRequest, say sayer) {
	if q.Pool != "" {
		p, ok := s.Pools[q.Pool]
		if !ok {
			say("there is no address pool %s (docker clocker pool ls shows them)", q.Pool)
		} else if c, err := netip.ParsePrefix(p.CIDR); err == nil {
			f := a.of(c.Addr().Is4())
			if f.subnet.IsValid() {
				say("subnet %s is given, so nothing is taken from pool %s: leave one of the two out", f.subnet, q.Pool)
			}
			f.pool, f.wanted = true, true
		}
	}
	if q.Size == 0 {
		return
	}
	f := &a.v4
	if a.v6.pool || !a.v4.wanted {
		f = &a.v6
	}
	switch {
	case f.subnet.IsValid():
		say("subnet %s is given, so no size can be chosen: leave one of the two out", f.subnet)
	case q.Size < f.minSubnet || q.Size > f.maxSubnet:
		say("size /%d: an %s subnet is from /%d to /%d", q.Size, f.name, f.minSubnet, f.maxSubnet)
	}
}

// checkMTU refuses what some host's link cannot carry.
func (s *netState) checkMTU(q api.NetworkRequest, say sayer) {
	least := 68 // RFC 791
	if q.IPv6 {
		least = 1280 // RFC 8200
	}
	if q.MTU == 0 {
		return
	}
	if q.MTU < least || q.MTU > 65535 {
		say("MTU %d: it is from %d to 65535 bytes", q.MTU, least)
		return
	}
	over := registry.Overhead(q.Carrier)
	switch {
	case q.Segment == "bridged":
		over = registry.Overhead("vxlan") // frames always are
	case q.Carrier == "" || q.Carrier == "auto":
		over = 0 // hosts on one link need nothing, and where it matters TCP is told
	}
	for _, id := range s.hostIDs() {
		if mtu := s.Underlays[id].MTU; mtu > 0 && q.MTU > mtu-over {
			say("MTU %d is too large: host %s carries %d bytes%s", q.MTU, s.hosts[id].Name, mtu-over, lessOverhead(over))
			return
		}
	}
}

func lessOverhead(over int) string {
	if over == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d less than its link, for the carrier)", over)
}

// checkPlace refuses a name or subnet that something else has.
func (s *netState) checkPlace(a askedNetwork, say sayer) {
	for _, f := range []family{a.v4, a.v6} {
		if !f.subnet.IsValid() {
			continue
		}
		for _, n := range sortedNetworks(s.Networks) {
			for _, text := range []string{n.Subnet, n.Subnet6} {
				if p, err := netip.ParsePrefix(text); err == nil && p.Overlaps(f.subnet) {
					say("subnet %s overlaps network %s (%s)", f.subnet, title(n), p)
				}
			}
		}
		for _, id := range s.hostIDs() {
			for _, route := range s.routes[id] {
				if route.Bits() > 0 && route.Overlaps(f.subnet) && !s.ours(route) {
					say("subnet %s meets the route to %s of host %s", f.subnet, route, s.hosts[id].Name)
				}
			}
		}
	}
}

// ours reports whether a route of a host leads into a network of the fleet.
func (s *netState) ours(route netip.Prefix) bool {
	for _, n := range s.Networks {
		for _, text := range []string{n.Subnet, n.Subnet6} {
			if p, err := netip.ParsePrefix(text); err == nil && p.Bits() <= route.Bits() && p.Contains(route.Addr()) {
				return true
			}
		}
	}
	return false
}

func sortedNetworks(all map[string]record.Network) []record.Network {
	return slices.SortedFunc(maps.Values(all), func(a, b record.Network) int { return strings.Compare(title(a), title(b)) })
}
