package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// State is everything that the table follows from.
type State struct {
	Fleet Fleet
	// Networks and Endpoints are those that are present on this host.
	Networks  []Network
	Endpoints []Endpoint
}

// Fleet is what the table follows from beside what is on this host. All lists
// are in any order.
type Fleet struct {
	// Prefixes is all address space of the fleet's networks, and Open that of
	// networks which are not filtered.
	Prefixes, Open []netip.Prefix
	// Hosts are the hosts' underlay addresses. Containers reach them at the
	// Reachable ports only.
	Hosts     []netip.Addr
	Reachable []HostPort
	// Openings are what is allowed between networks, and Machines this host's
	// own places on networks.
	Openings []Opening
	Machines []Machine
}

// HostPort is a port of a host that leads to a container.
type HostPort struct {
	Host netip.Addr
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string
	Port     uint16
}

// Opening lets new connections pass from one range to another although they
// are of different networks.
type Opening struct {
	// From and To are prefixes of either family; only those of one family
	// are opened to each other.
	From, To []netip.Prefix
	// Protocol is "tcp", "udp", "sctp", "icmp" or "" for all, Port 0 for all.
	Protocol string
	Port     uint16
}

// Machine is the host's own place on a network: see record.Attached.
type Machine struct {
	// Subnets are the network's, and Addresses the machine's there.
	Subnets   []netip.Prefix
	Addresses []netip.Addr
}

// Network is a network that is present on this host.
type Network struct {
	ID string
	// Of the two families one may be missing; its fields are not valid then.
	Subnet, Subnet6   netip.Prefix
	Gateway, Gateway6 netip.Addr
	// Bridge is the name of the network's bridge, empty when it has none.
	Bridge string
	// Egress says that its containers get out through this host: their
	// packets are given the host's address. Egress6 is the same for IPv6.
	// Never true of an internal network.
	Egress, Egress6 bool
	// Unfiltered says that it is open to whoever has a route, and that its
	// containers' addresses are kept on the way out.
	Unfiltered bool
}

// out are the families whose packets get out here.
func (n Network) out() (v4, v6 bool) { return n.Egress || n.Unfiltered, n.Egress6 || n.Unfiltered }

// subnets are the network's, of either family.
func (n Network) subnets() []netip.Prefix { return valid(n.Subnet, n.Subnet6) }

func valid(ps ...netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(ps, func(p netip.Prefix) bool { return !p.IsValid() })
}

// Endpoint is one local endpoint.
type Endpoint struct {
	// Link is the name of the host's end of its link.
	Link    string
	Network string
	// Address and Address6 are its addresses; one may be missing.
	Address, Address6 netip.Addr
	Ports             []Port
}

// Port is a port of the host that leads to a port of an endpoint.
type Port struct {
	// Protocol is the IP protocol: 6 (TCP), 17 (UDP) or 132 (SCTP).
	Protocol uint8
	// HostIP is the host's address; unspecified for all of its family, not
	// valid for all.
	HostIP   netip.Addr
	HostPort uint16
	Port     uint16
}

// String is like docker's: 127.0.0.1:8080->80/tcp.
func (p Port) String() string {
	ip := netip.IPv4Unspecified()
	if p.HostIP.IsValid() {
		ip = p.HostIP
	}
	return fmt.Sprintf("%s->%d/%s", netip.AddrPortFrom(ip, p.HostPort), p.Port, protocolName(p.Protocol))
}

// ProtocolName is "tcp", "udp" or "sctp", or the number of another protocol.
func (p Port) ProtocolName() string { return protocolName(p.Protocol) }

func protocolName(p uint8) string {
	switch p {
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 132:
		return "sctp"
	}
	return fmt.Sprint(p)
}
