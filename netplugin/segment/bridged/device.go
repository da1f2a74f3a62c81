package bridged

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/segment"
)

// makeDevices makes the network's bridge and VXLAN device, or brings them to
// what they must be. Callers hold n.mu.
func (s *Segment) makeDevices(n *network) error {
	if n.Subnet6.IsValid() {
		if err := s.Forward6(); err != nil {
			return err
		}
	}
	bridge, fresh, err := s.bridge(n.Network, n.machine)
	if err != nil {
		return err
	}
	tunnel, freshTunnel, err := s.tunnel(n.Network, bridge)
	if err != nil {
		return err
	}
	if fresh || freshTunnel || bridge != n.bridge || tunnel != n.tunnel {
		n.forget()
	}
	n.bridge, n.tunnel = bridge, tunnel
	return s.guard.put(segment.TunnelName(n.VNI), n.tunnelPort())
}

// bridge makes the bridge, up, with the gateways on it.
func (s *Segment) bridge(n segment.Network, machine []netip.Addr) (index int, fresh bool, err error) {
	name, off := segment.BridgeName(n.VNI), false
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.Group, a.HardwareAddr = name, n.MTU, segment.BridgedMark, gatewayMAC.address()
	l, fresh, err := s.device(&netlink.Bridge{LinkAttrs: a, MulticastSnooping: &off}, func(l netlink.Link) bool { return l.Type() == "bridge" })
	if err != nil {
		return 0, false, err
	}
	index = l.Attrs().Index
	if l.Attrs().MTU != n.MTU {
		if err := s.Handle.LinkSetMTU(l, n.MTU); err != nil {
			return 0, false, fmt.Errorf("set MTU of %s: %w", name, err)
		}
	}
	if err := filterBridged(index); err != nil {
		return 0, false, fmt.Errorf("set up bridge %s: %w", name, err)
	}
	if err := s.prepareBridge(name, n.Subnet6.IsValid()); err != nil {
		return 0, false, err
	}
	if err := s.Handle.LinkSetUp(l); err != nil {
		return 0, false, fmt.Errorf("set bridge %s up: %w", name, err)
	}
	return index, fresh, s.gateways(l, n, machine)
}

// tunnel makes the VXLAN device, up, as a port of the bridge. One that differs
// in what cannot be changed is made anew.
func (s *Segment) tunnel(n segment.Network, bridge int) (index int, fresh bool, err error) {
	name := segment.TunnelName(n.VNI)
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.Group = name, n.MTU, segment.BridgedMark
	l, fresh, err := s.device(&netlink.Vxlan{
		LinkAttrs: a, VxlanId: n.VNI, SrcAddr: net.IP(s.Address.AsSlice()), Port: Port,
	}, func(l netlink.Link) bool {
		v, ok := l.(*netlink.Vxlan)
		from, _ := netip.AddrFromSlice(v.SrcAddr)
		return ok && v.VxlanId == n.VNI && v.Port == Port && from.Unmap() == s.Address
	})
	if err != nil {
		return 0, false, err
	}
	index = l.Attrs().Index
	if l.Attrs().MTU != n.MTU {
		if err := s.Handle.LinkSetMTU(l, n.MTU); err != nil {
			return 0, false, fmt.Errorf("set MTU of %s: %w", name, err)
		}
	}
	if err := s.setAll([][2]string{{"ipv6/conf/" + name + "/disable_ipv6", "1"}}); err != nil {
		return 0, false, err
	}
	if err := s.enslave(l, bridge, tunnelPort(n.Broadcast)); err != nil {
		return 0, false, err
	}
	return index, fresh, nil
}

// device makes a device, or finds the one that fits under its name. One of
// ours that does not fit is replaced, anybody else's refused.
func (s *Segment) device(want netlink.Link, fits func(netlink.Link) bool) (l netlink.Link, fresh bool, err error) {
	name := want.Attrs().Name
	for range 2 {
		l, err = s.Handle.LinkByName(name)
		if err != nil && !missing(err) {
			return nil, false, fmt.Errorf("find device %s: %w", name, err)
		}
		if err != nil {
			err = s.Handle.LinkAdd(want)
			if err == nil {
				return want, true, nil
			}
			if !errors.Is(err, syscall.EEXIST) {
				break
			}
			continue
		}
		if l.Attrs().Group != segment.BridgedMark {
			return nil, false, fmt.Errorf("make device: an interface %s exists that is not ours", name)
		}
		if fits(l) {
			return l, false, nil
		}
		if err := s.Handle.LinkDel(l); err != nil && !missing(err) {
			return nil, false, fmt.Errorf("replace device %s: %w", name, err)
		}
	}
	if errors.Is(err, syscall.EEXIST) && want.Type() == "vxlan" {
		err = fmt.Errorf("another VXLAN device of this host has the same number on the wire: %w", err)
	}
	return nil, false, fmt.Errorf("make device %s: %w", name, err)
}

