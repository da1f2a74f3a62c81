package model

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// networks checks the networks that the application declares.
func (c *checker) networks() {
	seen := map[string]bool{}
	for _, n := range c.app.Networks {
		at := func(key, remedy, format string, args ...any) {
			c.add(n.Position, "networks."+n.Name+key, remedy, format, args...)
		}
		switch {
		case !ValidID(n.Name):
			at("", "letters, digits, \"-\", \"_\" and \".\"", "%q cannot be the name of a network", n.Name)
		case seen[n.Name]:
			at("", "rename one of them", "two networks are called %q", n.Name)
		}
		seen[n.Name] = true
		if n.External {
			if n.ExternalName == "" {
				at(".name", "name it", "an external network needs the name it has in the fleet")
			}
			if n.described() {
				at("", "leave the other keys out", "an external network exists already and is what it is")
			}
			continue
		}
		c.families(n, at)
		c.networkSettings(n, at)
		for k := range n.Labels {
			if strings.HasPrefix(k, ReservedLabels) {
				at(".labels."+k, "use another prefix", "labels that start with %s belong to the fleet", ReservedLabels)
			}
		}
	}
}

// described says whether anything is said of what a network is like.
func (n *Network) described() bool {
	return n.Subnet != "" || n.Gateway != "" || n.Range != "" || n.Subnet6 != "" || n.Gateway6 != "" || n.Range6 != "" ||
		len(n.Reserved) > 0 || n.IPv6 || n.NoIPv4 || n.Internal || n.Segment != "" || n.Carrier != "" || n.Egress != "" || n.MTU != 0 ||
		n.Driver != "" || len(n.DriverOptions) > 0 || len(n.Labels) > 0 || len(n.DNSServers) > 0 || len(n.DNSSearch) > 0 || n.Unfiltered
}

type problemAt func(key, remedy, format string, args ...any)

// families checks the subnets of a network.
func (c *checker) families(n *Network, at problemAt) {
	v4 := family{"IPv4", 29, "such as 10.208.16.0/20"}
	v6 := family{"IPv6", 120, "such as fd12:3456:789a:1::/64"}
	subnets := []netip.Prefix{v4.check(n.Subnet, n.Gateway, n.Range, at), v6.check(n.Subnet6, n.Gateway6, n.Range6, at)}
	if n.NoIPv4 && (n.Subnet != "" || n.Gateway != "") {
		at(".enable_ipv4", "leave the subnet out, or enable_ipv4", "a network without IPv4 has no IPv4 subnet")
	}
	if n.NoIPv4 && !n.IPv6 && n.Subnet6 == "" {
		at(".enable_ipv4", "write enable_ipv6: true", "the network has neither IPv4 nor IPv6")
	}
	for _, text := range n.Reserved {
		a, err := netip.ParseAddr(text)
		if err != nil {
			at(".ipam.config", "such as 10.208.16.5", "reserved address %q is no address", text)
			continue
		}
		if !slices.ContainsFunc(subnets, func(p netip.Prefix) bool { return p.IsValid() && p.Contains(a) }) {
			at(".ipam.config", "an address of the subnet", "reserved address %s is inside no subnet of the network", a)
		}
	}
}

// family is how the subnet of an address family is checked.
type family struct {
	name    string
	longest int // prefix
	example string
}

func (f family) check(subnet, gateway, within string, at problemAt) netip.Prefix {
	var p netip.Prefix
	if subnet != "" {
		parsed, err := netip.ParsePrefix(subnet)
		switch {
		case err != nil || parsed.Addr().Is4() != (f.name == "IPv4"):
			at(".subnet", f.example, "%q is no %s subnet", subnet, f.name)
		case parsed != parsed.Masked():
			at(".subnet", fmt.Sprintf("such as %s", parsed.Masked()), "%s has bits set beyond its prefix", subnet)
		case parsed.Bits() > f.longest:
			at(".subnet", fmt.Sprintf("a prefix of /%d or shorter", f.longest), "%s has no room for containers", subnet)
		default:
			p = parsed
		}
	}
	if gateway != "" {
		gw, err := netip.ParseAddr(gateway)
		switch {
		case err != nil:
			at(".gateway", "such as 10.208.16.1", "%q is no address", gateway)
		case subnet == "":
			at(".gateway", "give the subnet too", "a gateway needs a subnet")
		case p.IsValid() && (!p.Contains(gw) || gw == p.Addr()):
			at(".gateway", "an address of the subnet", "gateway %s is not inside %s", gw, p)
		}
	}
	if within != "" {
		r, err := netip.ParsePrefix(within)
		switch {
		case err != nil:
			at(".ip_range", f.example, "%q is no range of addresses", within)
		case p.IsValid() && (!p.Contains(r.Addr()) || r.Bits() < p.Bits()):
			at(".ip_range", "a part of the subnet", "range %s is not inside %s", r, p)
		}
	}
	return p
}

