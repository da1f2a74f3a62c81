// Package bridged is the L2 segment: each network has a bridge on each host
// that has the network, local endpoints are its ports, and one VXLAN device
// leads to the other hosts. Who is where is written into the kernel's tables
// as static entries, from what the topology says: nothing is learnt and
// nothing is flooded. The gateway's address and hardware address are on every
// host's bridge.
//
// What is here: bridges named ckn* and VXLAN devices named ckx*, links of
// group 143, routes of protocol 143, settings and neighbour entries of those,
// and the nftables table `bridge clocker`, which lets a container send in its
// own name only. The package touches nothing else, and decides nothing about
// what passes between networks.
//
// Design page: docs/design/bridged.md.
package bridged

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

const (
	// Port is the UDP port of VXLAN between hosts of the fleet, for all
	// networks: the kernel tells them apart by the VNI.
	Port = 7483
	// Overhead is what VXLAN over IPv4 adds to each packet, in bytes: the
	// headers of Ethernet, IPv4, UDP and VXLAN (RFC 7348).
	Overhead = 50
	// metric keeps our routes from ever replacing somebody else's route to
	// the same destination.
	metric = 142
)

// What a network is refused for.
var (
	ErrNoVNI = errors.New("a bridged network needs a number on the wire (VNI), and this one has none")
	// ErrEncrypted means that the network's carrier has no way for frames.
	ErrEncrypted = errors.New("bridged networks cannot be carried by wireguard: use segment=routed with carrier=wireguard, or carrier=auto")
)

// Topology is where the segment learns about other hosts from.
type Topology interface {
	Read(func(t *topology.Topology, k topology.Knowledge))
}

// Config is what a [Segment] works with.
type Config struct {
	// Host is this host's id in the fleet, Address its underlay address.
	Host    string
	Address netip.Addr
	Handle  *netlink.Handle
	// Remover is what links are removed by: nobody else is to wait for the
	// kernel meanwhile.
	Remover *netlink.Handle
	// Sysctl is the directory with the host's network settings: /proc/sys/net,
	// or where it is mounted writable.
	Sysctl string
	// Forward6 lets the host forward IPv6 packets; called for each network
	// that has IPv6.
	Forward6 func() error
	Topology Topology
	Log      *slog.Logger
	// Shortcut takes frames past the bridges; nil for none.
	Shortcut segment.Shortcut
	// Prepare is called for each link before it is set up; nil for nothing.
	Prepare func(index int) error
}

// Segment is the bridged segment of one host.
type Segment struct {
	Config
	guard *guard

	mu        sync.Mutex
	networks  map[string]*network         // by id; guarded by mu
	endpoints map[string]segment.Endpoint // by id; guarded by mu
	attaching map[string]bool             // endpoints whose links are not ready; guarded by mu
	detaching map[string]bool             // links being removed; guarded by mu
	// changed are the addresses that the topology says something new of, by
	// network; everything says that all are. Guarded by mu.
	changed    map[string]map[netip.Addr]bool
	everything bool

	// removing is held while a network's device is removed.
	removing sync.Mutex
	// aside counts what removes links.
	aside sync.WaitGroup
	kick  chan struct{}
	slots chan struct{}
}

var _ segment.Segment = (*Segment)(nil)

// detachers is how many links are removed at once. One removal waits for
// 16 ms in the kernel, and many together hardly longer.
const detachers = 32

// New returns a segment with no networks and no endpoints. [Segment.Run] keeps
// the kernel in step; [Segment.Observe] must get every change of the topology.
func New(c Config) *Segment {
	return &Segment{
		Config:    c,
		guard:     &guard{log: c.Log, conn: new(nft.Connection), ports: map[string]port{}},
		networks:  map[string]*network{},
		endpoints: map[string]segment.Endpoint{},
		attaching: map[string]bool{},
		detaching: map[string]bool{},
		changed:   map[string]map[netip.Addr]bool{},
		kick:      make(chan struct{}, 1),
		slots:     make(chan struct{}, detachers),
	}
}

