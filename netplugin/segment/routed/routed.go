// Package routed is the L3 segment: each endpoint is on a veth pair of its
// own, the host has a route to each local address and to each other host's
// block, and the network's gateway address is one of the host's own, so that
// the host answers for it on every link.
//
// What is here: links named ck* of group 142, routes of protocol 142, the
// gateways' addresses on the loopback (labelled "lo:ck" where IPv4), and
// settings of those links. The package touches nothing else but the switch for
// forwarding, and filters nothing.
//
// Design page: docs/design/networks.md.
package routed

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/netplugin/underlay"
)

// What marks the kernel's objects as ours. Metric keeps our routes from ever
// replacing somebody else's route to the same destination.
const (
	Protocol = segment.RoutedMark
	Group    = segment.RoutedMark
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
	// Prepare is called for each link before it is set up; nil for nothing.
	Prepare func(index int) error
}

// Segment is the routed segment of one host.
type Segment struct {
	Config

	mu        sync.Mutex
	networks  map[string]segment.Network  // by id; guarded by mu
	endpoints map[string]segment.Endpoint // by id; guarded by mu
	attaching map[string]bool             // endpoints whose links are not ready; guarded by mu
	detaching map[string]bool             // links being removed; guarded by mu
	// byAddress are the endpoints that have an address: for a moment there
	// can be two; guarded by mu.
	byAddress map[netip.Addr][]string
	machines  map[string][]netip.Addr // the host's own, by network; guarded by mu

	// syncing is held while the kernel is brought to the plan; it is taken
	// before mu.
	syncing sync.Mutex
	// applied is what that was last, without local endpoints, and peers the
	// hosts that it leads to; guarded by syncing.
	applied []Route
	peers   map[string][]carrier.Peer
	// mark is the revision up to which the kernel has the routes.
	mark topology.Mark

	kick chan struct{}
}

var _ segment.Segment = (*Segment)(nil)

// New returns a segment with no networks and no endpoints. [Segment.Run] keeps
// the kernel in step.
func New(c Config) *Segment {
	return &Segment{
		Config:    c,
		networks:  map[string]segment.Network{},
		endpoints: map[string]segment.Endpoint{},
		attaching: map[string]bool{},
		detaching: map[string]bool{},
		byAddress: map[netip.Addr][]string{},
		machines:  map[string][]netip.Addr{},
		kick:      make(chan struct{}, 1),
	}
}

