// Package cleanup takes everything away that the network plugin has made in a
// host's kernel: links, routes, addresses, packet filter, and the socket by
// which engines find the plain name. It is for a host that leaves its fleet,
// when the plugin does not run any more.
//
// It removes nothing without the plugin's mark, and no files but the socket.
//
// Design page: docs/design/networks.md.
package cleanup

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier/vxlan"
	"clocker.io/clocker/netplugin/carrier/wireguard"
	"clocker.io/clocker/netplugin/lb"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment/bridged"
	"clocker.io/clocker/netplugin/segment/routed"
	"clocker.io/clocker/netplugin/segment/routed/redirect"
	"clocker.io/clocker/pkg/hostconfig"
)

// Kernel removes the plugin's objects from the network namespace it is called
// in, and the address of DNS, which whoever starts first puts there. It goes
// on after an error; a second call does what the first could not.
func Kernel() error {
	h, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	ours, err := routed.Subnets(h)
	return errors.Join(
		// The filter last: until then what it forbids stays forbidden.
		err, links(h), routes(h), addresses(h, ours), vxlan.Remove(h), vxlan.RemoveTable(), wireguard.Remove(h), redirect.Clean(h), lb.Remove(), bridged.RemoveTable(), policy.RemoveDockerUser(), policy.RemoveTable(),
	)
}

// Socket removes the socket at the path. The plugin does so itself when it is
// stopped, but not when it is killed.
func Socket(path string) error {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
		return fmt.Errorf("remove plugin socket %s: a process still serves it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove plugin socket: %w", err)
	}
	return nil
}

func links(h *netlink.Handle) error {
	all, err := h.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range all {
		if !routed.Ours(l) && !bridged.Ours(l) {
			continue
		}
		if err := h.LinkDel(l); err != nil && !errors.Is(err, syscall.ENODEV) {
			errs = append(errs, fmt.Errorf("remove link %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}

func routes(h *netlink.Handle) error {
	all, err := routed.Routes(h)
	if err != nil {
		return err
	}
	var errs []error
	for i := range all {
		if err := h.RouteDel(&all[i]); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", all[i].Dst, err))
		}
	}
	return errors.Join(errs...)
}

// addresses removes the host's own addresses on networks: IPv4 ones have a
// label, IPv6 ones are in a subnet of ours.
func addresses(h *netlink.Handle, ours []netip.Prefix) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	all, err := h.AddrList(lo, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	var errs []error
	for i := range all {
		a := &all[i]
		own := a.Label == routed.AddressLabel || a.IP.String() == hostconfig.DNSAddress || a.IP.String() == hostconfig.DNSAddress6
		if ip, ok := netip.AddrFromSlice(a.IP); !own && ok && ip.Is6() {
			own = slices.ContainsFunc(ours, func(p netip.Prefix) bool { return p.Contains(ip) })
		}
		if !own {
			continue
		}
		if err := h.AddrDel(lo, a); err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove address %s: %w", a.IP, err))
		}
	}
	return errors.Join(errs...)
}
