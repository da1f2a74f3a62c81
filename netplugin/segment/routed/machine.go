package routed

import (
	"errors"
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/segment"
)

var _ segment.Machines = (*Segment)(nil)

// SetMachine gives the host addresses of its own on a network, from which it
// talks to the network's endpoints, wherever they are.
func (s *Segment) SetMachine(network string, addrs []netip.Addr) error {
	s.syncing.Lock()
	s.mu.Lock()
	old := s.machines[network]
	if len(addrs) == 0 {
		delete(s.machines, network)
	} else {
		s.machines[network] = slices.Clone(addrs)
	}
	s.mu.Unlock()
	var errs []error
	for _, a := range addrs {
		errs = append(errs, s.addMachine(a))
	}
	s.syncing.Unlock()
	// Routes are moved off an address before it goes: they would go with it.
	errs = append(errs, s.sync(true))
	for _, a := range old {
		if !slices.Contains(addrs, a) {
			errs = append(errs, s.removeAddress(a))
		}
	}
	return errors.Join(errs...)
}
