package routed

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addGateway makes a gateway's address one of the host's own. The kernel does
// not choose it as the source of anything that goes elsewhere: it has host
// scope, or is deprecated where it is IPv6, which knows no such scope.
func (s *Segment) addGateway(a netip.Addr) error {
	x := loopbackAddr(a)
	if a.Is4() {
		x.Scope = int(netlink.SCOPE_HOST)
	} else {
		x.ValidLft, x.PreferedLft = math.MaxUint32, 0
	}
	return s.addAddress(a, x)
}

// addMachine makes the host's own address on a network one of its own.
func (s *Segment) addMachine(a netip.Addr) error {
	return s.addAddress(a, loopbackAddr(a))
}

func (s *Segment) addAddress(a netip.Addr, x *netlink.Addr) error {
	lo, err := s.Handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := s.Handle.AddrAdd(lo, x); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("add address %s: %w", a, err)
	}
	return nil
}

func (s *Segment) removeAddress(a netip.Addr) error {
	lo, err := s.Handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := s.Handle.AddrDel(lo, loopbackAddr(a)); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s: %w", a, err)
	}
	return nil
}

// loopbackAddr is an address that the host answers for on all its links.
func loopbackAddr(a netip.Addr) *netlink.Addr {
	x := &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}}
	if a.Is4() {
		x.Label = AddressLabel
	} else {
		x.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
	}
	return x
}
