package bridged

import (
	"fmt"
	"net/netip"

	"clocker.io/clocker/netplugin/segment"
)

var _ segment.Machines = (*Segment)(nil)

// SetMachine puts addresses of the host's own on a network's bridge. Bridges
// have the same hardware address everywhere, so that other hosts know the
// machine by one that follows from its address; frames to that are handed up
// as they come in.
func (s *Segment) SetMachine(id string, addrs []netip.Addr) error {
	s.mu.Lock()
	n := s.networks[id]
	s.mu.Unlock()
	if n == nil {
		if len(addrs) == 0 {
			return nil
		}
		return fmt.Errorf("put host on network %s: it is not on this host", id)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.machine = addrs
	if err := s.guard.put(segment.TunnelName(n.VNI), n.tunnelPort()); err != nil {
		return fmt.Errorf("put host on network %s: %w", id, err)
	}
	return s.makeDevices(n)
}

// tunnelPort is what the port to the other hosts may do. Callers hold n.mu.
func (n *network) tunnelPort() port {
	p := port{loud: n.Broadcast}
	for _, a := range n.machine {
		p.up = append(p.up, macOf(segment.MAC(a)))
	}
	return p
}

// own is the machine's address of a family, not valid when it has none.
func own(machine []netip.Addr, like netip.Addr) netip.Addr {
	for _, a := range machine {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}
