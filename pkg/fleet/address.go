package fleet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet/preflight"
)

// Resolver looks up the addresses of a name; [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

var _ Resolver = (*net.Resolver)(nil)

// ChooseAddress decides which address others reach a machine by: the one that
// was asked for; else that of the endpoint, when the machine has it; else the
// source of its default route; else its first global address; else loopback,
// which makes a fleet of one machine. An address that was asked for and is
// not the machine's is refused unless foreign allows it, as for a controller
// behind address translation.
func ChooseAddress(ctx context.Context, asked, endpoint string, f preflight.Facts, foreign bool, r Resolver) (string, error) {
	own := make([]netip.Addr, len(f.Addresses))
	for i, a := range f.Addresses {
		own[i] = a.Address.Addr()
	}
	if asked != "" {
		a, err := netip.ParseAddr(asked)
		if err != nil {
			return "", fmt.Errorf("choose address: %q is not an address", asked)
		}
		if !foreign && !a.IsLoopback() && !slices.Contains(own, a) {
			return "", fmt.Errorf("choose address: %s is none of the machine's own: %s", asked, list(own))
		}
		return a.String(), nil
	}
	if host := connect.HostOf(endpoint); host != "" {
		var found []netip.Addr
		if a, err := netip.ParseAddr(host); err == nil {
			found = []netip.Addr{a}
		} else if as, err := r.LookupNetIP(ctx, "ip", host); err == nil {
			found = as
		}
		for _, a := range found {
			a = a.Unmap()
			if slices.Contains(own, a) {
				return a.String(), nil
			}
			if foreign && a.IsGlobalUnicast() {
				return a.String(), nil
			}
		}
	}
	if f.DefaultSource != "" {
		return f.DefaultSource, nil
	}
	for _, want4 := range []bool{true, false} {
		for _, a := range f.Addresses {
			if a.Address.Addr().Is4() == want4 && a.Address.Addr().IsGlobalUnicast() && !bridgeOfEngine(a.Link) {
				return a.Address.Addr().String(), nil
			}
		}
	}
	return "127.0.0.1", nil
}

// bridgeOfEngine reports whether a link is one that engines make for
// themselves, whose addresses mean the same on every machine.
func bridgeOfEngine(link string) bool {
	return link == "docker0" || link == "docker_gwbridge" || len(link) > 3 && link[:3] == "br-"
}

func list(as []netip.Addr) string {
	if len(as) == 0 {
		return "it has none"
	}
	s := ""
	for i, a := range as {
		if i > 0 {
			s += ", "
		}
		s += a.String()
	}
	return s
}
