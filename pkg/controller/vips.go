package controller

import (
	"cmp"
	"net/netip"
	"slices"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// serviceIn names a service of an application in one network.
type serviceIn struct{ network, app, service string }

// wantedServices lists the services of releases that get an address, in order,
// each once. rooms says how many addresses the small ones of networks can
// spare, beside those for the replicas.
func wantedServices(releases []*record.Release, networks map[string]record.Network) []serviceIn {
	need := map[string]int{} // replicas by network
	var all []serviceIn
	for _, r := range releases {
		for _, e := range r.Application.Services() {
			for _, a := range e.Service.Networks {
				id := r.Networks[a.Network]
				need[id] += e.Service.Replicas
				if n, ok := networks[id]; ok && balanced(n) && e.Service.EndpointMode != model.EndpointDNSRR {
					all = append(all, serviceIn{id, r.App, e.ID})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b serviceIn) int {
		return cmp.Or(cmp.Compare(a.network, b.network), cmp.Compare(a.app, b.app), cmp.Compare(a.service, b.service))
	})
	all = slices.Compact(all)
	given := map[string]int{}
	return slices.DeleteFunc(all, func(s serviceIn) bool {
		room := spare(networks[s.network], need[s.network])
		given[s.network]++
		return given[s.network] > room
	})
}

// balanced reports whether hosts can balance a network's connections: those of
// networks that Clocker carries itself pass the packet filter of the host that
// they come from and come back there.
func balanced(n record.Network) bool { return n.Driver == "" || n.Driver == ourDriver }

// smallSubnet is the prefix length from which on the addresses of an IPv4
// network are few: blocks are so small there that one for services is no small
// part of it.
const smallSubnet = 26

// spare is how many services a network has addresses for when so many replicas
// must find one: containers come first.
func spare(n record.Network, replicas int) int {
	const many = 1 << 20
	p, err := netip.ParsePrefix(n.Subnet)
	if err != nil || p.Bits() < smallSubnet {
		return many
	}
	// The network's, the broadcast, and the gateway's are nobody's.
	return 1<<(32-p.Bits()) - 3 - len(n.Reserved) - replicas
}

// addressPlan is what a network's services need: whose addresses are given
// back, who gets which, which block is claimed for them, and which are no
// longer needed.
type addressPlan struct {
	remove []string // addresses, as in keys
	add    map[string]record.Service
	claim  []netip.Prefix
	free   []netip.Prefix
	// without are the services for which there is no address left.
	without []serviceIn
}

// holdings is what a network has.
type holdings struct {
	network  string
	layouts  [2]*ipam.Layout // IPv4, IPv6; nil without
	services map[string]record.Service
	blocks   map[netip.Prefix]bool // true: for services
}

// planAddresses works out how a network comes to what is wanted of it. A
// service that has an address keeps it.
func planAddresses(h holdings, want []serviceIn) addressPlan {
	p := addressPlan{add: map[string]record.Service{}}
	used, has := map[netip.Addr]bool{}, map[serviceIn]bool{}
	for key, s := range h.services {
		id := serviceIn{h.network, s.App, s.Service}
		if !slices.Contains(want, id) || has[id] {
			p.remove = append(p.remove, key)
			continue
		}
		has[id] = true
		for _, text := range []string{s.Address, s.Address6} {
			if a, err := netip.ParseAddr(text); err == nil {
				used[a] = true
			}
		}
	}
	slices.Sort(p.remove)
	ours := map[netip.Prefix]bool{}
	for b, services := range h.blocks {
		if services {
			ours[b] = true
		}
	}
	for _, id := range want {
		if has[id] {
			continue
		}
		s := record.Service{App: id.app, Service: id.service}
		key := ""
		for i, text := range []*string{&s.Address, &s.Address6} {
			if h.layouts[i] == nil {
				continue
			}
			a := h.pick(i, ours, used, &p)
			if !a.IsValid() {
				continue
			}
			used[a], *text = true, a.String()
			key = cmp.Or(key, *text)
		}
		if key == "" {
			p.without = append(p.without, id)
			continue
		}
		p.add[key] = s
	}
	for b := range ours {
		inUse := false
		for a := range used {
			inUse = inUse || b.Contains(a)
		}
		if !inUse && h.blocks[b] {
			p.free = append(p.free, b)
		}
	}
	return p
}

// pick finds a free address of a family in blocks for services, claiming one
// more when they are full. It is not valid when there is none.
func (h holdings) pick(family int, ours map[netip.Prefix]bool, used map[netip.Addr]bool, p *addressPlan) netip.Addr {
	l := h.layouts[family]
	sorted := slices.SortedFunc(mapKeys(ours), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for _, b := range sorted {
		if !l.Subnet().Contains(b.Addr()) {
			continue
		}
		if a := firstFree(l, b, used); a.IsValid() {
			return a
		}
	}
	taken := ipam.NewBitmap(l.Count())
	for _, blocks := range []map[netip.Prefix]bool{h.blocks, ours} {
		for b := range blocks {
			if i, err := l.Index(b.Addr()); err == nil {
				taken.Set(i)
			}
		}
	}
	for _, i := range l.Candidates("services", taken, 4) {
		b := l.Block(i)
		if a := firstFree(l, b, used); a.IsValid() {
			ours[b] = true
			p.claim = append(p.claim, b)
			return a
		}
	}
	return netip.Addr{}
}

func firstFree(l *ipam.Layout, b netip.Prefix, used map[netip.Addr]bool) netip.Addr {
	for a := b.Addr(); b.Contains(a); a = a.Next() {
		if _, reserved := l.Reserved(a); !reserved && !used[a] {
			return a
		}
	}
	return netip.Addr{}
}
