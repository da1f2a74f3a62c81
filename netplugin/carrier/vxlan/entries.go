package vxlan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/underlay"
)

// key names one entry of the device: of the family, for the address or, in
// the bridge's family, for the hardware address.
type key struct {
	family int
	name   string
}

// wanted are the device's entries for the peers. The second part is what the
// entry leads to.
func (d *device) wanted(peers map[string]carrier.Peer) map[key]netlink.Neigh {
	all := map[key]netlink.Neigh{}
	add := func(n netlink.Neigh) {
		n.LinkIndex, n.State = d.index, netlink.NUD_PERMANENT
		all[keyOf(n)] = n
	}
	for host, p := range peers {
		i := tunnel.Identify(host)
		add(netlink.Neigh{Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, HardwareAddr: i.MAC, IP: p.Address.AsSlice()})
		add(netlink.Neigh{Family: unix.AF_INET, HardwareAddr: i.MAC, IP: i.Next(p.Address).AsSlice()})
		if d.ipv6 {
			add(netlink.Neigh{Family: unix.AF_INET6, HardwareAddr: i.MAC, IP: i.LinkLocal.AsSlice()})
		}
	}
	return all
}

func keyOf(n netlink.Neigh) key {
	if n.Family == unix.AF_BRIDGE {
		return key{n.Family, n.HardwareAddr.String()}
	}
	return key{n.Family, n.IP.String()}
}

func leadsTo(n netlink.Neigh) string {
	if n.Family == unix.AF_BRIDGE {
		a, _ := netip.AddrFromSlice(n.IP)
		return a.Unmap().String()
	}
	return n.HardwareAddr.String()
}

// entries compares the device's entries with those for the peers, says what
// is wrong, and with fix puts it right: what must be there first, then what
// must not.
func (d *device) entries(peers map[string]carrier.Peer, fix bool) (wrong []string, err error) {
	want := d.wanted(peers)
	have := map[key]netlink.Neigh{}
	for _, family := range []int{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
		list, err := underlay.Whole(func() ([]netlink.Neigh, error) {
			return d.Handle.NeighListExecute(netlink.Ndmsg{Family: uint8(family), Index: uint32(d.index)})
		})
		if err != nil {
			return nil, fmt.Errorf("list entries of %s: %w", DeviceName, err)
		}
		for _, n := range list {
			// What is not permanent is the kernel's own.
			if n.State&netlink.NUD_PERMANENT != 0 && n.LinkIndex == d.index {
				n.Family = family
				have[keyOf(n)] = n
			}
		}
	}
	var errs []error
	for k, w := range want {
		h, ok := have[k]
		if ok && leadsTo(h) == leadsTo(w) {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("the entry of %s to %s is missing or wrong", k.name, leadsTo(w)))
		if !fix {
			continue
		}
		if err := d.Handle.NeighSet(&w); err != nil {
			errs = append(errs, fmt.Errorf("set entry of %s to %s on %s: %w", k.name, leadsTo(w), DeviceName, err))
		}
	}
	for k, h := range have {
		if _, ok := want[k]; ok {
			continue
		}
		wrong = append(wrong, fmt.Sprintf("the entry of %s to %s is of no host", k.name, leadsTo(h)))
		if !fix {
			continue
		}
		if err := d.Handle.NeighDel(&h); err != nil && !errors.Is(err, syscall.ENOENT) {
			errs = append(errs, fmt.Errorf("remove entry of %s on %s: %w", k.name, DeviceName, err))
		}
	}
	slices.Sort(wrong)
	return wrong, errors.Join(errs...)
}
