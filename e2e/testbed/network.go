package testbed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Addresses of a testbed's /24: the machine itself, the hub, then the hosts.
const (
	machineOctet   = 1
	hubOctet       = 2
	firstHostOctet = 11
)

const (
	hubName     = "hub"
	machineName = "machine" // the hub's port towards the machine itself
)

// octet is the address in the subnet with the given last byte.
func octet(subnet string, last byte) netip.Addr {
	a := netip.MustParsePrefix(subnet).Addr().As4()
	a[3] = last
	return netip.AddrFrom4(a)
}

// hardwareAddr makes a stable, locally administered address, so that
// neighbours need not learn a restarted host anew.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0xcb, b[0], b[1], b[2], b[3]}
}

// freeSubnet picks the first /24 from 10.88.0.0 on that no route of the
// machine and no other testbed overlaps.
func freeSubnet(taken []string) (string, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return "", fmt.Errorf("list routes: %w", err)
	}
	var used []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(r.Dst.IP.To4()); ok {
			if ones, _ := r.Dst.Mask.Size(); ones > 0 {
				used = append(used, netip.PrefixFrom(a, ones))
			}
		}
	}
	for _, t := range taken {
		used = append(used, netip.MustParsePrefix(t))
	}
next:
	for i := range 256 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 88, byte(i), 0}), 24)
		for _, u := range used {
			if u.Overlaps(p) {
				continue next
			}
		}
		return p.String(), nil
	}
	return "", errors.New("pick subnet: all of 10.88.0.0/16 is in use")
}

// within opens a netlink handle in the network namespace of a process.
func within(pid int) (*netlink.Handle, netns.NsHandle, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, -1, fmt.Errorf("open network namespace of %d: %w", pid, err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		ns.Close()
		return nil, -1, fmt.Errorf("open network namespace of %d: %w", pid, err)
	}
	return h, ns, nil
}

// wireHub makes a bridge for each link in the hub's namespace and the veth pair
// that joins the first one to the machine's own.
func wireHub(pid int, bed string, links []link) error {
	h, ns, err := within(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	if err := loopback(h); err != nil {
		return err
	}
	for _, l := range links {
		snoop := false
		attrs := netlink.NewLinkAttrs()
		attrs.Name = l.Bridge
		attrs.HardwareAddr = hardwareAddr(octet(l.Subnet, hubOctet))
		br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snoop}
		if err := h.LinkAdd(br); err != nil {
			return fmt.Errorf("add bridge: %w", err)
		}
		if err := configure(h, l.Bridge, octet(l.Subnet, hubOctet)); err != nil {
			return err
		}
	}
	// Hosts route what is not theirs to the hub, which refuses it at once: no
	// test waits for the world, and none reaches it.
	for _, world := range []net.IPNet{
		{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, {IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)},
	} {
		if err := h.RouteAdd(&netlink.Route{Dst: &world, Type: unix.RTN_UNREACHABLE}); err != nil {
			return fmt.Errorf("add route: %w", err)
		}
	}
	addr := octet(links[0].Subnet, machineOctet)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = linkName(bed)
	attrs.HardwareAddr = hardwareAddr(addr)
	up := &netlink.Veth{LinkAttrs: attrs, PeerName: machineName, PeerNamespace: netlink.NsFd(int(ns))}
	if err := netlink.LinkAdd(up); err != nil {
		return fmt.Errorf("add link %s: %w", attrs.Name, err)
	}
	if err := plug(h, machineName, links[0].Bridge); err != nil {
		return err
	}
	here, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer here.Close()
	if err := configure(here, attrs.Name, addr); err != nil {
		return err
	}
	return routeToLinks(here, attrs.Name, links)
}

// routeToLinks lets the machine reach the links that it is not on. The routes
// end with the machine's link.
func routeToLinks(h *netlink.Handle, name string, links []link) error {
	own, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	hub := octet(links[0].Subnet, hubOctet)
	for _, l := range links[1:] {
		four, six := netip.MustParsePrefix(l.Subnet), l.Subnet6
		for _, r := range []struct {
			to netip.Prefix
			by netip.Addr
		}{{four, hub}, {six, address6(hub)}} {
			dst := &net.IPNet{IP: r.to.Addr().AsSlice(), Mask: net.CIDRMask(r.to.Bits(), r.to.Addr().BitLen())}
			if err := h.RouteAdd(&netlink.Route{LinkIndex: own.Attrs().Index, Dst: dst, Gw: r.by.AsSlice()}); err != nil {
				return fmt.Errorf("add route to %s: %w", r.to, err)
			}
		}
	}
	return nil
}

// wireHost links a host to its link's bridge. The hub's end has its name.
func wireHost(hubPID, pid int, name string, addr netip.Addr, l link) error {
	hub, hubNS, err := within(hubPID)
	if err != nil {
		return err
	}
	defer hubNS.Close()
	defer hub.Close()
	h, ns, err := within(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	if err := unplug(hub, name); err != nil { // a host that died by itself may have left it
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: "eth0",
		PeerHardwareAddr: hardwareAddr(addr), PeerNamespace: netlink.NsFd(int(ns)),
	}
	if err := hub.LinkAdd(pair); err != nil {
		return fmt.Errorf("add link of %s: %w", name, err)
	}
	if err := plug(hub, name, l.Bridge); err != nil {
		return err
	}
	if err := loopback(h); err != nil {
		return err
	}
	if err := configure(h, "eth0", addr); err != nil {
		return err
	}
	return routeBeyond(h, l)
}

func loopback(h *netlink.Handle) error {
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	return nil
}

// plug makes a link of the hub a port of one of its bridges.
func plug(h *netlink.Handle, name, bridge string) error {
	br, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	l, err := h.LinkByName(name)
	if err == nil {
		err = h.LinkSetMaster(l, br)
	}
	if err == nil {
		err = h.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("plug %s into bridge: %w", name, err)
	}
	return nil
}

// unplug removes a port of the hub, and with it the host's end at once.
func unplug(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("unplug %s: %w", name, err)
	}
	return nil
}

// unplugHost cuts a host off for good, before its processes are ended: a
// machine that loses power closes no connection.
func unplugHost(hubPID int, name string) error {
	h, ns, err := within(hubPID)
	if err != nil {
		return err
	}
	defer ns.Close()
	defer h.Close()
	return unplug(h, name)
}

// removeLink takes away the machine's end, should the hub have died without.
func removeLink(bed string) error {
	l, err := netlink.LinkByName(linkName(bed))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove link: %w", err)
	}
	return nil
}
