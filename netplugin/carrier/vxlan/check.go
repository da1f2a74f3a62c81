package vxlan

import (
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
)

// check compares the device with what it must be; callers hold mu.
func (d *device) check(fix bool) ([]finding.Finding, error) {
	var found []finding.Finding
	add := func(f finding.Finding) {
		f.Part = "carrier"
		found = append(found, f)
	}
	for _, peers := range d.users {
		for _, p := range peers {
			if err := d.reachable(p); err != nil {
				add(finding.Finding{Subject: "vxlan to host " + p.Host, Text: err.Error(), Hint: "give the host another address: docker clocker host rm, then host add --address"})
			}
		}
	}
	wrong, err := d.wrong()
	if err != nil {
		return found, err
	}
	if fix && len(wrong) > 0 {
		err = d.sync()
	}
	for _, text := range wrong {
		add(finding.Finding{Subject: DeviceName, Text: text, Fixed: fix && err == nil})
	}
	return found, err
}

// wrong says what is not as it must be.
func (d *device) wrong() ([]string, error) {
	peers := d.peers()
	l, err := d.Handle.LinkByName(DeviceName)
	switch {
	case tunnel.Missing(err) && len(peers) == 0:
		return nil, nil
	case tunnel.Missing(err):
		return []string{"the device is not there"}, nil
	case err != nil:
		return nil, fmt.Errorf("find device %s: %w", DeviceName, err)
	case len(peers) == 0:
		return []string{"the device is there, and no host is reached by it"}, nil
	}
	under, err := underlay.Find(d.Handle, d.Address)
	if err != nil {
		return nil, err
	}
	all := d.mistakes(l, under.MTU-d.overhead())
	if d.index != l.Attrs().Index {
		return append(all, "the device is another one than the one that was made"), nil
	}
	entries, err := d.entries(peers, false)
	return append(all, entries...), err
}

// mistakes are what is wrong about the device itself.
func (d *device) mistakes(l netlink.Link, mtu int) []string {
	a := l.Attrs()
	all := []string{d.differs(l)}
	if a.MTU != mtu {
		all = append(all, fmt.Sprintf("its MTU is %d instead of %d", a.MTU, mtu))
	}
	if a.HardwareAddr.String() != d.self.MAC.String() {
		all = append(all, fmt.Sprintf("its hardware address is %s instead of %s", a.HardwareAddr, d.self.MAC))
	}
	if a.Flags&net.FlagUp == 0 {
		all = append(all, "it is down")
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}
