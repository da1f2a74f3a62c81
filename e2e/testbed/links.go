package testbed

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// link is one of a testbed's links: a bridge of the hub with a subnet of each
// family. Hosts on different links reach each other through the hub, which
// forwards between its bridges as a router does.
type link struct {
	Index  int
	Bridge string
	// Subnet is a /24, Subnet6 a /64.
	Subnet  string
	Subnet6 netip.Prefix
}

// links are the state's links, the first one first.
func (s *state) links() []link {
	all := []link{newLink(0, s.Subnet)}
	if s.SubnetB != "" {
		all = append(all, newLink(1, s.SubnetB))
	}
	return all
}

func newLink(index int, subnet string) link {
	return link{Index: index, Bridge: "br" + strconv.Itoa(index), Subnet: subnet, Subnet6: subnet6(subnet)}
}

// linkOf is the link a host is on: odd hosts (h1, h3) are on the first, even
// ones on the second, where there is one.
func (s *state) linkOf(n int) link {
	links := s.links()
	return links[(n-1)%len(links)]
}

// linkAt is the link whose subnet holds the address.
func (s *state) linkAt(a netip.Addr) link {
	for _, l := range s.links() {
		if netip.MustParsePrefix(l.Subnet).Contains(a) {
			return l
		}
	}
	return s.links()[0]
}

// subnet6 is the unique local /64 (RFC 4193) that goes with a /24: the bytes
// of the one are in the other, so that testbeds differ in both.
func subnet6(subnet string) netip.Prefix {
	b := netip.MustParsePrefix(subnet).Addr().As4()
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0xcb, 0x74, 0x62, b[0], b[1], b[2], 0}), 64)
}

// address6 is the address of a machine in its link's IPv6 subnet, with the
// last byte of its IPv4 address.
func address6(a netip.Addr) netip.Addr {
	b := a.As4()
	six := subnet6(netip.PrefixFrom(a, 24).Masked().String()).Addr().As16()
	six[15] = b[3]
	return netip.AddrFrom16(six)
}

// linkLocal is the link-local address that follows from a hardware address
// (RFC 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5],
	})
}

// configure gives a link its addresses on the testbed's link and brings it up.
// IPv6 addresses are ready at once: nobody else can have them, so none is
// looked for.
func configure(h *netlink.Handle, name string, a netip.Addr) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := h.LinkSetIP6AddrGenMode(l, nl6None); err != nil {
		return fmt.Errorf("set up IPv6 of %s: %w", name, err)
	}
	for _, p := range []netip.Prefix{
		netip.PrefixFrom(a, 24), netip.PrefixFrom(address6(a), 64), netip.PrefixFrom(linkLocal(hardwareAddr(a)), 64),
	} {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("add address to %s: %w", name, err)
		}
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	return nil
}

// nl6None makes the kernel generate no link-local address by itself
// (IN6_ADDR_GEN_MODE_NONE of linux/if_link.h).
const nl6None = 1

// routeBeyond adds the default routes to the hub, of both families.
func routeBeyond(h *netlink.Handle, l link) error {
	hub := octet(l.Subnet, hubOctet)
	for _, gw := range []netip.Addr{hub, address6(hub)} {
		if err := h.RouteAdd(&netlink.Route{Gw: gw.AsSlice()}); err != nil {
			return fmt.Errorf("add route: %w", err)
		}
	}
	return nil
}

// SetMTU changes the MTU of a host's link to its switch, in bytes, on both
// ends. It holds over restarts; 0 is 1500 again.
func (h *Host) SetMTU(bytes int) error {
	err := h.bed.update(func(s *state) error {
		n := s.find(h.Name)
		if n == nil {
			return fmt.Errorf("not in testbed %s", s.Name)
		}
		n.MTU = bytes
		if !n.Proc.alive() {
			return nil
		}
		return setMTU(s.Hub.Proc.PID, n.Proc.PID, h.Name, bytes)
	})
	if err != nil {
		return fmt.Errorf("set MTU of %s: %w", h.Name, err)
	}
	return nil
}

func setMTU(hubPID, pid int, name string, bytes int) error {
	if bytes == 0 {
		bytes = 1500
	}
	for _, end := range []struct {
		pid  int
		name string
	}{{hubPID, name}, {pid, "eth0"}} {
		h, ns, err := within(end.pid)
		if err != nil {
			return err
		}
		l, err := h.LinkByName(end.name)
		if err == nil {
			err = h.LinkSetMTU(l, bytes)
		}
		h.Close()
		ns.Close()
		if err != nil {
			return fmt.Errorf("set MTU of %s: %w", end.name, err)
		}
	}
	return nil
}
