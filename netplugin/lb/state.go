package lb

import (
	"fmt"
	"net/netip"
)

// State is everything that the table follows from.
type State struct {
	// Networks are those that have addresses of services, by id.
	Networks map[string]Network
	// Services are by their address, Ports by themselves.
	Services map[netip.Addr]Service
	Ports    map[Socket]Port
	// Local are the replicas on this host that connections are spread over.
	Local map[netip.Addr]bool
	// Fleet is all address space of the fleet's networks: ports are not
	// answered there. Sorted, and none contains another.
	Fleet []netip.Prefix
	// Hosts are the addresses of all other hosts of the fleet on the underlay.
	Hosts map[netip.Addr]bool
}

// Network says who may reach the addresses of services in a network.
type Network struct {
	// From are the network's own subnets, of either family, and the ranges
	// that rules let in, in order.
	From []netip.Prefix
	// Gateways are the network's own, which are on every host: nobody asks as
	// one of them.
	Gateways []netip.Addr
}

// Service is a service's address in a network.
type Service struct {
	Network string
	// Replicas are of the address's family. Their order is that of the
	// table's slots, once [arrange] has seen them.
	Replicas []netip.Addr
}

// Socket is a port that every host answers on.
type Socket struct {
	// Protocol is "tcp" or "udp".
	Protocol string
	Port     uint16
}

// String is like "80/tcp".
func (s Socket) String() string { return fmt.Sprintf("%d/%s", s.Port, s.Protocol) }

// Port is what a [Socket] leads to.
type Port struct {
	// Address limits it to one address of the host; not valid for all.
	Address netip.Addr
	// Network is where the replicas are, Target their port.
	Network string
	Target  uint16
	// Replicas and Replicas6 are their addresses of either family, Here and
	// Here6 those on this host.
	Replicas, Replicas6, Here, Here6 []netip.Addr
	// Hosts are the underlay addresses of those on other hosts, which answer
	// on the port too, by their own.
	Hosts map[netip.Addr]netip.Addr
}

// NewState returns a state without anything.
func NewState() State {
	return State{
		Networks: map[string]Network{}, Services: map[netip.Addr]Service{}, Ports: map[Socket]Port{},
		Local: map[netip.Addr]bool{}, Hosts: map[netip.Addr]bool{},
	}
}
