package underlay

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/pkg/record"
)

// Ours reports whether a route is one that the plugin made, by the route's
// protocol and the name of the link it leads to.
type Ours func(protocol int, link string) bool

// Look reads what a host is to say of itself: everything in its record that
// the kernel knows.
func Look(h *netlink.Handle, address netip.Addr, ours Ours) (record.Underlay, error) {
	u := record.Underlay{Address: address.String()}
	l, err := Find(h, address)
	if err != nil {
		return u, err
	}
	u.MTU = l.MTU
	if l.LinkLocal.IsValid() {
		u.LinkLocal = l.LinkLocal.String()
	}
	if len(l.MAC) > 0 {
		u.MAC = l.MAC.String()
	}
	for _, p := range l.Prefixes {
		u.Links = append(u.Links, p.String())
	}
	own, err := addresses(h, ours)
	if err != nil {
		return u, err
	}
	for _, a := range own {
		u.Addresses = append(u.Addresses, a.String())
	}
	routes, err := Routes(h, ours)
	if err != nil {
		return u, err
	}
	for _, p := range routes {
		u.Routes = append(u.Routes, p.String())
	}
	return u, nil
}

// addresses are the host's own on all its links, sorted: containers must not
// reach its services by any of them.
func addresses(h *netlink.Handle, ours Ours) ([]netip.Addr, error) {
	links, err := Whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	all, err := Whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var own []netip.Addr
	for _, x := range all {
		a, ok := addrOf(x.IP)
		if name := names[x.LinkIndex]; ok && name != "lo" && !ours(0, name) && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
			own = append(own, a)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return slices.Compact(own), nil
}

// Routes are the destinations of the host's own routes, of both families,
// sorted: of its main table, without default routes, link-local ones and those
// that are ours. Other engines' networks count: whoever has a route there
// loses it to a network of the fleet, or the other way round.
func Routes(h *netlink.Handle, ours Ours) ([]netip.Prefix, error) {
	links, err := Whole(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var all []netip.Prefix
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := Whole(func() ([]netlink.Route, error) {
			return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for i := range routes {
			r := &routes[i]
			if p, ok := destination(r); ok && !ours(int(r.Protocol), names[r.LinkIndex]) {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, comparePrefixes)
	return slices.Compact(all), nil
}

// destination is where a route leads to, if that is worth telling.
func destination(r *netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	a, ok := addrOf(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	p := netip.PrefixFrom(a, bits)
	if !ok || bits == 0 || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsLoopback() {
		return p, false
	}
	return p.Masked(), true
}
