package lb

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/netplugin/nft"
)

// change is what makes the table of one settled state that of another. whole
// says that the table must be replaced instead.
func change(had, want State) (c nft.Change, whole bool) {
	chains, former := want.chains(), had.chains()
	for name, rules := range chains {
		old, ok := former[name]
		if !ok {
			c.AddChains = append(c.AddChains, nft.Chain{Name: name, Rules: rules})
		} else if !slices.EqualFunc(old, rules, func(a, b nft.Rule) bool { return a.String() == b.String() }) {
			return nft.Change{}, true
		}
	}
	for name := range former {
		if _, ok := chains[name]; !ok {
			c.RemoveChains = append(c.RemoveChains, nft.Chain{Name: name})
		}
	}
	if !slices.Equal(had.Fleet, want.Fleet) {
		for _, s := range Render(State{Fleet: want.Fleet}).Sets {
			if s.Interval {
				c.Replace = append(c.Replace, s)
			}
		}
	}
	for a, v := range had.Services {
		if now := want.Services[a]; now.Network != v.Network || !slices.Equal(now.Replicas, v.Replicas) {
			c.Remove = append(c.Remove, v.elements(a)...)
		}
	}
	for a, v := range want.Services {
		if old, ok := had.Services[a]; !ok || old.Network != v.Network || !slices.Equal(old.Replicas, v.Replicas) {
			c.Add = append(c.Add, v.elements(a)...)
		}
	}
	for s, p := range had.Ports {
		if now, ok := want.Ports[s]; !ok || !now.same(p) {
			c.Remove = append(c.Remove, p.elements(s)...)
		}
	}
	for s, p := range want.Ports {
		if old, ok := had.Ports[s]; !ok || !old.same(p) {
			c.Add = append(c.Add, p.elements(s)...)
		}
	}
	c.Remove = append(append(c.Remove, missing(had.Local, want.Local, selfElement)...), missing(had.Hosts, want.Hosts, hostElement)...)
	c.Add = append(append(c.Add, missing(want.Local, had.Local, selfElement)...), missing(want.Hosts, had.Hosts, hostElement)...)
	c.Remove, c.Add = without(c.Remove, c.Add), without(c.Add, c.Remove)
	return c, false
}

// widens reports whether connections of a network are translated that were not
// in the state before.
func widens(had, want State) bool {
	for id := range want.Networks {
		if _, ok := had.Networks[id]; !ok {
			return true
		}
	}
	balanced := map[string]bool{}
	for _, p := range had.Ports {
		balanced[p.Network] = true
	}
	for _, p := range want.Ports {
		if !balanced[p.Network] {
			return true
		}
	}
	return false
}

// adds reports whether connections may go to a replica that they did not go to
// in the state before.
func adds(had, want State) bool {
	for a, v := range want.Services {
		if more(v.Replicas, had.Services[a].Replicas) {
			return true
		}
	}
	for s, p := range want.Ports {
		if h := had.Ports[s]; more(p.Replicas, h.Replicas) || more(p.Replicas6, h.Replicas6) {
			return true
		}
	}
	return false
}

// more reports whether one of the addresses is not among those there were.
func more(now, were []netip.Addr) bool {
	return slices.ContainsFunc(now, func(a netip.Addr) bool { return !slices.Contains(were, a) })
}

func (p Port) same(q Port) bool {
	return p.Address == q.Address && p.Target == q.Target && p.Network == q.Network &&
		slices.Equal(p.Replicas, q.Replicas) && slices.Equal(p.Replicas6, q.Replicas6) &&
		slices.Equal(p.Here, q.Here) && slices.Equal(p.Here6, q.Here6) && maps.Equal(p.Hosts, q.Hosts)
}

// targets are the addresses that a port's connections are sent to, of replicas
// and of hosts.
func (p Port) targets() []netip.Addr {
	all := slices.Concat(p.Here, p.Here6, slices.Collect(maps.Values(p.Hosts)))
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// missing are the elements of those in a that are not in b.
func missing(a, b map[netip.Addr]bool, element func(netip.Addr) nft.Element) []nft.Element {
	var all []nft.Element
	for x := range a {
		if !b[x] {
			all = append(all, element(x))
		}
	}
	return all
}

// without is what is in a and not in b.
func without(a, b []nft.Element) []nft.Element {
	there := make(map[string]bool, len(b))
	for _, e := range b {
		there[identity(e)] = true
	}
	var all []nft.Element
	for _, e := range a {
		if !there[identity(e)] {
			all = append(all, e)
		}
	}
	return all
}

func identity(e nft.Element) string {
	return e.Set + " " + strings.Join(e.Key, ".") + ":" + strings.Join(e.Data, ".")
}

// Lost is a replica that a service's address, or a port of the hosts, no
// longer leads to.
type Lost struct {
	// Service is the address of the service; not valid where a Port led there.
	Service netip.Addr
	Port    Socket
	Network string
	// Replica is its address, or that of its host where a port of the hosts
	// led there.
	Replica netip.Addr
}

// lost are the replicas of one state that are not in another.
func lost(had, want State) []Lost {
	var all []Lost
	gone := func(l Lost, old, now []netip.Addr) {
		if slices.Equal(old, now) {
			return
		}
		left := make(map[netip.Addr]bool, len(now))
		for _, a := range now {
			left[a] = true
		}
		for _, a := range old {
			if !left[a] {
				l.Replica = a
				all = append(all, l)
			}
		}
	}
	for a, v := range had.Services {
		gone(Lost{Service: a, Network: v.Network}, v.Replicas, want.Services[a].Replicas)
	}
	for s, p := range had.Ports {
		gone(Lost{Port: s, Network: p.Network}, p.targets(), want.Ports[s].targets())
	}
	return all
}
