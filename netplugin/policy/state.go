package policy

import (
	"fmt"
	"net/netip"
)

// State is everything that the table follows from.
type State struct {
	// Fleet is all address space of the fleet's networks, in any order.
	Fleet []netip.Prefix
	// Networks and Endpoints are those that are present on this host.
	Networks  []Network
	Endpoints []Endpoint
}

// Network is a network that is present on this host.
type Network struct {
	ID      string
	Subnet  netip.Prefix
	Gateway netip.Addr
	// Egress says that its containers get out through this host: their
	// packets are given the host's address. Never true of an internal
	// network.
	Egress bool
}

// Endpoint is one local endpoint.
type Endpoint struct {
	// Link is the name of the host's end of its link.
	Link    string
	Network string
	Address netip.Addr
	Ports   []Port
}

// Port is a port of the host that leads to a port of an endpoint.
type Port struct {
	// Protocol is the IP protocol: 6 (TCP), 17 (UDP) or 132 (SCTP).
	Protocol uint8
	// HostIP is the host's address; not valid, or unspecified, for all.
	HostIP   netip.Addr
	HostPort uint16
	Port     uint16
}

// String is like docker's: 127.0.0.1:8080->80/tcp.
func (p Port) String() string {
	ip := "0.0.0.0"
	if p.HostIP.IsValid() {
		ip = p.HostIP.String()
	}
	return fmt.Sprintf("%s:%d->%d/%s", ip, p.HostPort, p.Port, protocolName(p.Protocol))
}

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
