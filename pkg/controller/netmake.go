package controller

import (
	"net/netip"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
)

// registryRequest is what the registry is asked for.
func (c *Controller) registryRequest(q api.NetworkRequest, a askedNetwork) registry.Request {
	r := registry.Request{
		Name: q.Name, NoIPv4: !a.v4.wanted, IPv6: a.v6.wanted,
		Subnet: a.v4.subnet, Gateway: a.v4.gateway, Range: a.v4.rng,
		Subnet6: a.v6.subnet, Gateway6: a.v6.gateway, Range6: a.v6.rng,
		Reserved: texts(a.reserved), DNS: texts(a.dns), DNSSearch: q.Search,
		Internal: q.Internal, Unfiltered: a.unfiltered, Egress: a.egress,
		Segment: q.Segment, Carrier: q.Carrier, MTU: q.MTU,
		Options: q.Options, Labels: q.Labels, Avoid: c.hostRoutes(),
	}
	if r.Carrier == "" {
		r.Carrier = "auto"
	}
	if q.Driver != "" {
		r.Driver, r.DriverOptions, r.Options = q.Driver, q.Options, nil
	}
	if a.v4.pool {
		r.Pool = q.Pool
	}
	if a.v6.pool {
		r.Pool6 = q.Pool
	}
	if a.v6.pool || !a.v4.wanted {
		r.SubnetBits6 = q.Size
	} else {
		r.SubnetBits = q.Size
	}
	return r
}

func texts(as []netip.Addr) []string {
	var out []string
	for _, a := range as {
		out = append(out, a.String())
	}
	return out
}
