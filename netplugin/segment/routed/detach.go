package routed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/segment"
)

// Detach forgets the endpoint and removes its link aside. Its route goes with
// the link, unless another endpoint has taken the address over.
func (s *Segment) Detach(e segment.Endpoint) {
	s.mu.Lock()
	delete(s.endpoints, e.ID)
	s.mu.Unlock()
	s.removeLink(segment.LinkName(e.ID))
}

// removeLink removes a link in the background, trying again until it is gone.
func (s *Segment) removeLink(name string) {
	s.mu.Lock()
	busy := s.detaching[name]
	s.detaching[name] = true
	s.mu.Unlock()
	if busy {
		return
	}
	go func() {
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			err := s.Handle.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}})
			if err == nil || missing(err) {
				break
			}
			s.Log.Warn("link not removed, trying again", "link", name, "error", err)
			time.Sleep(wait) //nolint:forbidigo // the kernel does not say when it will let go of a link
		}
		s.mu.Lock()
		delete(s.detaching, name)
		s.mu.Unlock()
	}()
}

func missing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, syscall.ENODEV)
}

// addGateway makes a gateway's address one of the host's own.
func (s *Segment) addGateway(a netip.Addr) error {
	lo, err := s.Handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := s.Handle.AddrAdd(lo, gatewayAddr(a)); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("add gateway address %s: %w", a, err)
	}
	return nil
}

func (s *Segment) removeGateway(a netip.Addr) error {
	lo, err := s.Handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := s.Handle.AddrDel(lo, gatewayAddr(a)); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
		return fmt.Errorf("remove gateway address %s: %w", a, err)
	}
	return nil
}

// gatewayAddr has host scope: the kernel does not choose it as the source of
// anything that goes elsewhere.
func gatewayAddr(a netip.Addr) *netlink.Addr {
	return &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(32, 32)},
		Label: AddressLabel, Scope: int(netlink.SCOPE_HOST),
	}
}
