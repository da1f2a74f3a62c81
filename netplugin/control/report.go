package control

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

// report says what there is of the fleet's networks on the host.
func (s *Server) report() hostview.Report {
	state := s.Filter.State()
	r := hostview.Report{
		Host: s.Host, Version: s.Version, Networks: []hostview.Network{}, Endpoints: []hostview.Endpoint{}, Blocks: map[string][]netip.Prefix{},
	}
	var others []record.Underlay
	s.Topology.Read(func(t *topology.Topology, k topology.Knowledge) {
		r.Knowledge = knowledge(k)
		r.Underlay = t.Underlays[s.Host]
		for _, n := range state.Networks {
			x := t.Networks[n.ID]
			r.Networks = append(r.Networks, hostview.Network{ID: n.ID, Segment: x.Segment, Carrier: x.Carrier, MTU: x.MTU})
		}
		for network, blocks := range t.Blocks {
			for p, b := range blocks {
				if b.Host == s.Host {
					r.Blocks[network] = append(r.Blocks[network], p)
				}
			}
			slices.SortFunc(r.Blocks[network], func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		}
		for id, u := range t.Underlays {
			if id != s.Host {
				others = append(others, u)
			}
		}
	})
	slices.SortFunc(others, func(a, b record.Underlay) int { return cmp.Compare(a.Host, b.Host) })
	slices.SortFunc(r.Networks, func(a, b hostview.Network) int { return cmp.Compare(a.ID, b.ID) })
	for _, e := range state.Endpoints {
		r.Endpoints = append(r.Endpoints, s.endpoint(e))
	}
	slices.SortFunc(r.Endpoints, func(a, b hostview.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	used := map[string]bool{}
	for _, n := range r.Networks {
		if n.Segment != "bridged" && n.Carrier != "" {
			used[n.Carrier] = true
		}
	}
	for _, u := range others {
		for _, name := range slices.Sorted(maps.Keys(used)) {
			r.Ways = append(r.Ways, s.way(name, u))
		}
	}
	return r
}

func knowledge(k topology.Knowledge) string {
	switch k {
	case topology.Followed:
		return "followed"
	case topology.Remembered:
		return "remembered"
	}
	return "unknown"
}

// endpoint is a local endpoint with what is wrong with its link.
func (s *Server) endpoint(e policy.Endpoint) hostview.Endpoint {
	x := hostview.Endpoint{ID: e.Link, Network: e.Network, Link: e.Link}
	for _, a := range []netip.Addr{e.Address, e.Address6} {
		if a.IsValid() {
			x.Addresses = append(x.Addresses, a)
		}
	}
	l, err := s.Kernel.LinkByName(e.Link)
	switch {
	case err != nil:
		x.Problem = fmt.Sprintf("its link %s is gone", e.Link)
	case l.Attrs().Flags&net.FlagUp == 0:
		x.Problem = fmt.Sprintf("its link %s is down", e.Link)
	case l.Attrs().RawFlags&rawRunning == 0:
		x.Problem = fmt.Sprintf("the container's end of its link %s is down", e.Link)
	}
	return x
}

// rawRunning is IFF_RUNNING (netdevice(7)): the other end is up too.
const rawRunning = 0x40

// way is how another host is reached by a carrier.
func (s *Server) way(name string, u record.Underlay) hostview.Way {
	w := hostview.Way{Host: u.Host, Address: u.Address, Carrier: name}
	c, ok := s.Carriers[name]
	if !ok {
		w.Problem = "this version does not have that carrier"
		return w
	}
	p, err := carrier.PeerOf(u, nil)
	if err != nil {
		w.Problem = err.Error()
		return w
	}
	hop, err := c.Hop(p)
	if err != nil {
		w.Problem = err.Error()
		return w
	}
	w.MTU = hop.MTU
	if name == "auto" {
		w.Carrier = s.chosen(p, hop)
	}
	l, err := s.Kernel.LinkByIndex(hop.Link)
	switch {
	case err != nil:
		w.Problem = fmt.Sprintf("its interface is gone: %v", err)
	case l.Attrs().Flags&net.FlagUp == 0:
		w.Link, w.Problem = l.Attrs().Name, fmt.Sprintf("its interface %s is down", l.Attrs().Name)
	default:
		w.Link = l.Attrs().Name
	}
	return w
}

// chosen is the carrier that "auto" has chosen: the one with the same way.
func (s *Server) chosen(p carrier.Peer, hop carrier.Hop) string {
	for _, name := range slices.Sorted(maps.Keys(s.Carriers)) {
		if name == "auto" {
			continue
		}
		if h, err := s.Carriers[name].Hop(p); err == nil && h.Link == hop.Link {
			return name
		}
	}
	return "auto"
}