// AddNetwork puts the network's gateways on the host and adds its routes. It
// returns [ErrRouteTaken] when the host has routes of its own there.
func (s *Segment) AddNetwork(n segment.Network) error {
	var errs []error
	for _, sub := range n.Subnets() {
		errs = append(errs, s.checkRoutes(sub.Prefix))
	}
	if name := carrierName(n); s.Carriers != nil && s.Carriers[name] == nil {
		errs = append(errs, fmt.Errorf("network %s: this version has no carrier %s", n.ID, name))
	}
	if n.Subnet6.IsValid() {
		errs = append(errs, s.Sysctl.EnsureForwarding6())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Not while another network that had the same subnet is being removed.
	s.syncing.Lock()
	s.mu.Lock()
	s.networks[n.ID] = n
	s.mu.Unlock()
	for _, sub := range n.Subnets() {
		errs = append(errs, s.addGateway(sub.Gateway))
	}
	s.syncing.Unlock()
	if err := errors.Join(errs...); err != nil {
		s.RemoveNetwork(n.ID)
		return err
	}
	if err := s.sync(false); err != nil {
		// It is not the network's fault, and Run tries again.
		s.Log.Warn("routes not complete", "network", n.ID, "error", err)
	}
	return nil
}

// RemoveNetwork takes the gateways and the routes of the network away. Engines
// give a network's addresses back before they delete it, so its subnet, and
// with it the gateway, may be another network's already: then that stays.
func (s *Segment) RemoveNetwork(id string) {
	s.syncing.Lock() // a sync under way would put the gateway back
	s.mu.Lock()
	n, ok := s.networks[id]
	machine := s.machines[id]
	delete(s.networks, id)
	delete(s.machines, id)
	shared := map[netip.Addr]bool{}
	for _, other := range s.networks {
		shared[other.Gateway], shared[other.Gateway6] = true, true
	}
	s.mu.Unlock()
	var own []netip.Addr
	for _, sub := range n.Subnets() {
		own = append(own, sub.Gateway)
	}
	for _, a := range append(own, machine...) {
		if ok && !shared[a] {
			if err := s.removeAddress(a); err != nil {
				s.Log.Warn("address left behind", "network", id, "error", err)
			}
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
	s.know(e)
	s.attaching[e.ID] = true
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

// know takes an endpoint in; callers hold mu.
func (s *Segment) know(e segment.Endpoint) {
	s.forget(e.ID)
	s.endpoints[e.ID] = e
	for _, a := range e.Addresses() {
		s.byAddress[a] = append(s.byAddress[a], e.ID)
	}
}

// forget drops an endpoint; callers hold mu.
func (s *Segment) forget(id string) {
	for _, a := range s.endpoints[id].Addresses() {
		s.byAddress[a] = slices.DeleteFunc(s.byAddress[a], func(x string) bool { return x == id })
		if len(s.byAddress[a]) == 0 {
			delete(s.byAddress, a)
		}
	}
	delete(s.endpoints, id)
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
	name := segment.LinkName(e.ID)
	if err := s.Sysctl.prepareLink(name, e); err != nil {
		return err
	}
	if s.Prepare != nil {
		if err := s.Prepare(index); err != nil {
			return err
		}
	}
	if err := s.Handle.LinkSetUp(byIndex(index)); err != nil {
		return fmt.Errorf("set link %s up: %w", name, err)
	}
	if e.Address6.IsValid() {
		// The container asks for its gateway on the link, where the host's
		// loopback is not.
		n := &netlink.Neigh{LinkIndex: index, Family: netlink.FAMILY_V6, IP: e.Network.Gateway6.AsSlice(), Flags: netlink.NTF_PROXY}
		if err := s.Handle.NeighSet(n); err != nil {
			return fmt.Errorf("answer for gateway %s: %w", e.Network.Gateway6, err)
		}
	}
	s.mu.Lock()
	here := place{machines: map[string][]netip.Addr{e.Network.ID: s.machines[e.Network.ID]}}
	s.mu.Unlock()
	for _, a := range e.Addresses() {
		n := &netlink.Neigh{LinkIndex: index, IP: a.AsSlice(), HardwareAddr: e.MAC, State: netlink.NUD_PERMANENT}
		if err := s.Handle.NeighSet(n); err != nil {
			return fmt.Errorf("set neighbour %s: %w", a, err)
		}
		if err := s.replace(linkRoute(netip.PrefixFrom(a, a.BitLen()), index, here.near(e.Network, a))); err != nil {
			return err
		}
	}
	return nil
}

// Adopt takes endpoints and networks over that an earlier run of the plugin
// attached, and reports those endpoints whose links are gone. Links of ours
// that belong to none of them are removed.
func (s *Segment) Adopt(networks []segment.Network, endpoints []segment.Endpoint) (gone []segment.Endpoint, err error) {
	for _, n := range networks {
		for _, sub := range n.Subnets() {
			if err := s.addGateway(sub.Gateway); err != nil {
				return nil, err
			}
		}
		if n.Subnet6.IsValid() {
			if err := s.Sysctl.EnsureForwarding6(); err != nil {
				return nil, err
			}
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
		s.know(e)
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
	all, err := underlay.Whole(s.Handle.LinkList)
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
	return l.Type() == "veth" && (a.Group == Group || a.Group == leaving) && len(a.Name) > len(segment.LinkPrefix) &&
		a.Name[:len(segment.LinkPrefix)] == segment.LinkPrefix
}

func byIndex(i int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: i}}
}
