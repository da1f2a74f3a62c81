package underlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// Link is the interface that has a host's underlay address.
type Link struct {
	Index int
	Name  string
	// MTU is in bytes.
	MTU int
	MAC net.HardwareAddr
	// LinkLocal is its IPv6 address in fe80::/10, not valid when it has none.
	LinkLocal netip.Addr
	// Prefixes are those of its addresses, without link-local ones, sorted.
	Prefixes []netip.Prefix
}

// ErrNoLink means that no interface has the host's underlay address now.
var ErrNoLink = errors.New("no interface has the host's address")

// Find looks for the interface with the address. The error is [ErrNoLink] when
// there is none.
func Find(h *netlink.Handle, address netip.Addr) (Link, error) {
	addrs, err := Whole(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return Link{}, fmt.Errorf("list addresses: %w", err)
	}
	l := Link{}
	for _, a := range addrs {
		if ip, ok := addrOf(a.IP); ok && ip == address {
			l.Index = a.LinkIndex
		}
	}
	if l.Index == 0 {
		return Link{}, fmt.Errorf("find underlay: %w %s", ErrNoLink, address)
	}
	dev, err := h.LinkByIndex(l.Index)
	if err != nil {
		return Link{}, fmt.Errorf("find underlay: %w", err)
	}
	l.Name, l.MTU, l.MAC = dev.Attrs().Name, dev.Attrs().MTU, dev.Attrs().HardwareAddr
	for _, a := range addrs {
		ip, ok := addrOf(a.IP)
		if !ok || a.LinkIndex != l.Index {
			continue
		}
		if ip.IsLinkLocalUnicast() {
			if ip.Is6() && !l.LinkLocal.IsValid() {
				l.LinkLocal = ip
			}
			continue
		}
		ones, _ := a.Mask.Size()
		l.Prefixes = append(l.Prefixes, netip.PrefixFrom(ip, ones).Masked())
	}
	slices.SortFunc(l.Prefixes, comparePrefixes)
	l.Prefixes = slices.Compact(l.Prefixes)
	return l, nil
}

// Whole reads a list from the kernel, again if it changed meanwhile.
func Whole[T any](list func() (T, error)) (T, error) {
	for try := 0; ; try++ {
		v, err := list()
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < 5 {
			continue
		}
		return v, err
	}
}

func addrOf(ip net.IP) (netip.Addr, bool) {
	a, ok := netip.AddrFromSlice(ip)
	return a.Unmap(), ok
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
