package bridged

import (
	"net"
	"net/netip"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

// mac is a hardware address that can be compared.
type mac [6]byte

func macOf(a net.HardwareAddr) (m mac) {
	copy(m[:], a)
	return m
}

func (m mac) address() net.HardwareAddr { return net.HardwareAddr(m[:]) }

// place is where frames for an address go. Of Link and Host one is set, or
// none for a service, whose connections the host itself spreads.
type place struct {
	MAC mac
	// Link is the link of a local endpoint.
	Link string
	// Host is the underlay address of the host that has the endpoint.
	Host netip.Addr
}

// local is an endpoint of this host with one of its addresses.
type local struct {
	endpoint string
	mac      mac
	// told says that etcd has heard of it: a record that says another host has
	// the address is then a newer one.
	told bool
}

// gatewayMAC is the hardware address of every bridge on every host: a
// container's neighbour entry for its gateway stays right wherever it goes.
var gatewayMAC = mac{0x02, 0x43, 0x4b, 0x00, 0x00, 0x02}

// serviceMAC is what containers take for the hardware address of services.
// Frames to it get the bridge's own on their way in: a bridge answers only for
// who is behind a port, and so this one is, as far as its entries say.
var serviceMAC = mac{0x02, 0x43, 0x4b, 0x00, 0x00, 0x03}

// find works out the place of an address in a network. An address that two
// hosts say they have is where the newer record in etcd says; what this host
// has not told yet is newer than anything.
func find(host string, n segment.Network, a netip.Addr, here map[netip.Addr]local, t *topology.Topology) (place, bool) {
	r, known := t.Endpoints[n.ID][a]
	l, isLocal := here[a]
	if isLocal && (!known || r.Host == host || !l.told) {
		return place{MAC: l.mac, Link: segment.LinkName(l.endpoint)}, true
	}
	if known && r.Host != host {
		m, err := net.ParseMAC(r.MAC)
		via, err2 := netip.ParseAddr(t.Underlays[r.Host].Address)
		// Without a hardware address it has no container yet.
		if err == nil && err2 == nil && len(m) == len(mac{}) {
			return place{MAC: macOf(m), Host: via}, true
		}
		return place{}, false
	}
	if isService(t, n.ID, a) {
		return place{MAC: serviceMAC}, true
	}
	return place{}, false
}

// isService reports whether an address is a service's. Those of IPv6 are in
// the record of the IPv4 one, if there is one.
func isService(t *topology.Topology, network string, a netip.Addr) bool {
	services := t.Services[network]
	if _, ok := services[a]; ok || a.Is4() {
		return ok
	}
	for _, v := range services {
		if b, err := netip.ParseAddr(v.Address6); err == nil && a == b {
			return true
		}
	}
	return false
}

// findAll works out every place of a network.
func findAll(host string, n segment.Network, here map[netip.Addr]local, t *topology.Topology) map[netip.Addr]place {
	all := make(map[netip.Addr]place, len(t.Endpoints[n.ID])+len(here))
	add := func(a netip.Addr) {
		if p, ok := find(host, n, a, here, t); ok {
			all[a] = p
		}
	}
	for a := range t.Endpoints[n.ID] {
		add(a)
	}
	for a := range here {
		add(a)
	}
	for a, v := range t.Services[n.ID] {
		add(a)
		if a6, err := netip.ParseAddr(v.Address6); err == nil {
			add(a6)
		}
	}
	return all
}

// listeners are the underlay addresses of the other hosts with endpoints in a
// network: those that its broadcasts go to.
func listeners(host, network string, t *topology.Topology) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, e := range t.Endpoints[network] {
		if a, err := netip.ParseAddr(t.Underlays[e.Host].Address); err == nil && e.Host != host {
			all[a] = true
		}
	}
	return all
}
