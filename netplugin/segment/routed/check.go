package routed

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
)

var _ finding.Checker = (*Segment)(nil)

// Check compares routes, links, gateways' addresses and the switches for
// forwarding with what must be.
func (s *Segment) Check(fix bool) ([]finding.Finding, error) {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	p := s.look()
	var all []finding.Finding
	for _, f := range []func(picture, bool) ([]finding.Finding, error){s.checkSwitches, s.checkAddresses, s.checkLinks, s.checkKernelRoutes} {
		found, err := f(p, fix)
		if err != nil {
			return all, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// found is a finding that mend, which may be nil, does away with.
func found(part, subject, text, hint string, fix bool, mend func() error) finding.Finding {
	f := finding.Finding{Part: part, Subject: subject, Text: text, Hint: hint}
	if !fix || mend == nil {
		return f
	}
	if err := mend(); err != nil {
		f.Hint = err.Error()
		return f
	}
	f.Fixed = true
	return f
}

func (s *Segment) checkSwitches(p picture, fix bool) ([]finding.Finding, error) {
	var all []finding.Finding
	check := func(path string, mend func() error) error {
		v, err := s.Sysctl.get(path)
		if err == nil && v != "1" {
			all = append(all, found("links", path, "is "+v+" and must be 1: this host forwards no packets", "", fix, mend))
		}
		return err
	}
	if err := check("ipv4/ip_forward", s.Sysctl.EnsureForwarding); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(p.networks, func(n segment.Network) bool { return n.Subnet6.IsValid() }) {
		if err := check("ipv6/conf/all/forwarding", s.Sysctl.EnsureForwarding6); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Segment) checkAddresses(p picture, fix bool) ([]finding.Finding, error) {
	lo, err := s.Handle.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find loopback: %w", err)
	}
	have, err := underlay.Whole(func() ([]netlink.Addr, error) { return s.Handle.AddrList(lo, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	missing := map[netip.Addr]func() error{}
	for _, n := range p.networks {
		for _, sub := range n.Subnets() {
			missing[sub.Gateway] = func() error { return s.addGateway(sub.Gateway) }
		}
	}
	for _, as := range p.machines {
		for _, a := range as {
			missing[a] = func() error { return s.addMachine(a) }
		}
	}
	var all []finding.Finding
	for i := range have {
		a, ok := netip.AddrFromSlice(have[i].IP)
		a = a.Unmap()
		if !ok {
			continue
		}
		_, wanted := missing[a]
		delete(missing, a)
		if !wanted && have[i].Label == AddressLabel {
			all = append(all, found("addresses", a.String(), "is on the loopback, but no network here has it", "", fix, func() error { return s.removeAddress(a) }))
		}
	}
	for a, mend := range missing {
		all = append(all, found("addresses", a.String(), "a network's gateway or the host's own address, is not on the loopback", "", fix, mend))
	}
	return all, nil
}

func (s *Segment) checkLinks(p picture, fix bool) ([]finding.Finding, error) {
	links, err := underlay.Whole(s.Handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	have := map[string]netlink.Link{}
	for _, l := range links {
		if Ours(l) {
			have[l.Attrs().Name] = l
		}
	}
	s.mu.Lock()
	for id := range s.attaching {
		delete(have, segment.LinkName(id))
	}
	for name := range s.detaching {
		delete(have, name)
	}
	attaching := map[string]bool{}
	for id := range s.attaching {
		attaching[id] = true
	}
	s.mu.Unlock()
	var all []finding.Finding
	for _, e := range p.endpoints {
		name := segment.LinkName(e.ID)
		l, ok := have[name]
		delete(have, name)
		switch {
		case attaching[e.ID]:
		case !ok:
			all = append(all, finding.Finding{
				Part: "links", Subject: name, Text: fmt.Sprintf("the link of %s is gone: its container ended, or somebody removed it", addressesOf(e)),
				Hint: "the address is freed within two minutes; if the container runs still, disconnect it from the network and connect it again",
			})
		case l.Attrs().RawFlags&1 == 0: // IFF_UP
			all = append(all, found("links", name, fmt.Sprintf("the link of %s is down", addressesOf(e)), "", fix, func() error { return s.settle(e, l.Attrs().Index) }))
		}
	}
	for name := range have {
		all = append(all, found("links", name, "belongs to no endpoint", "", fix, func() error { s.removeLink(name); return nil }))
	}
	return all, nil
}

func addressesOf(e segment.Endpoint) string {
	var texts []string
	for _, a := range e.Addresses() {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " and ")
}

func (s *Segment) checkKernelRoutes(p picture, fix bool) ([]finding.Finding, error) {
	if p.known == topology.Unknown {
		return []finding.Finding{{
			Part: "routes", Subject: "topology", Text: "etcd has not been heard of since this plugin started, and nothing is remembered",
			Hint: "see why this host does not reach etcd",
		}}, nil
	}
	var all []finding.Finding
	want, unreachable := s.resolve(p)
	if want == nil {
		return nil, unreachable
	}
	if unreachable != nil {
		for _, text := range strings.Split(unreachable.Error(), "\n") {
			all = append(all, finding.Finding{Part: "routes", Subject: "hosts", Text: text, Hint: "choose a carrier that reaches the host: auto or vxlan"})
		}
	}
	differences, err := s.compare(want, s.keep(p))
	if err != nil {
		return nil, err
	}
	for _, d := range differences {
		text := "a route that nothing explains"
		if d.want != nil {
			text = "the route is missing or leads elsewhere"
		}
		all = append(all, found("routes", d.dst.String(), text, "", fix, func() error { return s.mend(d) }))
	}
	return all, nil
}
