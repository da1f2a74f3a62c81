package routed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/segment"
)

const mainTable = unix.RT_TABLE_MAIN

// loopback is the index of the loopback device in every network namespace.
const loopback = 1

// leastMTU6 is what every IPv6 way takes (RFC 8200).
const leastMTU6 = 1280

// way is a carrier to a host.
type way struct{ carrier, host string }

func compareText(a, b string) int { return strings.Compare(a, b) }

// hops asks every carrier for the way to its peers. Those that have none are
// left out and reported.
func (s *Segment) hops(peers map[string][]carrier.Peer) (map[way]carrier.Hop, error) {
	hops, errs := map[way]carrier.Hop{}, []error(nil)
	for name := range peers {
		if s.Carriers[name] == nil {
			errs = append(errs, fmt.Errorf("reach hosts by %s: this version has no such carrier", name))
		}
	}
	for name, c := range s.Carriers {
		if err := c.Sync(peers[name]); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, p := range peers[name] {
			h, err := c.Hop(p)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			hops[way{name, p.Host}] = h
		}
	}
	return hops, errors.Join(errs...)
}

// resolve turns the plan into the kernel's routes. Routes that have no way at
// present are left out and reported.
func (s *Segment) resolve(p picture) (map[netip.Prefix]*netlink.Route, error) {
	hops, unreachable := s.hops(p.peers)
	links, err := s.links()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	for id := range s.attaching {
		delete(links, segment.LinkName(id))
	}
	s.mu.Unlock()
	want := map[netip.Prefix]*netlink.Route{}
	for _, r := range p.routes {
		if r.Target == ToLink {
			if i, ok := links[r.Link]; ok {
				want[r.Dst] = linkRoute(r.Dst, i, r.Source)
			}
		} else if k := beyondRoute(r, hops); k != nil {
			want[r.Dst] = k
		}
	}
	return want, unreachable
}

// beyondRoute is a route that leads to no local link, nil when there is no way.
func beyondRoute(r Route, hops map[way]carrier.Hop) *netlink.Route {
	if r.Target == Nowhere {
		return &netlink.Route{Dst: ipNet(r.Dst), Type: unix.RTN_UNREACHABLE, Protocol: Protocol, Priority: Metric, Table: mainTable}
	}
	if r.Target == ToSelf {
		return &netlink.Route{
			Dst: ipNet(r.Dst), LinkIndex: loopback, Src: r.Source.AsSlice(), Scope: netlink.SCOPE_HOST,
			Protocol: Protocol, Priority: Metric, Type: unix.RTN_LOCAL, Table: mainTable,
		}
	}
	h, ok := hops[way{r.Carrier, r.Host}]
	if !ok {
		return nil
	}
	k := hopRoute(r.Dst, h)
	if h.MTU > 0 && (r.MTU == 0 || h.MTU < r.MTU) {
		k.MTU = h.MTU
		if r.Dst.Addr().Is6() {
			k.MTU = max(k.MTU, leastMTU6)
		}
	}
	if r.Source.IsValid() {
		k.Src = r.Source.AsSlice()
	} else if h.Source.IsValid() && h.Source.Is4() == r.Dst.Addr().Is4() {
		k.Src = h.Source.AsSlice()
	}
	return k
}

func hopRoute(dst netip.Prefix, h carrier.Hop) *netlink.Route {
	r := &netlink.Route{
		Dst: ipNet(dst), LinkIndex: h.Link, Type: unix.RTN_UNICAST, Protocol: Protocol, Priority: Metric, Table: mainTable,
	}
	gateway := h.Gateway
	if dst.Addr().Is6() {
		gateway = h.Gateway6
	}
	switch {
	case !gateway.IsValid():
		r.Scope = netlink.SCOPE_LINK
	case gateway.Is6() && dst.Addr().Is4():
		r.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: gateway.AsSlice()}
	default:
		r.Gw = gateway.AsSlice()
	}
	// A link-local address is on its link by nature.
	if h.OnLink && gateway.IsValid() && !gateway.IsLinkLocalUnicast() {
		r.SetFlag(netlink.FLAG_ONLINK)
	}
	return r
}

