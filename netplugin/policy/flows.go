package policy

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetFlows makes the kernel forget UDP flows to ports of the host: one that
// goes on would be sent where it was sent before, whatever the table says now.
func forgetFlows(ports []Port) error {
	var filters []netlink.CustomConntrackFilter
	for _, p := range ports {
		f := &netlink.ConntrackFilter{}
		if err := errors.Join(f.AddProtocol(unix.IPPROTO_UDP), f.AddPort(netlink.ConntrackOrigDstPort, p.HostPort)); err != nil {
			return fmt.Errorf("forget flows to port %s: %w", p, err)
		}
		filters = append(filters, f)
	}
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, filters...); err != nil {
			return fmt.Errorf("forget flows: %w", err)
		}
	}
	return nil
}

// forgetChanged forgets the flows to UDP ports that were published or
// withdrawn. It is done aside: it reads all flows of the host.
func (t *Table) forgetChanged(old, now []Port) {
	var changed []Port
	for _, p := range slices.Concat(old, now) {
		if p.Protocol == unix.IPPROTO_UDP && slices.Contains(old, p) != slices.Contains(now, p) {
			changed = append(changed, p)
		}
	}
	if len(changed) == 0 {
		return
	}
	go func() {
		if err := forgetFlows(changed); err != nil {
			t.log.Warn("flows to changed ports may go on", "error", err)
		}
	}()
}
