package routed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

const (
	// verifyEvery is how often the kernel is compared with what it should
	// have when nothing tells of a difference.
	verifyEvery = 30 * time.Second
	// settleTime is waited after the kernel told of a change, so that a burst
	// costs one comparison.
	settleTime = 500 * time.Millisecond
)

// Run keeps the host's routes in step with the topology until ctx ends, and
// puts back what something else removed. changed signals a change of the
// topology.
func (s *Segment) Run(ctx context.Context, changed <-chan struct{}) error {
	drift := s.watchKernel(ctx)
	verify := time.NewTicker(verifyEvery)
	defer verify.Stop()
	force := true
	for {
		if err := s.sync(force); err != nil {
			s.Log.Warn("routes not complete, trying again", "error", err)
		}
		force = false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-s.kick:
			force = true
		case <-verify.C:
			force = true
		case <-drift:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(settleTime):
			}
			force = true
		}
	}
}

// again makes Run compare everything with the kernel soon.
func (s *Segment) again() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// sync brings the kernel's routes to the plan. Without force it does nothing
// when the plan is what was applied last, but for local endpoints, which
// Attach and Detach see to themselves.
//
// It works on what it finds at its start; mu is not held meanwhile, as the
// kernel can be slow to list things while links come and go.
func (s *Segment) sync(force bool) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	networks := slices.Collect(maps.Values(s.networks))
	endpoints := slices.Collect(maps.Values(s.endpoints))
	s.mu.Unlock()
	var routes []Route
	known := topology.Unknown
	s.Topology.Read(func(t *topology.Topology, k topology.Knowledge) {
		known = k
		routes = plan(s.Host, networks, endpoints, t)
	})
	if known == topology.Unknown {
		// What an earlier run left in the kernel is better than nothing.
		return nil
	}
	beyond := slices.DeleteFunc(slices.Clone(routes), func(r Route) bool { return r.Target == ToLink })
	if !force && slices.Equal(beyond, s.applied) {
		return nil
	}
	var errs []error
	if force {
		for _, n := range networks {
			errs = append(errs, s.addGateway(n.Gateway))
		}
	}
	want, err := s.resolve(routes)
	errs = append(errs, err)
	if want != nil {
		errs = append(errs, s.applyRoutes(want, s.keep(routes, networks, known)))
	}
	if err := errors.Join(errs...); err != nil {
		s.applied = nil
		return err
	}
	s.applied = beyond
	return nil
}

// way is a carrier to a host.
type way struct{ carrier, host string }

// peersOf lists, for each carrier, the hosts that routes lead to by it.
func peersOf(routes []Route) map[string][]carrier.Peer {
	all := map[way]*carrier.Peer{}
	for _, r := range routes {
		if r.Target != ToHost {
			continue
		}
		w := way{r.Carrier, r.Host}
		if all[w] == nil {
			all[w] = &carrier.Peer{Host: r.Host, Address: r.Via}
		}
		all[w].Prefixes = append(all[w].Prefixes, r.Dst)
	}
	peers := map[string][]carrier.Peer{}
	for w, p := range all {
		peers[w.carrier] = append(peers[w.carrier], *p)
	}
	return peers
}

// hops asks every carrier for the way to its peers. Those that have none are
// left out and reported.
func (s *Segment) hops(peers map[string][]carrier.Peer) (map[way]carrier.Hop, error) {
	hops, errs := map[way]carrier.Hop{}, []error(nil)
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
func (s *Segment) resolve(routes []Route) (map[netip.Prefix]*netlink.Route, error) {
	hops, unreachable := s.hops(peersOf(routes))
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
	for _, r := range routes {
		switch r.Target {
		case Nowhere:
			want[r.Dst] = &netlink.Route{
				Dst: ipNet(r.Dst), Type: unix.RTN_UNREACHABLE, Protocol: Protocol, Priority: Metric, Table: unix.RT_TABLE_MAIN,
			}
		case ToLink:
			if i, ok := links[r.Link]; ok {
				want[r.Dst] = linkRoute(r.Dst, i, r.Source)
			}
		case ToHost:
			if h, ok := hops[way{r.Carrier, r.Host}]; ok {
				want[r.Dst] = hopRoute(r.Dst, h)
			}
		}
	}
	return want, unreachable
}

func hopRoute(dst netip.Prefix, h carrier.Hop) *netlink.Route {
	r := &netlink.Route{
		Dst: ipNet(dst), LinkIndex: h.Link, Type: unix.RTN_UNICAST,
		Protocol: Protocol, Priority: Metric, Table: unix.RT_TABLE_MAIN,
	}
	if h.Gateway.IsValid() {
		r.Gw = h.Gateway.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if h.OnLink {
		r.SetFlag(netlink.FLAG_ONLINK)
	}
	return r
}

// keep tells which of the kernel's routes that are not wanted are left as they
// are: those that are planned but have no way at present, as the reason may be
// a passing one; those of endpoints attached since; and while etcd has not been heard of, all that are within the
// networks here, as an earlier run may have known more.
func (s *Segment) keep(planned []Route, networks []segment.Network, known topology.Knowledge) func(netip.Prefix) bool {
	in := map[netip.Prefix]bool{}
	for _, r := range planned {
		in[r.Dst] = true
	}
	return func(dst netip.Prefix) bool {
		if in[dst] || s.local(dst) {
			return true
		}
		return known != topology.Followed && slices.ContainsFunc(networks, func(n segment.Network) bool {
			return n.Subnet.Contains(dst.Addr()) && n.Subnet.Bits() < dst.Bits()
		})
	}
}

// local reports whether a destination is an endpoint's that is attached now.
func (s *Segment) local(dst netip.Prefix) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !dst.IsSingleIP() {
		return false
	}
	for _, e := range s.endpoints {
		if e.Address.Addr() == dst.Addr() {
			return true
		}
	}
	return false
}

// applyRoutes makes the kernel's routes of our protocol those that are wanted.
func (s *Segment) applyRoutes(want map[netip.Prefix]*netlink.Route, keep func(netip.Prefix) bool) error {
	have, err := Routes(s.Handle)
	if err != nil {
		return err
	}
	var errs []error
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
		if err := s.Handle.RouteDel(&have[i]); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", have[i].Dst, err))
		}
	}
	for dst, r := range want {
		// The link of an endpoint detached since may be gone.
		if same[dst] {
			continue
		}
		if err := s.Handle.RouteReplace(r); err != nil && (!dst.IsSingleIP() || s.local(dst) || r.Gw != nil) {
			errs = append(errs, fmt.Errorf("set route to %s: %w", dst, err))
		}
	}
	return errors.Join(errs...)
}

// Routes lists the routes that bear our mark.
func Routes(h *netlink.Handle) ([]netlink.Route, error) {
	f := &netlink.Route{Protocol: Protocol, Table: unix.RT_TABLE_MAIN}
	// A dump that changes underneath is repeated; a burst of starts is short.
	for try := 0; ; try++ {
		have, err := h.RouteListFiltered(netlink.FAMILY_V4, f, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 5 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		return have, nil
	}
}

func equal(a, b *netlink.Route) bool {
	return a.Type == b.Type && a.LinkIndex == b.LinkIndex && a.Gw.Equal(b.Gw) || a.Type == unix.RTN_UNREACHABLE && b.Type == unix.RTN_UNREACHABLE
}

func prefix(n interface {
	String() string
}) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(n.String())
	return p, err == nil
}
