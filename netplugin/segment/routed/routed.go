// Package routed is the L3 segment: each endpoint is on a veth pair of its
// own, the host has a route to each local address and to each other host's
// block, and the network's gateway address is one of the host's own, so that
// the host answers for it on every link.
//
// What is here: links named ck* of group 142, routes of protocol 142, the
// gateways' addresses labelled "lo:ck" on the loopback, and settings of those
// links. The package touches nothing else, and filters nothing.
//
// Design page: docs/design/network.md.
package routed

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

// What marks the kernel's objects as ours. Metric keeps our routes from ever
// replacing somebody else's route to the same destination.
const (
	Protocol = 142
	Group    = 142
	Metric   = 142
	// AddressLabel is on the gateways' addresses on the loopback.
	AddressLabel = "lo:ck"
)

// hostMAC is the hardware address of the host's end of every link. Each link
// is a world of its own, so that it can be the same on all: a container's
// neighbour entry for its gateway stays right whatever happens to the link.
var hostMAC = net.HardwareAddr{0x02, 0x43, 0x4b, 0x00, 0x00, 0x01}

// Topology is where the segment learns about other hosts from.
type Topology interface {
	Read(func(t *topology.Topology, k topology.Knowledge))
}

// Config is what a [Segment] works with.
type Config struct {
	// Host is this host's id in the fleet.
	Host     string
	Handle   *netlink.Handle
	Sysctl   Sysctl
	Topology Topology
	// Carriers are by name; "direct" must be there.
	Carriers map[string]carrier.Carrier
	Log      *slog.Logger
}

// Segment is the routed segment of one host.
type Segment struct {
	Config

	mu        sync.Mutex
	networks  map[string]segment.Network  // by id; guarded by mu
	endpoints map[string]segment.Endpoint // by id; guarded by mu
	attaching map[string]bool             // endpoints whose links are not ready; guarded by mu
	detaching map[string]bool             // links being removed; guarded by mu

	// syncing is held while the kernel is brought to the plan; it is taken
	// before mu.
	syncing sync.Mutex
	applied []Route // what that was last, without local endpoints; guarded by syncing

	kick  chan struct{}
	slots chan struct{}
}

var _ segment.Segment = (*Segment)(nil)

// detachers is how many links are removed at once. One removal waits for
// 16 ms in the kernel, and many together hardly longer.
const detachers = 32

// New returns a segment with no networks and no endpoints. [Segment.Run] keeps
// the kernel in step.
func New(c Config) *Segment {
	return &Segment{
		Config:    c,
		networks:  map[string]segment.Network{},
		endpoints: map[string]segment.Endpoint{},
		attaching: map[string]bool{},
		detaching: map[string]bool{},
		kick:      make(chan struct{}, 1),
		slots:     make(chan struct{}, detachers),
	}
}

// AddNetwork puts the network's gateway on the host and adds its routes. It
// returns [ErrRouteTaken] when the host has routes of its own there.
func (s *Segment) AddNetwork(n segment.Network) error {
	if err := s.checkRoutes(n.Subnet); err != nil {
		return err
	}
	// Not while another network that had the same subnet is being removed.
	s.syncing.Lock()
	s.mu.Lock()
	s.networks[n.ID] = n
	s.mu.Unlock()
	err := s.addGateway(n.Gateway)
	s.syncing.Unlock()
	if err != nil {
		s.RemoveNetwork(n.ID)
		return err
	}
	if err := s.sync(false); err != nil {
		// It is not the network's fault, and Run tries again.
		s.Log.Warn("routes not complete", "network", n.ID, "error", err)
	}
	return nil
}

// RemoveNetwork takes the gateway and the routes of the network away. Engines
// give a network's addresses back before they delete it, so its subnet, and
// with it the gateway, may be another network's already: then that stays.
func (s *Segment) RemoveNetwork(id string) {
	s.syncing.Lock() // a sync under way would put the gateway back
	s.mu.Lock()
	n, ok := s.networks[id]
	delete(s.networks, id)
	shared := false
	for _, other := range s.networks {
		shared = shared || other.Gateway == n.Gateway
	}
	s.mu.Unlock()
	if ok && !shared {
		if err := s.removeGateway(n.Gateway); err != nil {
			s.Log.Warn("gateway address left behind", "network", id, "error", err)
		}
	}
	s.syncing.Unlock()
	if !ok {
		return
	}
	if err := s.sync(false); err != nil {
		s.Log.Warn("routes left behind, trying again", "network", id, "error", err)
	}
	s.again()
}

// Attach makes the endpoint's link and everything the host needs to reach its
// address. Whatever of it is there already is taken as it is.
func (s *Segment) Attach(e segment.Endpoint) error {
	// Known from here on, so that its route is not taken for a stray one.
	s.mu.Lock()
	s.endpoints[e.ID], s.attaching[e.ID] = e, true
	s.mu.Unlock()
	l, err := s.link(e)
	if err == nil {
		err = s.settle(e, l.Attrs().Index)
	}
	s.mu.Lock()
	delete(s.attaching, e.ID)
	s.mu.Unlock()
	if err != nil {
		s.Detach(e)
	}
	return err
}

