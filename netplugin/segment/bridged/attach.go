package bridged

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

// Attach makes the endpoint's link, a port of its network's bridge, lets it
// send in its own name, and has the bridge know where it is. Whatever of it is
// there already is taken as it is.
func (s *Segment) Attach(e segment.Endpoint) error {
	s.mu.Lock()
	n := s.networks[e.Network.ID]
	if n == nil {
		s.mu.Unlock()
		return fmt.Errorf("attach endpoint: network %s is not on this host", e.Network.ID)
	}
	s.endpoints[e.ID], s.attaching[e.ID] = e, true
	s.mu.Unlock()
	l, err := s.link(e)
	if err == nil {
		err = s.settle(n, e, l, false)
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
	a.Name, a.MTU, a.Group = segment.LinkName(e.ID), e.Network.MTU, segment.BridgedMark
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
	if !ours(l) {
		return nil, fmt.Errorf("make link: an interface %s exists that is not ours", a.Name)
	}
	return l, nil
}

// settle brings an endpoint's link, and what is known of it, to what they must
// be.
func (s *Segment) settle(n *network, e segment.Endpoint, l netlink.Link, told bool) error {
	name := segment.LinkName(e.ID)
	if err := s.preparePort(name); err != nil {
		return err
	}
	if err := s.guard.put(name, port{mac: macOf(e.MAC), addresses: sources(e), loud: n.Broadcast}); err != nil {
		return fmt.Errorf("let %s send: %w", name, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone {
		return fmt.Errorf("attach endpoint: network %s has been removed", n.ID)
	}
	if err := s.enslave(l, n.bridge, endpointPort()); err != nil {
		return err
	}
	n.links[name] = l.Attrs().Index
	for _, a := range e.Addresses() {
		n.here[a] = local{endpoint: e.ID, mac: macOf(e.MAC), told: told}
		if err := s.place(n, a); err != nil {
			return err
		}
	}
	n.shortcut.Changed()
	return nil
}

// sources are what an endpoint may send from: its addresses, and, where there
// is IPv6, the link-local one that follows from its hardware address (RFC
// 4291, appendix A).
func sources(e segment.Endpoint) []netip.Addr {
	all := e.Addresses()
	if m := e.MAC; e.Address6.IsValid() && len(m) == len(mac{}) {
		all = append(all, netip.AddrFrom16([16]byte{
			0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5],
		}))
	}
	return all
}

// place brings the kernel's entries for one address to what the topology says.
// Callers hold n.mu.
func (s *Segment) place(n *network, a netip.Addr) error {
	var p place
	var ok bool
	s.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) { p, ok = find(s.Host, n.Network, a, n.here, t) })
	if !ok {
		return n.take(s.Handle, a)
	}
	return n.put(s.Handle, a, p)
}

// Detach forgets the endpoint. Its link is removed aside.
func (s *Segment) Detach(e segment.Endpoint) {
	name := segment.LinkName(e.ID)
	s.mu.Lock()
	delete(s.endpoints, e.ID)
	n := s.networks[e.Network.ID]
	s.mu.Unlock()
	if n != nil {
		s.forget(n, e)
	}
	s.guard.drop(name)
	s.removeLink(name)
}

// forget takes an endpoint's addresses out of a network, but for those that
// another endpoint has taken over.
func (s *Segment) forget(n *network, e segment.Endpoint) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range e.Addresses() {
		if n.here[a].endpoint != e.ID {
			continue
		}
		delete(n.here, a)
		if n.gone {
			continue
		}
		if err := s.place(n, a); err != nil {
			s.Log.Warn("entry left behind, trying again", "address", a, "error", err)
			s.recheck()
		}
	}
	delete(n.links, segment.LinkName(e.ID))
}

// Adopt takes endpoints and networks over that an earlier run of the plugin
// attached, and reports those endpoints whose links are gone. Links of ours
// that belong to none of them are removed.
func (s *Segment) Adopt(networks []segment.Network, endpoints []segment.Endpoint) (gone []segment.Endpoint, err error) {
	all, err := s.Handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links, stray := map[string]netlink.Link{}, map[string]bool{}
	for _, l := range all {
		if Ours(l) {
			links[l.Attrs().Name], stray[l.Attrs().Name] = l, true
		}
	}
	// Everybody's sources at once: the table is replaced as a whole.
	for _, e := range endpoints {
		if name := segment.LinkName(e.ID); links[name] != nil {
			s.guard.ports[name] = port{mac: macOf(e.MAC), addresses: sources(e), loud: e.Network.Broadcast}
		}
	}
	for _, n := range networks {
		delete(stray, segment.BridgeName(n.VNI))
		delete(stray, segment.TunnelName(n.VNI))
		if err := s.addNetwork(n); err != nil {
			// The others must work all the same.
			s.Log.Error("network not restored", "network", n.ID, "error", err)
		}
	}
	for _, e := range endpoints {
		name := segment.LinkName(e.ID)
		l := links[name]
		if l == nil {
			gone = append(gone, e)
			continue
		}
		delete(stray, name)
		s.mu.Lock()
		s.endpoints[e.ID] = e
		n := s.networks[e.Network.ID]
		s.mu.Unlock()
		if n == nil {
			continue
		}
		if err := s.settle(n, e, l, true); err != nil {
			s.Log.Error("endpoint not restored", "endpoint", e.ID, "error", err)
		}
	}
	for name := range stray {
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
	if len(endpoints) == 0 {
		return nil, nil
	}
	all, err := s.Handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	there := map[string]bool{}
	for _, l := range all {
		there[l.Attrs().Name] = ours(l)
	}
	var gone []segment.Endpoint
	for _, e := range endpoints {
		if !there[segment.LinkName(e.ID)] {
			gone = append(gone, e)
		}
	}
	return gone, nil
}

// Ours reports whether a link is one that this package makes: a bridge, a
// VXLAN device, or the host's end of an endpoint's link.
func Ours(l netlink.Link) bool {
	a := l.Attrs()
	if a.Group != segment.BridgedMark {
		return false
	}
	switch l.Type() {
	case "bridge":
		return strings.HasPrefix(a.Name, segment.BridgePrefix)
	case "vxlan":
		return strings.HasPrefix(a.Name, segment.TunnelPrefix)
	}
	return ours(l)
}

// ours reports whether a link is the host's end of an endpoint's link.
func ours(l netlink.Link) bool {
	a := l.Attrs()
	return l.Type() == "veth" && a.Group == segment.BridgedMark && strings.HasPrefix(a.Name, segment.LinkPrefix)
}
