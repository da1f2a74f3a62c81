package control

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/lb"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

// view says what this host has to do with a packet.
func (s *Server) view(q hostview.Question) hostview.View {
	state := s.Filter.State()
	v := hostview.View{Host: s.Host}
	v.From, v.To = s.local(state, q.From), s.local(state, q.To)
	route := s.route(q.To)
	v.Route = &route
	fromHere := v.From != nil || s.route(q.From).Kind == "local"
	p := packet{Question: q, toHost: route.Kind == "local", fromHost: v.From == nil && fromHere}
	s.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) {
		p.title = func(id string) string { return networkTitle(t.Networks[id], id) }
		p.record = func(id string) record.Network { return t.Networks[id] }
		if service, ok := lb.Decide(t, s.Host).Services[q.To]; ok {
			v.Balanced, v.Backends = true, slices.Clone(service.Replicas)
		}
		if fromHere {
			v.Way = s.wayTo(t, q.To)
		}
		v.Leave, v.Enter = p.leave(state), p.enter(state)
	})
	return v
}

func networkTitle(n record.Network, id string) string {
	if n.Name != "" {
		return n.Name
	}
	return id
}

// local is the host's endpoint with an address, or its own place on a network.
func (s *Server) local(state policy.State, a netip.Addr) *hostview.Endpoint {
	for _, e := range state.Endpoints {
		if e.Address == a || e.Address6 == a {
			x := s.endpoint(e)
			return &x
		}
	}
	for _, m := range state.Fleet.Machines {
		if slices.Contains(m.Addresses, a) {
			return &hostview.Endpoint{ID: "host", Addresses: m.Addresses, Link: "lo"}
		}
	}
	return nil
}

// wayTo is the way to the host that has an address; nil when it is here, or no
// host has it.
func (s *Server) wayTo(t *topology.Topology, a netip.Addr) *hostview.Way {
	for id, n := range t.Networks {
		host := ""
		if e, ok := t.Endpoints[id][a]; ok {
			host = e.Host
		} else {
			for p, b := range t.Blocks[id] {
				if p.Contains(a) {
					host = b.Host
				}
			}
		}
		if host == "" || host == s.Host {
			continue
		}
		u, ok := t.Underlays[host]
		switch {
		case !ok:
			return &hostview.Way{Host: host, Carrier: n.Carrier, Problem: "the host has not said how it is reached: its network plugin has not been up"}
		case n.Driver != "":
			return &hostview.Way{Host: host, Address: u.Address, Carrier: n.Driver}
		case n.Segment == "bridged":
			// The segment's own tunnels, which its checks compare.
			return &hostview.Way{Host: host, Address: u.Address, Carrier: "vxlan"}
		}
		name := n.Carrier
		if name == "" {
			name = "direct"
		}
		w := s.way(name, u)
		return &w
	}
	return nil
}

// route asks the kernel where a packet to an address goes.
func (s *Server) route(a netip.Addr) hostview.Route {
	rs, err := s.Kernel.RouteGetWithOptions(a.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
	switch {
	case errors.Is(err, unix.EHOSTUNREACH):
		return hostview.Route{Kind: "unreachable"}
	case errors.Is(err, unix.ENETUNREACH):
		return hostview.Route{Kind: "none"}
	case errors.Is(err, unix.EINVAL):
		return hostview.Route{Kind: "blackhole"}
	case err != nil:
		return hostview.Route{Error: err.Error()}
	case len(rs) == 0:
		return hostview.Route{Kind: "none"}
	}
	r := hostview.Route{Kind: routeKinds[rs[0].Type]}
	if r.Kind == "" {
		r.Kind = "none"
	}
	if rs[0].Dst != nil {
		r.Destination = rs[0].Dst.String()
	}
	if rs[0].Gw != nil {
		r.Gateway = rs[0].Gw.String()
	} else if via, ok := rs[0].Via.(*netlink.Via); ok {
		r.Gateway = via.Addr.String()
	}
	if l, err := s.Kernel.LinkByIndex(rs[0].LinkIndex); err == nil {
		r.Link = l.Attrs().Name
	}
	return r
}

var routeKinds = map[int]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_PROHIBIT: "prohibited",
}