// networkSettings checks what is not about addresses.
func (c *checker) networkSettings(n *Network, at problemAt) {
	for _, o := range []struct {
		key, value string
		of         []string
	}{
		{"segment", n.Segment, []string{"routed", "bridged"}},
		{"carrier", n.Carrier, []string{"auto", "direct", "vxlan", "wireguard"}},
		{"egress", n.Egress, []string{"plugin", "engine"}},
	} {
		if o.value != "" && !slices.Contains(o.of, o.value) {
			at("."+o.key, strings.Join(o.of, ", "), "%q is no %s", o.value, o.key)
		}
	}
	// RFC 791 asks for 68 bytes, RFC 8200 for 1280.
	least := 68
	if n.IPv6 || n.Subnet6 != "" || n.NoIPv4 {
		least = 1280
	}
	if n.MTU != 0 && (n.MTU < least || n.MTU > 65535) {
		at(".mtu", fmt.Sprintf("%d to 65535", least), "%d bytes is no MTU for this network", n.MTU)
	}
	for _, v := range n.DNSServers {
		text, literal := v.Literal()
		if !literal {
			at(".dnsServers", "write the address", "a name server's address cannot wait for a sensor yet")
		} else if _, err := netip.ParseAddr(text); err != nil {
			at(".dnsServers", "such as 192.0.2.53", "%q is no address of a name server", text)
		}
	}
	for _, d := range n.DNSSearch {
		if !hostName.MatchString(strings.TrimSuffix(d, ".")) {
			at(".dnsSearch", "such as example.com", "%q is no domain", d)
		}
	}
}

// hardware is an address of one interface (IEEE 802): a first byte that is odd
// means a group of them.
var hardware = regexp.MustCompile(`^[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}$`)

// fixed checks the addresses that a service has for good.
func (c *checker) fixed(e *Entity, a Attachment) {
	at := func(key, remedy, format string, args ...any) {
		c.at(e, a.Position, ".networks."+a.Network+key, remedy, format, args...)
	}
	n := c.app.Network(a.Network)
	for _, f := range []struct {
		key, text string
		is4       bool
	}{{".ipv4_address", a.Address, true}, {".ipv6_address", a.Address6, false}} {
		if f.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(f.text)
		if err != nil || addr.Is4() != f.is4 {
			at(f.key, "such as 10.208.16.20 or fd12:3456:789a:1::20", "%q is no such address", f.text)
			continue
		}
		if e.Service.Replicas > 1 {
			at(f.key, "leave it out, or have one replica", "one address cannot be that of %d replicas", e.Service.Replicas)
		}
		if n == nil || n.External {
			continue
		}
		subnet := n.Subnet
		if !f.is4 {
			subnet = n.Subnet6
		}
		p, err := netip.ParsePrefix(subnet)
		switch {
		case subnet == "":
			at(f.key, "give network "+a.Network+" a subnet under ipam.config", "a fixed address needs a network with a fixed subnet")
		case err == nil && !p.Contains(addr):
			at(f.key, "an address of "+p.String(), "address %s is not inside network %s", addr, a.Network)
		}
	}
	if a.MAC == "" {
		return
	}
	if !hardware.MatchString(a.MAC) {
		at(".mac_address", "such as 02:42:ac:11:00:02", "%q is no hardware address of a container", a.MAC)
	} else if e.Service.Replicas > 1 {
		at(".mac_address", "leave it out, or have one replica", "one hardware address cannot be that of %d replicas", e.Service.Replicas)
	}
}

// attachments checks which networks a service joins.
func (c *checker) attachments(e *Entity) {
	if len(e.Service.Networks) == 0 {
		c.at(e, Position{}, ".networks", "name one, or leave networks out for the application's own", "the service joins no network")
	}
	var names []string
	for _, n := range c.app.Networks {
		names = append(names, n.Name)
	}
	seen := map[string]bool{}
	for _, a := range e.Service.Networks {
		path := ".networks." + a.Network
		switch {
		case c.app.Network(a.Network) == nil:
			c.at(e, Position{}, path, DidYouMean(a.Network, names, "declare it under networks:"), "network %q is not declared", a.Network)
		case seen[a.Network]:
			c.at(e, Position{}, path, "name it once", "network %q is joined twice", a.Network)
		}
		seen[a.Network] = true
		c.fixed(e, a)
		for _, alias := range a.Aliases {
			if !hostName.MatchString(alias) || len(alias) > 253 {
				c.at(e, Position{}, path+".aliases", "letters, digits, \"-\", \"_\" and \".\"", "alias %q cannot be a host name", alias)
			}
		}
	}
}
