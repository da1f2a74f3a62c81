package redirect

import (
	"net/netip"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

// Route is one of the segment's routes as the kernel has it.
type Route struct {
	Dst  netip.Prefix
	Link int
	// Gateway is not valid where the destination is on the link.
	Gateway netip.Addr
	// MTU is that of the way in bytes where it is less than the link's, else 0.
	MTU int
	// Ethernet says that the link has hardware addresses and is no tunnel.
	Ethernet bool
}

// translated are the networks with packets that are translated on their way:
// those of virtual addresses and of ports that every host publishes.
func translated(t *topology.Topology) map[string]bool {
	all := map[string]bool{}
	for id, services := range t.Services {
		all[id] = all[id] || len(services) > 0
	}
	for _, p := range t.Published {
		all[p.Network] = true
	}
	return all
}

// plan works out what is redirected: to and from endpoints that publish no
// port, on networks whose packets nothing translates; by routes that take
// every packet as it is.
func plan(s policy.State, not map[string]bool, publishing map[string]bool, routes []Route) (ends []End, ways []Way, entries []int) {
	subnets := map[netip.Prefix]string{}
	for _, n := range s.Networks {
		if n.Bridge == "" && n.Subnet.IsValid() && !not[n.ID] {
			subnets[n.Subnet] = n.ID
		}
	}
	local := map[netip.Addr]int{}
	seen := map[int]bool{}
	for _, r := range routes {
		switch {
		case !r.Gateway.IsValid() && r.Dst.IsSingleIP():
			local[r.Dst.Addr()] = r.Link
		case r.Gateway.Is4() && r.Ethernet && r.MTU == 0:
			id := networkOf(subnets, r.Dst)
			if id == "" {
				continue
			}
			ways = append(ways, Way{Network: id, Dst: r.Dst, Link: r.Link, Gateway: r.Gateway})
			if !seen[r.Link] {
				seen[r.Link] = true
				entries = append(entries, r.Link)
			}
		}
	}
	for _, e := range s.Endpoints {
		link, ok := local[e.Address]
		if !ok || len(e.Ports) > 0 || publishing[e.Link] || networkOf(subnets, netip.PrefixFrom(e.Address, e.Address.BitLen())) != e.Network {
			continue
		}
		ends = append(ends, End{Network: e.Network, Address: e.Address, Link: link})
	}
	if len(ends) == 0 {
		return nil, nil, nil
	}
	return ends, ways, entries
}

// networkOf is the network with the subnet that a prefix is in, or "".
func networkOf(subnets map[netip.Prefix]string, p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		if id, ok := subnets[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
			return id
		}
	}
	return ""
}

// planFrames works out which ports and tunnels of bridges take part: those of
// networks whose packets nothing translates, and of endpoints that publish no
// port.
func planFrames(s policy.State, not map[string]bool, publishing map[string]bool, ports []segment.Port, tunnels []segment.Tunnel) ([]segment.Port, []segment.Tunnel) {
	var outPorts []segment.Port
	var outTunnels []segment.Tunnel
	known := map[string]bool{}
	for _, e := range s.Endpoints {
		known[e.Link] = len(e.Ports) == 0
	}
	for _, p := range ports {
		if known[p.Name] && !publishing[p.Name] && !not[p.Network] {
			outPorts = append(outPorts, p)
		}
	}
	for _, t := range tunnels {
		if !not[t.Network] {
			outTunnels = append(outTunnels, t)
		}
	}
	return outPorts, outTunnels
}
