package registry

import (
	"context"
	"fmt"
	"net/netip"

	"clocker.io/clocker/pkg/links"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// underlays are what hosts say of how they are reached.
type underlays []record.Underlay

// hosts reads what every host has published.
func hosts(ctx context.Context, st *store.Store) (underlays, error) {
	items, _, err := store.List[record.Underlay](ctx, st, st.Keys.Underlays())
	if err != nil {
		return nil, err
	}
	us := make(underlays, len(items))
	for i, it := range items {
		us[i] = it.Value
	}
	return us, nil
}

// routes calls f with each route of a host that is no default route, until it
// returns false.
func (us underlays) routes(f func(host string, route netip.Prefix) bool) {
	for _, u := range us {
		for _, r := range u.Routes {
			if p, err := netip.ParsePrefix(r); err == nil && p.Bits() > 0 && !f(u.Called(), p.Masked()) {
				return
			}
		}
	}
}

// avoid are the destinations of all routes.
func (us underlays) avoid() []netip.Prefix {
	var ps []netip.Prefix
	us.routes(func(_ string, p netip.Prefix) bool {
		ps = append(ps, p)
		return true
	})
	return ps
}

// clash says which host's route a range meets, or nil.
func (us underlays) clash(what string, p netip.Prefix) (err error) {
	us.routes(func(host string, route netip.Prefix) bool {
		if route.Overlaps(p) {
			err = fmt.Errorf("%s %s %w to %s of host %s", what, p, ErrRoute, route, host)
		}
		return err == nil
	})
	return err
}

// mtu is what every host can carry in one packet, to every other one, with the
// carrier: auto costs nothing as long as all are on one link.
func (us underlays) mtu(carrier string) int { return links.MTU(carrier, us) }
