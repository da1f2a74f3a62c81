package ipam

import (
	"net/netip"
	"time"
)

// Lend gives one address of an owned block to another host, until it is
// returned. Lending it to the same host again is no error; otherwise it
// returns what [Share.Take] does.
func (s *Share) Lend(a netip.Addr, to string, now time.Time) error {
	if sl, err := s.slot(a); err == nil && sl.state == slotLent && sl.name == to {
		return nil
	}
	if err := s.Take(a, to, now); err != nil {
		return err
	}
	s.RestoreLent(a, to, now)
	return nil
}

// RestoreLent makes an address lent whatever it was. It does nothing when the
// share does not own the address's block.
func (s *Share) RestoreLent(a netip.Addr, to string, at time.Time) {
	sl, err := s.slot(a)
	if err != nil {
		return
	}
	s.vacate(sl)
	sl.unlink()
	s.forget(sl)
	sl.state, sl.name, sl.at = slotLent, to, at
	sl.block.held++
}

// Return takes a lent address back and reports whether it was lent.
func (s *Share) Return(a netip.Addr, now time.Time) bool {
	sl, err := s.slot(a)
	if err != nil || sl.state != slotLent {
		return false
	}
	sl.name = ""
	s.drop(sl, now)
	return true
}

// Lent is the host that an address is lent to; ok is false when it is not.
func (s *Share) Lent(a netip.Addr) (host string, ok bool) {
	sl, err := s.slot(a)
	if err != nil || sl.state != slotLent {
		return "", false
	}
	return sl.name, true
}

// EachLent calls f for each lent address, in no order; Name is the host.
func (s *Share) EachLent(f func(Held)) { s.each(slotLent, f) }
