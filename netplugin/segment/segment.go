// Package segment says what a kind of network segment is: how endpoints are
// linked to a host and how packets find them there. `routed` (L3: each
// endpoint on a link of its own, reached by host routes) is in package
// routed; `bridged` (L2) will stand beside it.
//
// A segment brings packets to the right place. It never decides which packets
// may pass: that is package policy. How packets get from host to host is the
// matter of a carrier.
//
// Design page: docs/design/networks.md.
package segment

import (
	"context"
	"crypto/sha256"
	"net"
	"net/netip"
)

// Network is a network of the fleet as it is present on this host.
type Network struct {
	// ID is the network's id in the fleet, not the engine's.
	ID string `json:"id"`
	// Subnet and Gateway are IPv4, Subnet6 and Gateway6 IPv6. Those of a
	// family that the network does not have are not valid.
	Subnet   netip.Prefix `json:"subnet,omitzero"`
	Gateway  netip.Addr   `json:"gateway,omitzero"`
	Subnet6  netip.Prefix `json:"subnet6,omitzero"`
	Gateway6 netip.Addr   `json:"gateway6,omitzero"`
	MTU      int          `json:"mtu"`
	// Kind is "routed" or "bridged"; VNI is the identifier of a bridged
	// network on the wire.
	Kind string `json:"kind,omitempty"`
	VNI  int    `json:"vni,omitempty"`
	// Broadcast has a bridged network bring broadcasts and multicasts to all
	// its endpoints.
	Broadcast bool `json:"broadcast,omitempty"`
	// Carrier is "direct", "vxlan", "wireguard" or "auto".
	Carrier string `json:"carrier,omitempty"`
}

// Endpoint is one container's place on a network.
type Endpoint struct {
	// ID is the engine's endpoint id.
	ID      string  `json:"id"`
	Network Network `json:"network"`
	// Address is the address with the mask that the container's interface
	// gets: a single address where neighbours are routed to, the subnet
	// where the container takes them to be on its link. Address6 is the same
	// of IPv6. At least one is valid.
	Address  netip.Prefix     `json:"address,omitzero"`
	Address6 netip.Prefix     `json:"address6,omitzero"`
	MAC      net.HardwareAddr `json:"mac"`
}

// Addresses are the endpoint's addresses, of either family.
func (e Endpoint) Addresses() []netip.Addr {
	var all []netip.Addr
	for _, p := range []netip.Prefix{e.Address, e.Address6} {
		if p.IsValid() {
			all = append(all, p.Addr())
		}
	}
	return all
}

// Subnets are the network's subnets with their gateways, of either family.
func (n Network) Subnets() []Subnet {
	var all []Subnet
	for _, s := range []Subnet{{n.Subnet, n.Gateway}, {n.Subnet6, n.Gateway6}} {
		if s.Prefix.IsValid() {
			all = append(all, s)
		}
	}
	return all
}

// Subnet is one family's part of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr
}

// Segment is one kind of segment. All methods may be called at the same time
// and again with the same arguments. A segment may make and remove links,
// routes, addresses and neighbour entries that bear its mark, and touches no
// others.
type Segment interface {
	// Attach links an endpoint to the host. When it returns, PeerName's
	// interface can be moved into a container, and the host reaches the
	// address through it.
	Attach(Endpoint) error
	// Detach takes an endpoint away. It returns at once: the work is done
	// aside and tried again until it is done.
	Detach(Endpoint)
	// AddNetwork makes a network present on this host, RemoveNetwork takes
	// it away.
	AddNetwork(Network) error
	RemoveNetwork(id string)
	// Adopt takes over networks and endpoints that an earlier run attached,
	// and reports those endpoints whose links are gone. Links of its kind that
	// belong to none of them are removed.
	Adopt([]Network, []Endpoint) (gone []Endpoint, err error)
	// Gone reports the endpoints whose links are gone: their containers
	// ended, or somebody removed the link.
	Gone() ([]Endpoint, error)
	// Run keeps the kernel in step with what is attached and with the other
	// hosts until ctx ends. changed signals a change of the topology.
	Run(ctx context.Context, changed <-chan struct{}) error
}

// Machines is a kind of segment that can put the host itself on networks.
type Machines interface {
	// SetMachine gives the host addresses of its own on a network that is
	// present, in place of those it had; none takes them away.
	SetMachine(network string, addrs []netip.Addr) error
}

// LinkPrefix begins the name of the host's end of every endpoint's link, and
// PeerPrefix that of the end that containers get, as long as the host has it.
const (
	LinkPrefix = "ck"
	PeerPrefix = "cx"
)

// LinkName is the name of the host's end of an endpoint's link.
func LinkName(endpoint string) string { return LinkPrefix + shorten(endpoint) }

// PeerName is the name that the container's end has before the engine moves
// it and after the engine gives it back.
func PeerName(endpoint string) string { return PeerPrefix + shorten(endpoint) }

// shorten keeps as much of an engine's random id as a link's name holds (15
// bytes): 52 bits.
func shorten(id string) string { return id[:min(13, len(id))] }

// MAC derives an endpoint's hardware address from its address, so that a
// neighbour entry stays right when an address is used again.
func MAC(a netip.Addr) net.HardwareAddr {
	if a.Is6() {
		b := sha256.Sum256(a.AsSlice())
		return net.HardwareAddr{0x02, 0x46, b[0], b[1], b[2], b[3]}
	}
	b := a.As4()
	return net.HardwareAddr{0x02, 0x42, b[0], b[1], b[2], b[3]}
}
