package bridged

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/segment"
)

// network is a network that is present, and what the kernel was told about it.
type network struct {
	// vni is the number by which its devices are named; it never changes.
	vni int
	// mu guards everything below, and the kernel's entries of the network. It
	// is taken after Segment.mu or alone, never before.
	mu sync.Mutex
	segment.Network
	// bridge and tunnel are the devices' indexes.
	bridge, tunnel int
	// here are the addresses of local endpoints, links the indexes of their
	// links by name.
	here  map[netip.Addr]local
	links map[string]int
	// placed is what the kernel has; stations are the hardware addresses in
	// it, hosts those that broadcasts go to.
	placed   map[netip.Addr]place
	stations map[mac]*station
	hosts    map[netip.Addr]bool
	// machine are the host's own addresses on the network.
	machine []netip.Addr
	gone    bool
	// shortcut is never nil, and does not change.
	shortcut segment.Shortcut
}

// station is a hardware address that frames are sent to.
type station struct {
	place
	// holders counts the addresses that have it.
	holders int
}

func newNetwork(n segment.Network) *network {
	return &network{
		vni: n.VNI, Network: n, here: map[netip.Addr]local{}, links: map[string]int{},
		placed: map[netip.Addr]place{}, stations: map[mac]*station{}, hosts: map[netip.Addr]bool{}, shortcut: byBridge{},
	}
}

// forget makes the network as if the kernel had been told nothing: its devices
// were made anew.
func (n *network) forget() {
	n.dropStations()
	clear(n.placed)
	clear(n.stations)
	clear(n.hosts)
}

// put tells the kernel where an address is: first where frames go, then which
// hardware address it has. Callers hold n.mu.
func (n *network) put(h *netlink.Handle, a netip.Addr, p place) error {
	old, had := n.placed[a]
	if had && old == p {
		return nil
	}
	if err := n.station(h, p); err != nil {
		return fmt.Errorf("set way to %s: %w", a, err)
	}
	if err := h.NeighSet(neighbour(n.bridge, a, p.MAC)); err != nil {
		return fmt.Errorf("set neighbour %s: %w", a, err)
	}
	n.placed[a] = p
	if had && old.MAC == p.MAC {
		return nil
	}
	n.stations[p.MAC].holders++
	if had {
		return n.leave(h, old.MAC)
	}
	return nil
}

// take makes the kernel forget an address. Callers hold n.mu.
func (n *network) take(h *netlink.Handle, a netip.Addr) error {
	p, had := n.placed[a]
	if !had {
		return nil
	}
	delete(n.placed, a)
	err := h.NeighDel(neighbour(n.bridge, a, p.MAC))
	return errors.Join(ignoreGone(err), n.leave(h, p.MAC))
}

// station makes frames for a hardware address go to its place. What it
// replaces goes last, so that there is a way at every moment.
func (n *network) station(h *netlink.Handle, p place) error {
	s := n.stations[p.MAC]
	if s == nil {
		s = &station{}
		n.stations[p.MAC] = s
	} else if s.place == p {
		return nil
	}
	switch {
	case p.Host.IsValid():
		if err := h.NeighSet(remote(n.tunnel, p.MAC, p.Host)); err != nil {
			return err
		}
		if err := h.NeighSet(onPort(n.tunnel, p.MAC)); err != nil {
			return err
		}
	case p.Link != "":
		if err := h.NeighSet(onPort(n.links[p.Link], p.MAC)); err != nil {
			return err
		}
		if s.Host.IsValid() {
			if err := h.NeighDel(remote(n.tunnel, p.MAC, s.Host)); ignoreGone(err) != nil {
				return err
			}
		}
	default:
		if err := h.NeighSet(onPort(n.tunnel, p.MAC)); err != nil {
			return err
		}
	}
	s.place = p
	switch {
	case p.Host.IsValid():
		n.shortcut.PutStation(n.VNI, p.MAC, n.tunnel, false)
	case p.Link != "":
		n.shortcut.PutStation(n.VNI, p.MAC, n.links[p.Link], true)
	default:
		n.shortcut.DropStation(n.VNI, p.MAC)
	}
	return nil
}

// leave counts that one address less has a hardware address, and forgets it
// with the last.
func (n *network) leave(h *netlink.Handle, m mac) error {
	s := n.stations[m]
	if s == nil {
		return nil
	}
	if s.holders--; s.holders > 0 {
		return nil
	}
	delete(n.stations, m)
	n.shortcut.DropStation(n.VNI, m)
	switch {
	case s.Host.IsValid():
		return errors.Join(ignoreGone(h.NeighDel(onPort(n.tunnel, m))), ignoreGone(h.NeighDel(remote(n.tunnel, m, s.Host))))
	case s.Link != "":
		return ignoreGone(h.NeighDel(onPort(n.links[s.Link], m)))
	}
	return ignoreGone(h.NeighDel(onPort(n.tunnel, m)))
}

// spread makes broadcasts go to exactly these hosts. Callers hold n.mu.
func (n *network) spread(h *netlink.Handle, to map[netip.Addr]bool) error {
	var errs []error
	for a := range to {
		if n.hosts[a] {
			continue
		}
		err := h.NeighAppend(remote(n.tunnel, mac{}, a))
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			errs = append(errs, fmt.Errorf("send broadcasts to %s: %w", a, err))
			continue
		}
		n.hosts[a] = true
	}
	for a := range n.hosts {
		if to[a] {
			continue
		}
		if err := h.NeighDel(remote(n.tunnel, mac{}, a)); ignoreGone(err) != nil {
			errs = append(errs, fmt.Errorf("send no broadcasts to %s: %w", a, err))
			continue
		}
		delete(n.hosts, a)
	}
	return errors.Join(errs...)
}

// neighbour is the bridge's entry by which it answers for an address, and the
// host reaches it.
func neighbour(bridge int, a netip.Addr, m mac) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: bridge, IP: a.AsSlice(), HardwareAddr: m.address(), State: netlink.NUD_PERMANENT}
}

// onPort is the bridge's entry that a hardware address is behind a port.
func onPort(port int, m mac) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: port, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: m.address(),
	}
}

// remote is the VXLAN device's entry that a hardware address is on a host.
func remote(tunnel int, m mac, host netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: tunnel, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP,
		HardwareAddr: m.address(), IP: net.IP(host.AsSlice()),
	}
}

// ignoreGone drops the errors that say that what was to be removed is not
// there, or not on this device.
func ignoreGone(err error) error {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EOPNOTSUPP) {
		return nil
	}
	return err
}

func missing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, syscall.ENODEV)
}
