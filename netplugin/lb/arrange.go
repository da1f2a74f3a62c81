package lb

import (
	"maps"
	"net/netip"
)

// arrange puts the wanted replicas into slots: one that had a slot keeps it,
// unless the last must fill a gap. So one replica more or less changes at most
// two slots, however many there are.
func arrange(had, want []netip.Addr) []netip.Addr {
	wanted := make(map[netip.Addr]bool, len(want))
	for _, a := range want {
		wanted[a] = true
	}
	kept := make([]netip.Addr, 0, max(len(had), len(want)))
	var gaps []int
	for _, a := range had {
		if !wanted[a] {
			gaps = append(gaps, len(kept))
			a = netip.Addr{}
		}
		delete(wanted, a)
		kept = append(kept, a)
	}
	for _, a := range want {
		switch {
		case !wanted[a]: // it has its slot
		case len(gaps) > 0:
			kept[gaps[0]], gaps = a, gaps[1:]
		default:
			kept = append(kept, a)
		}
	}
	for i := len(gaps) - 1; i >= 0; i-- {
		last := len(kept) - 1
		kept[gaps[i]] = kept[last]
		kept = kept[:last]
	}
	return kept
}

// settle arranges all replicas of a state by the slots of the one before it.
func settle(had, want State) State {
	s := State{
		Networks: want.Networks, Local: want.Local, Hosts: want.Hosts, Fleet: want.Fleet,
		Services: maps.Clone(want.Services), Ports: maps.Clone(want.Ports),
	}
	for address, v := range s.Services {
		v.Replicas = arrange(had.Services[address].Replicas, v.Replicas)
		s.Services[address] = v
	}
	for socket, p := range s.Ports {
		p.Replicas = arrange(had.Ports[socket].Replicas, p.Replicas)
		p.Replicas6 = arrange(had.Ports[socket].Replicas6, p.Replicas6)
		p.Here = arrange(had.Ports[socket].Here, p.Here)
		p.Here6 = arrange(had.Ports[socket].Here6, p.Here6)
		s.Ports[socket] = p
	}
	return s
}