// AddNetwork makes the network's bridge and its way to the other hosts.
func (s *Segment) AddNetwork(n segment.Network) error {
	if err := check(n); err != nil {
		return err
	}
	if err := s.checkRoutes(n); err != nil {
		return err
	}
	err := s.addNetwork(n)
	if err != nil {
		s.RemoveNetwork(n.ID)
	}
	return err
}

// check refuses what cannot be carried.
func check(n segment.Network) error {
	switch {
	case n.VNI <= 0:
		return fmt.Errorf("network %s: %w", n.ID, ErrNoVNI)
	case n.Carrier == "wireguard":
		return fmt.Errorf("network %s: %w", n.ID, ErrEncrypted)
	}
	return nil
}

// addNetwork makes a network known, and its devices if it can.
func (s *Segment) addNetwork(n segment.Network) error {
	s.mu.Lock()
	x := s.networks[n.ID]
	if x == nil {
		x = newNetwork(n)
		if s.Shortcut != nil {
			x.shortcut = s.Shortcut
		}
		s.networks[n.ID] = x
	}
	s.mu.Unlock()
	if err := s.guard.load(); err != nil {
		return err
	}
	// From here on nobody removes its devices, but somebody may be about to.
	s.removing.Lock()
	s.removing.Unlock() //nolint:staticcheck,gocritic // the wait is what it is for
	x.mu.Lock()
	x.Network = n
	err := s.makeDevices(x)
	if err == nil {
		err = s.placeAll(x)
	}
	x.mu.Unlock()
	x.shortcut.Changed()
	return err
}

// RemoveNetwork takes the bridge and the way to the other hosts away, and with
// them every entry.
func (s *Segment) RemoveNetwork(id string) {
	s.mu.Lock()
	n := s.networks[id]
	delete(s.networks, id)
	delete(s.changed, id)
	shared := false
	for _, other := range s.networks {
		shared = shared || n != nil && other.vni == n.vni
	}
	s.mu.Unlock()
	if n == nil || shared {
		return
	}
	n.mu.Lock()
	n.gone = true
	n.dropStations()
	n.mu.Unlock()
	n.shortcut.Changed()
	s.guard.drop(segment.TunnelName(n.vni))
	s.removeLink(segment.TunnelName(n.vni))
	s.removeLink(segment.BridgeName(n.vni))
	if err := s.guard.unload(func() bool { return len(s.present()) > 0 }); err != nil {
		s.Log.Warn("packet filter of bridged networks left behind", "error", err)
	}
}

// present lists the networks that are here.
func (s *Segment) present() []*network {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*network, 0, len(s.networks))
	for _, n := range s.networks {
		all = append(all, n)
	}
	return all
}

// again makes Run look soon.
func (s *Segment) again() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// removeLink removes a link in the background, trying again until it is gone.
func (s *Segment) removeLink(name string) {
	s.mu.Lock()
	busy := s.detaching[name]
	s.detaching[name] = true
	s.mu.Unlock()
	if busy {
		return
	}
	s.aside.Go(func() {
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
			err := s.deleteUnwanted(name)
			if err == nil || missing(err) {
				break
			}
			s.Log.Warn("link not removed, trying again", "link", name, "error", err)
			time.Sleep(wait) //nolint:forbidigo // the kernel does not say when it will let go of a link
		}
		s.mu.Lock()
		delete(s.detaching, name)
		s.mu.Unlock()
	})
}

// deleteUnwanted deletes a link, unless it is a device of a network that is
// here: that has been added again meanwhile.
func (s *Segment) deleteUnwanted(name string) error {
	if strings.HasPrefix(name, segment.BridgePrefix) || strings.HasPrefix(name, segment.TunnelPrefix) {
		s.removing.Lock()
		defer s.removing.Unlock()
		if s.wanted(name) {
			return nil
		}
	}
	l, err := s.Remover.LinkByName(name)
	if err != nil {
		return err
	}
	return s.Remover.LinkDel(l)
}

// wanted reports whether a network that is here has the device.
func (s *Segment) wanted(device string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.networks {
		if device == segment.BridgeName(n.vni) || device == segment.TunnelName(n.vni) {
			return true
		}
	}
	return false
}