// linkRoute is the route to a local endpoint.
func linkRoute(dst netip.Prefix, index int, source netip.Addr) *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(dst), LinkIndex: index, Src: source.AsSlice(), Scope: netlink.SCOPE_LINK,
		Protocol: Protocol, Priority: Metric, Type: unix.RTN_UNICAST, Table: mainTable,
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// difference is one route that is not as it must be: want is nil for one that
// must go, have for one that is missing.
type difference struct {
	dst        netip.Prefix
	want, have *netlink.Route
}

// compare finds what is different between the kernel's routes of our mark and
// those that are wanted.
func (s *Segment) compare(want map[netip.Prefix]*netlink.Route, keep func(netip.Prefix) bool) ([]difference, error) {
	have, err := Routes(s.Handle)
	if err != nil {
		return nil, err
	}
	var all []difference
	same := map[netip.Prefix]bool{}
	for i := range have {
		dst, ok := prefix(have[i].Dst)
		if w := want[dst]; ok && w != nil && have[i].Priority == Metric {
			same[dst] = equal(w, &have[i])
			continue
		}
		if ok && have[i].Priority == Metric && keep(dst) {
			continue
		}
		all = append(all, difference{dst: dst, have: &have[i]})
	}
	for dst, r := range want {
		if !same[dst] {
			all = append(all, difference{dst: dst, want: r})
		}
	}
	return all, nil
}

// applyRoutes makes the kernel's routes of our protocol those that are wanted.
func (s *Segment) applyRoutes(want map[netip.Prefix]*netlink.Route, keep func(netip.Prefix) bool) error {
	all, err := s.compare(want, keep)
	errs := []error{err}
	for _, d := range all {
		errs = append(errs, s.mend(d))
	}
	return errors.Join(errs...)
}

// mend makes one route what it must be.
func (s *Segment) mend(d difference) error {
	if d.want == nil {
		return s.remove(d.have)
	}
	err := s.replace(d.want)
	// The link of an endpoint detached since may be gone.
	if err != nil && d.dst.IsSingleIP() && d.want.Gw == nil && d.want.Via == nil && !s.local(d.dst) {
		return nil
	}
	return err
}

func (s *Segment) replace(r *netlink.Route) error {
	if err := s.Handle.RouteReplace(r); err != nil {
		return fmt.Errorf("set route to %s: %w", r.Dst, err)
	}
	return nil
}

func (s *Segment) remove(r *netlink.Route) error {
	if err := s.Handle.RouteDel(r); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("remove route to %s: %w", r.Dst, err)
	}
	return nil
}

// Routes lists the routes that bear our mark, of both families.
func Routes(h *netlink.Handle) ([]netlink.Route, error) {
	f := &netlink.Route{Protocol: Protocol, Table: mainTable}
	var all []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		have, err := list(h, family, f, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		all = append(all, have...)
	}
	return all, nil
}

// Subnets are those of the networks that have been here, as the kernel knows
// them: they lead nowhere.
func Subnets(h *netlink.Handle) ([]netip.Prefix, error) {
	all, err := Routes(h)
	if err != nil {
		return nil, err
	}
	var ps []netip.Prefix
	for _, r := range all {
		if p, ok := prefix(r.Dst); ok && r.Type == unix.RTN_UNREACHABLE {
			ps = append(ps, p)
		}
	}
	return ps, nil
}

// list lists routes of one family.
func list(h *netlink.Handle, family int, f *netlink.Route, mask uint64) ([]netlink.Route, error) {
	// A dump that changes underneath is repeated; a burst of starts is short.
	for try := 0; ; try++ {
		have, err := h.RouteListFiltered(family, f, mask)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 5 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		// A kernel without IPv6 answers with what it has of IPv4.
		of := have[:0]
		for _, r := range have {
			if r.Family == 0 || r.Family == family {
				of = append(of, r)
			}
		}
		return of, nil
	}
}

func equal(a, b *netlink.Route) bool {
	if a.Type == unix.RTN_UNREACHABLE && b.Type == unix.RTN_UNREACHABLE {
		return true
	}
	return a.Type == b.Type && a.LinkIndex == b.LinkIndex && a.Gw.Equal(b.Gw) && a.MTU == b.MTU && sameVia(a.Via, b.Via) &&
		(a.Src == nil || a.Src.Equal(b.Src))
}

func sameVia(a, b netlink.Destination) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Equal(b)
}

func prefix(n interface{ String() string }) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(n.String())
	return p, err == nil
}
