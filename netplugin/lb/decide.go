package lb

import (
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// owner names a service of the fleet.
type owner struct{ app, service string }

// place is where a replica is reached.
type place struct {
	host     string
	networks map[string]record.NamedAddress
}

// Decide works out what the host with the given id must do.
func Decide(t *topology.Topology, host string) State {
	s, replicas := NewState(), byService(t)
	for network, services := range t.Services {
		n, ok := t.Networks[network]
		if !ok {
			continue
		}
		s.Networks[network] = Network{From: callers(t, n), Gateways: gateways(n)}
		for _, v := range services {
			all := replicas[owner{v.App, v.Service}]
			for _, text := range []string{v.Address, v.Address6} {
				if a, err := netip.ParseAddr(text); err == nil {
					s.Services[a] = Service{Network: network, Replicas: s.find(all, network, host, a.Is4())}
				}
			}
		}
	}
	for _, p := range t.Published {
		if port, ok := s.port(t, p, replicas[owner{p.App, p.Service}], host); ok {
			s.Ports[Socket{p.Protocol, p.HostPort}] = port
		}
	}
	s.Fleet = merge(t.Prefixes())
	for id, u := range t.Underlays {
		if a, err := netip.ParseAddr(u.Address); err == nil && id != host {
			s.Hosts[a] = true
		}
	}
	return s
}

// port works out where a port leads: to replicas on this host, and to the
// hosts of the others. A replica on a host whose address is of the other
// family cannot be reached so.
func (s State) port(t *topology.Topology, p record.Published, all []place, host string) (Port, bool) {
	address, err := netip.ParseAddr(p.HostIP)
	if p.HostIP != "" && err != nil {
		return Port{}, false // nobody has that address
	}
	if address.IsUnspecified() {
		address = netip.Addr{}
	}
	out := Port{Address: address, Network: p.Network, Target: p.Port, Hosts: map[netip.Addr]netip.Addr{}}
	for _, half := range []struct{ replicas, here *[]netip.Addr }{{&out.Replicas, &out.Here}, {&out.Replicas6, &out.Here6}} {
		v4 := half.here == &out.Here
		for _, r := range all {
			for _, a := range s.find([]place{r}, p.Network, host, v4) {
				if r.host == host {
					*half.here, *half.replicas = append(*half.here, a), append(*half.replicas, a)
				} else if u, err := netip.ParseAddr(t.Underlays[r.host].Address); err == nil && u.Is4() == v4 {
					out.Hosts[a] = u
					*half.replicas = append(*half.replicas, a)
				}
			}
		}
		for _, list := range []*[]netip.Addr{half.here, half.replicas} {
			slices.SortFunc(*list, netip.Addr.Compare)
			*list = slices.Compact(*list)
		}
	}
	return out, true
}

// byService sorts the replicas that can be reached.
func byService(t *topology.Topology) map[owner][]place {
	if len(t.Services)+len(t.Published) == 0 {
		return nil
	}
	all := map[owner][]place{}
	for host, tasks := range t.Names {
		for _, r := range tasks {
			o := owner{r.App, r.Service}
			all[o] = append(all[o], place{host, r.Networks})
		}
	}
	return all
}

// find lists the addresses of replicas in a network in order, each once, and
// remembers those on the host.
func (s State) find(all []place, network, host string, v4 bool) []netip.Addr {
	var found []netip.Addr
	for _, p := range all {
		text := p.networks[network].Address6
		if v4 {
			text = p.networks[network].Address
		}
		text, _, _ = strings.Cut(text, "/")
		a, err := netip.ParseAddr(text)
		if err != nil || a.Is4() != v4 {
			continue
		}
		found = append(found, a)
		if p.host == host {
			s.Local[a] = true
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return slices.Compact(found)
}

// callers are the ranges whose packets to a network's services are translated:
// its own subnets, and those that a rule lets in. What they may send there is
// decided after that, by package policy.
func callers(t *topology.Topology, n record.Network) []netip.Prefix {
	own := subnets(n)
	all := slices.Clone(own)
	for _, r := range t.Rules {
		if r.To != n.ID {
			continue
		}
		from := subnets(t.Networks[r.From])
		if p, err := netip.ParsePrefix(r.From); err == nil {
			from = append(from, p.Masked())
		}
		for _, p := range from {
			if slices.ContainsFunc(own, func(o netip.Prefix) bool { return o.Addr().Is4() == p.Addr().Is4() }) {
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(all)
}

func gateways(n record.Network) []netip.Addr {
	var all []netip.Addr
	for _, text := range []string{n.Gateway, n.Gateway6} {
		if a, err := netip.ParseAddr(text); err == nil {
			all = append(all, a)
		}
	}
	return all
}

func subnets(n record.Network) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range []string{n.Subnet, n.Subnet6} {
		if p, err := netip.ParsePrefix(text); err == nil {
			all = append(all, p.Masked())
		}
	}
	return all
}

// merge removes prefixes that others contain, and sorts.
func merge(ps []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ps, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, p := range ps {
		if len(out) == 0 || !out[len(out)-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}
