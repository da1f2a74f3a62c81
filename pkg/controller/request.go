package controller

import (
	"errors"
	"fmt"
	"net/netip"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/model"
)

// networkRequest says what an application's network is to be like. It reports
// everything that is wrong at once.
func networkRequest(app string, n *model.Network) (registry.Request, error) {
	r := registry.Request{
		Name: networkName(app, n), App: app, Internal: n.Internal, IPv6: n.IPv6, NoIPv4: n.NoIPv4,
		Segment: n.Segment, Carrier: n.Carrier, Egress: n.Egress, MTU: n.MTU, Labels: n.Labels,
		Reserved: n.Reserved, DNSSearch: n.DNSSearch, Unfiltered: n.Unfiltered,
		Driver: n.Driver, DriverOptions: n.DriverOptions,
	}
	if r.Carrier == "" {
		r.Carrier = "auto"
	}
	if r.Egress == "" && r.Driver == "" {
		r.Egress = "plugin"
	}
	var errs []error
	prefix := func(key, text string, into *netip.Prefix) {
		var err error
		if text == "" {
			return
		}
		if *into, err = netip.ParsePrefix(text); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %s %q is not in CIDR form", n.Name, key, text))
		}
	}
	address := func(key, text string, into *netip.Addr) {
		var err error
		if text == "" {
			return
		}
		if *into, err = netip.ParseAddr(text); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %s %q is not an address", n.Name, key, text))
		}
	}
	prefix("subnet", n.Subnet, &r.Subnet)
	prefix("subnet", n.Subnet6, &r.Subnet6)
	prefix("range", n.Range, &r.Range)
	prefix("range", n.Range6, &r.Range6)
	address("gateway", n.Gateway, &r.Gateway)
	address("gateway", n.Gateway6, &r.Gateway6)
	for _, v := range n.DNSServers {
		text, _ := v.Literal()
		var a netip.Addr
		address("name server", text, &a)
		r.DNS = append(r.DNS, text)
	}
	return r, errors.Join(errs...)
}