// link makes the veth pair, down, or finds it.
func (s *Segment) link(e segment.Endpoint) (netlink.Link, error) {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.Group, a.HardwareAddr = segment.LinkName(e.ID), e.Network.MTU, Group, hostMAC
	v := netlink.NewVeth(a)
	v.PeerName, v.PeerMTU, v.PeerHardwareAddr = segment.PeerName(e.ID), uint32(e.Network.MTU), e.MAC
	err := s.Handle.LinkAdd(v)
	if err == nil {
		return v, nil
	}
	if !errors.Is(err, syscall.EEXIST) {
		return nil, fmt.Errorf("make link %s: %w", a.Name, err)
	}
	l, err := s.Handle.LinkByName(a.Name)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", a.Name, err)
	}
	if l.Attrs().Group != Group || l.Type() != "veth" {
		return nil, fmt.Errorf("make link: an interface %s exists that is not ours", a.Name)
	}
	return l, nil
}

// settle brings the host's end to what it must be.
func (s *Segment) settle(e segment.Endpoint, index int) error {
	name, a := segment.LinkName(e.ID), e.Address.Addr()
	// A container that takes the subnet to be on its link asks for its
	// neighbours there, and the host answers for them.
	if err := s.Sysctl.prepareLink(name, !e.Address.IsSingleIP()); err != nil {
		return err
	}
	if err := s.Handle.LinkSetUp(byIndex(index)); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	n := &netlink.Neigh{LinkIndex: index, IP: a.AsSlice(), HardwareAddr: e.MAC, State: netlink.NUD_PERMANENT}
	if err := s.Handle.NeighSet(n); err != nil {
		return fmt.Errorf("set neighbour %s: %w", a, err)
	}
	r := linkRoute(netip.PrefixFrom(a, a.BitLen()), index, e.Network.Gateway)
	if err := s.Handle.RouteReplace(r); err != nil {
		return fmt.Errorf("set route to %s: %w", a, err)
	}
	return nil
}

// Adopt takes endpoints and networks over that an earlier run of the plugin
// attached, and reports those endpoints whose links are gone. Links of ours
// that belong to none of them are removed.
func (s *Segment) Adopt(networks []segment.Network, endpoints []segment.Endpoint) (gone []segment.Endpoint, err error) {
	for _, n := range networks {
		if err := s.addGateway(n.Gateway); err != nil {
			return nil, err
		}
		s.mu.Lock()
		s.networks[n.ID] = n
		s.mu.Unlock()
	}
	ours, err := s.links()
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		name := segment.LinkName(e.ID)
		index, ok := ours[name]
		if !ok {
			gone = append(gone, e)
			continue
		}
		delete(ours, name)
		s.mu.Lock()
		s.endpoints[e.ID] = e
		s.mu.Unlock()
		if err := s.settle(e, index); err != nil {
			s.Log.Error("endpoint not restored", "endpoint", e.ID, "error", err)
		}
	}
	for name := range ours {
		s.removeLink(name)
	}
	return gone, nil
}

// Gone reports which of the endpoints have no link any more: their containers
// ended, or somebody removed the link.
func (s *Segment) Gone() ([]segment.Endpoint, error) {
	// The endpoints first: one attached after that is not missed in the list
	// of links.
	s.mu.Lock()
	var endpoints []segment.Endpoint
	for id, e := range s.endpoints {
		if !s.attaching[id] {
			endpoints = append(endpoints, e)
		}
	}
	s.mu.Unlock()
	ours, err := s.links()
	if err != nil {
		return nil, err
	}
	var gone []segment.Endpoint
	for _, e := range endpoints {
		if _, ok := ours[segment.LinkName(e.ID)]; !ok {
			gone = append(gone, e)
		}
	}
	return gone, nil
}

// links lists the links that are ours: index by name.
func (s *Segment) links() (map[string]int, error) {
	all, err := s.Handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	ours := map[string]int{}
	for _, l := range all {
		if Ours(l) {
			ours[l.Attrs().Name] = l.Attrs().Index
		}
	}
	return ours, nil
}

// Ours reports whether a link is the host's end of an endpoint's link.
func Ours(l netlink.Link) bool {
	a := l.Attrs()
	return l.Type() == "veth" && a.Group == Group && len(a.Name) > len(segment.LinkPrefix) &&
		a.Name[:len(segment.LinkPrefix)] == segment.LinkPrefix
}

// linkRoute is the route to a local endpoint.
func linkRoute(dst netip.Prefix, index int, source netip.Addr) *netlink.Route {
	return &netlink.Route{
		Dst: ipNet(dst), LinkIndex: index, Src: source.AsSlice(), Scope: netlink.SCOPE_LINK,
		Protocol: Protocol, Priority: Metric, Type: unix.RTN_UNICAST, Table: unix.RT_TABLE_MAIN,
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func byIndex(i int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: i}}
}
