package bridged

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/pkg/finding"
)

// Check compares devices, entries and the table with what they must be, and
// mends them with fix.
func (s *Segment) Check(fix bool) ([]finding.Finding, error) {
	var found []finding.Finding
	var errs []error
	if err := s.guard.compare(); err != nil {
		f := finding.Finding{Part: "filter", Subject: "bridge " + TableName, Text: fmt.Sprintf("the packet filter of bridged networks was changed: %v", err)}
		if fix {
			err := s.guard.mend()
			errs, f.Fixed = append(errs, err), err == nil
		}
		found = append(found, f)
	}
	all := s.present()
	slices.SortFunc(all, func(a, b *network) int { return strings.Compare(a.ID, b.ID) })
	for _, n := range all {
		fs, err := s.checkNetwork(n, fix)
		found, errs = append(found, fs...), append(errs, err)
	}
	if fix {
		errs = append(errs, s.removeStray())
	}
	return found, errors.Join(errs...)
}

// checkNetwork compares one network with the kernel.
func (s *Segment) checkNetwork(n *network, fix bool) ([]finding.Finding, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return nil, nil
	}
	var found []finding.Finding
	wrong := func(part, subject, text string) {
		found = append(found, finding.Finding{Part: part, Subject: subject, Text: text, Fixed: fix})
	}
	for name, index := range map[string]int{segment.BridgeName(n.VNI): n.bridge, segment.TunnelName(n.VNI): n.tunnel} {
		l, err := s.Handle.LinkByName(name)
		switch {
		case missing(err):
			wrong("links", name, "a device of network "+n.ID+" is gone")
		case err != nil:
			return nil, fmt.Errorf("find device %s: %w", name, err)
		case l.Attrs().Index != index:
			wrong("links", name, "a device of network "+n.ID+" was made anew by something else")
		case l.Attrs().Flags&net.FlagUp == 0:
			wrong("links", name, "a device of network "+n.ID+" is down")
		case l.Attrs().MTU != n.MTU:
			wrong("links", name, fmt.Sprintf("its MTU is %d instead of %d", l.Attrs().MTU, n.MTU))
		}
	}
	if fix {
		// This also puts back addresses, routes and settings.
		if err := s.makeDevices(n); err != nil {
			return found, err
		}
		if err := s.reattach(n); err != nil {
			return found, err
		}
		if err := s.placeAll(n); err != nil {
			return found, err
		}
	}
	lost, stray, err := s.differences(n)
	if err != nil {
		return found, err
	}
	for _, e := range slices.Concat(lost, stray) {
		wrong("networks", n.ID, e.text)
	}
	if !fix {
		return found, nil
	}
	var errs []error
	for _, e := range lost {
		errs = append(errs, s.Handle.NeighSet(e.entry))
	}
	for _, e := range stray {
		errs = append(errs, ignoreGone(s.Handle.NeighDel(e.entry)))
	}
	return found, errors.Join(errs...)
}

// reattach makes local endpoints' links ports of the bridge that are not.
// Callers hold n.mu.
func (s *Segment) reattach(n *network) error {
	for name := range n.links {
		l, err := s.Handle.LinkByName(name)
		if missing(err) {
			continue // the container ended
		}
		if err != nil {
			return fmt.Errorf("find link %s: %w", name, err)
		}
		if l.Attrs().MasterIndex == n.bridge && l.Attrs().Flags&net.FlagUp != 0 {
			continue
		}
		if err := s.enslave(l, n.bridge, endpointPort()); err != nil {
			return err
		}
		// The bridge forgot what was behind the port.
		for _, x := range n.stations {
			if x.Link == name {
				x.place = place{}
			}
		}
		for a, p := range n.placed {
			if p.Link == name {
				if err := n.station(s.Handle, p); err != nil {
					return fmt.Errorf("set way to %s: %w", a, err)
				}
			}
		}
	}
	return nil
}

// entryDiffers is an entry that is missing or too much.
type entryDiffers struct {
	entry *netlink.Neigh
	text  string
}