// enslave makes a device a port of the bridge, up.
func (s *Segment) enslave(l netlink.Link, bridge int, settings []portSetting) error {
	name := l.Attrs().Name
	if l.Attrs().MasterIndex != bridge {
		if err := s.Handle.LinkSetMasterByIndex(l, bridge); err != nil {
			return fmt.Errorf("make %s a port: %w", name, err)
		}
	}
	if err := setPort(l.Attrs().Index, settings); err != nil {
		return fmt.Errorf("set up port %s: %w", name, err)
	}
	if s.Prepare != nil {
		if err := s.Prepare(l.Attrs().Index); err != nil {
			return err
		}
	}
	if err := s.Handle.LinkSetUp(l); err != nil {
		return fmt.Errorf("set port %s up: %w", name, err)
	}
	return nil
}

// gateways puts the gateways on the bridge, the host's own addresses if it has
// some, and the routes to the subnets. The routes are made apart from the
// addresses, so that they bear our mark.
func (s *Segment) gateways(bridge netlink.Link, n segment.Network, machine []netip.Addr) error {
	have, err := s.Handle.AddrList(bridge, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var wanted []string
	add := func(p netip.Prefix) error {
		a := &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NOPREFIXROUTE}
		if p.Addr().Is6() {
			// Every host has the gateway: it must not look for itself.
			a.Flags |= unix.IFA_F_NODAD
		}
		wanted = append(wanted, a.IPNet.String())
		if err := s.Handle.AddrReplace(bridge, a); err != nil {
			return fmt.Errorf("set address %s: %w", p, err)
		}
		return nil
	}
	for _, sub := range n.Subnets() {
		if err := add(netip.PrefixFrom(sub.Gateway, sub.Prefix.Bits())); err != nil {
			return err
		}
		from := sub.Gateway
		if a := own(machine, sub.Gateway); a.IsValid() {
			if err := add(netip.PrefixFrom(a, a.BitLen())); err != nil {
				return err
			}
			from = a
		}
		r := &netlink.Route{
			Dst: ipNet(sub.Prefix.Masked()), LinkIndex: bridge.Attrs().Index, Scope: netlink.SCOPE_LINK, Src: from.AsSlice(),
			Protocol: segment.BridgedMark, Priority: metric, Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST,
		}
		if err := s.Handle.RouteReplace(r); err != nil {
			return fmt.Errorf("set route to %s: %w", sub.Prefix, err)
		}
	}
	for i := range have {
		if slices.Contains(wanted, have[i].IPNet.String()) || have[i].IP.IsLinkLocalUnicast() {
			continue
		}
		if err := s.Handle.AddrDel(bridge, &have[i]); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			return fmt.Errorf("remove former gateway %s: %w", have[i].IP, err)
		}
	}
	return nil
}

// checkRoutes refuses a network whose subnets the host reaches otherwise. A
// wider route that leads to a router does not stand in the way: the subnet's
// is more specific.
func (s *Segment) checkRoutes(n segment.Network) error {
	for _, sub := range n.Subnets() {
		family := netlink.FAMILY_V4
		if sub.Prefix.Addr().Is6() {
			family = netlink.FAMILY_V6
		}
		all, err := s.Handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for i := range all {
			r := &all[i]
			if r.Dst == nil || segment.OurRoute(int(r.Protocol)) {
				continue
			}
			p, err := netip.ParsePrefix(r.Dst.String())
			if err != nil || p.Bits() == 0 || !p.Overlaps(sub.Prefix) {
				continue
			}
			if onLink := len(r.Gw) == 0; onLink || sub.Prefix.Bits() <= p.Bits() {
				return fmt.Errorf("subnet %s: %w: %s", sub.Prefix, segment.ErrRouteTaken, p)
			}
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
