package routed

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/segment"
)

// ErrRouteTaken means that a network's subnet is somewhere else for this host.
var ErrRouteTaken = errors.New("this host has a route there")

// ForeignRoutes lists the destinations of the host's routes that are not
// ours, but for default routes.
func ForeignRoutes(h *netlink.Handle) ([]netip.Prefix, error) {
	all, err := foreignRoutes(h)
	if err != nil {
		return nil, err
	}
	var ps []netip.Prefix
	for _, r := range all {
		ps = append(ps, r.dst)
	}
	return ps, nil
}

// foreignRoute is a route of the host's own. link says that what it leads to
// is on one of the host's links.
type foreignRoute struct {
	dst  netip.Prefix
	link bool
}

func foreignRoutes(h *netlink.Handle) ([]foreignRoute, error) {
	var out []foreignRoute
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := list(h, family, &netlink.Route{Table: mainTable}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, err
		}
		for i := range all {
			if all[i].Dst == nil || segment.OurRoute(int(all[i].Protocol)) {
				continue
			}
			p, ok := prefix(all[i].Dst)
			if ok && p.Bits() > 0 && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() && !p.Addr().IsLoopback() {
				// An IPv6 route has no scope: it leads to a link without a
				// gateway.
				link := all[i].Scope == netlink.SCOPE_LINK || family == netlink.FAMILY_V6 && all[i].Gw == nil && len(all[i].MultiPath) == 0
				out = append(out, foreignRoute{p, link})
			}
		}
	}
	return out, nil
}

// checkRoutes refuses a subnet that would take addresses away from the host's
// links, or that the host's routes would take addresses from. A wider route
// that leads to a router, such as to a private network as a whole, does not
// stand in the way: the subnet's is more specific.
func (s *Segment) checkRoutes(subnet netip.Prefix) error {
	all, err := foreignRoutes(s.Handle)
	if err != nil {
		return err
	}
	for _, r := range all {
		if collides(subnet, r) {
			return fmt.Errorf("subnet %s: %w: %s", subnet, ErrRouteTaken, r.dst)
		}
	}
	return nil
}

func collides(subnet netip.Prefix, r foreignRoute) bool {
	inside := subnet.Bits() <= r.dst.Bits()
	return subnet.Overlaps(r.dst) && (inside || r.link)
}