// entryKey identifies an entry of one device.
type entryKey struct {
	link   int
	master bool // in the bridge's table, of frames
	self   bool // in the VXLAN device's table
	mac    mac
	ip     netip.Addr // of a neighbour
}

// wanted are the entries that the kernel must have. Callers hold n.mu.
func (n *network) wanted() map[entryKey]*netlink.Neigh {
	all := map[entryKey]*netlink.Neigh{}
	for a, p := range n.placed {
		all[entryKey{link: n.bridge, ip: a, mac: p.MAC}] = neighbour(n.bridge, a, p.MAC)
	}
	for m, x := range n.stations {
		switch {
		case x.Host.IsValid():
			all[entryKey{link: n.tunnel, self: true, mac: m, ip: x.Host}] = remote(n.tunnel, m, x.Host)
			all[entryKey{link: n.tunnel, master: true, mac: m}] = onPort(n.tunnel, m)
		case x.Link != "" && n.links[x.Link] != 0:
			i := n.links[x.Link]
			all[entryKey{link: i, master: true, mac: m}] = onPort(i, m)
		case x.Link == "":
			all[entryKey{link: n.tunnel, master: true, mac: m}] = onPort(n.tunnel, m)
		}
	}
	for a := range n.hosts {
		all[entryKey{link: n.tunnel, self: true, ip: a}] = remote(n.tunnel, mac{}, a)
	}
	return all
}

// differences compares a network's entries with the kernel's. Callers hold
// n.mu.
func (s *Segment) differences(n *network) (lost, stray []entryDiffers, err error) {
	have, err := s.entries(n)
	if err != nil {
		return nil, nil, err
	}
	want := n.wanted()
	for k, e := range want {
		if _, ok := have[k]; !ok {
			lost = append(lost, entryDiffers{e, "entry is missing: " + e.String()})
		}
	}
	for k, e := range have {
		if _, ok := want[k]; !ok {
			stray = append(stray, entryDiffers{e, "entry belongs to nothing: " + e.String()})
		}
	}
	return lost, stray, nil
}

// entries lists the static entries of a network that the kernel has.
func (s *Segment) entries(n *network) (map[entryKey]*netlink.Neigh, error) {
	all := map[entryKey]*netlink.Neigh{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := dump(func() ([]netlink.Neigh, error) { return s.Handle.NeighList(n.bridge, family) })
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for i := range list {
			a, ok := netip.AddrFromSlice(list[i].IP)
			if ok && list[i].State&netlink.NUD_PERMANENT != 0 && !a.IsMulticast() {
				all[entryKey{link: n.bridge, ip: a.Unmap(), mac: macOf(list[i].HardwareAddr)}] = &list[i]
			}
		}
	}
	ports := map[int]bool{n.tunnel: true}
	for _, i := range n.links {
		ports[i] = true
	}
	list, err := dump(func() ([]netlink.Neigh, error) { return s.Handle.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return nil, fmt.Errorf("list entries of bridges: %w", err)
	}
	for i := range list {
		e := &list[i]
		k := entryKey{link: e.LinkIndex, mac: macOf(e.HardwareAddr)}
		switch {
		case !ports[e.LinkIndex] || e.HardwareAddr == nil:
			continue
		case e.MasterIndex == n.bridge:
			// The ports' own addresses are permanent, ours are not.
			if e.State&netlink.NUD_PERMANENT != 0 {
				continue
			}
			k.master, e.Flags = true, netlink.NTF_MASTER
		case e.Flags&netlink.NTF_SELF != 0 && e.LinkIndex == n.tunnel:
			a, ok := netip.AddrFromSlice(e.IP)
			if !ok {
				continue
			}
			k.self, k.ip = true, a.Unmap()
		default:
			continue
		}
		all[k] = e
	}
	return all, nil
}

// dump repeats a listing that changed underneath.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == 5 {
			return all, err
		}
	}
}

// removeStray removes bridges and VXLAN devices of networks that are not here.
func (s *Segment) removeStray() error {
	links, err := dump(s.Handle.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if Ours(l) && l.Type() != "veth" && !s.wanted(l.Attrs().Name) {
			s.removeLink(l.Attrs().Name)
		}
	}
	return nil
}
