package model

import (
	"fmt"
	"net/netip"
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
			if n.Subnet != "" || n.Gateway != "" || n.Internal || len(n.Options) > 0 || len(n.Labels) > 0 {
				at("", "leave the other keys out", "an external network exists already and is what it is")
			}
			continue
		}
		c.subnet(n, at)
		for k := range n.Labels {
			if strings.HasPrefix(k, ReservedLabels) {
				at(".labels."+k, "use another prefix", "labels that start with %s belong to the fleet", ReservedLabels)
			}
		}
	}
}

func (c *checker) subnet(n *Network, at func(key, remedy, format string, args ...any)) {
	var subnet netip.Prefix
	if n.Subnet != "" {
		p, err := netip.ParsePrefix(n.Subnet)
		switch {
		case err != nil:
			at(".subnet", "such as 10.208.16.0/20", "%q is no subnet", n.Subnet)
		case !p.Addr().Is4():
			at(".subnet", "an IPv4 subnet such as 10.208.16.0/20", "%s: IPv6 subnets are not supported yet", n.Subnet)
		case p != p.Masked():
			at(".subnet", fmt.Sprintf("such as %s", p.Masked()), "%s has bits set beyond its prefix", n.Subnet)
		case p.Bits() > 29:
			at(".subnet", "a prefix of /29 or shorter", "%s has no room for containers", n.Subnet)
		default:
			subnet = p
		}
	}
	if n.Gateway == "" {
		return
	}
	gw, err := netip.ParseAddr(n.Gateway)
	switch {
	case err != nil:
		at(".gateway", "such as 10.208.16.1", "%q is no address", n.Gateway)
	case n.Subnet == "":
		at(".gateway", "give the subnet too", "a gateway needs a subnet")
	case subnet.IsValid() && (!subnet.Contains(gw) || gw == subnet.Addr()):
		at(".gateway", "an address of the subnet", "gateway %s is not inside %s", gw, subnet)
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
		for _, alias := range a.Aliases {
			if !hostName.MatchString(alias) || len(alias) > 253 {
				c.at(e, Position{}, path+".aliases", "letters, digits, \"-\", \"_\" and \".\"", "alias %q cannot be a host name", alias)
			}
		}
	}
}
