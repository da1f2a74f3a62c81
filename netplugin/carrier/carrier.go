// Package carrier says what a carrier is: a way to bring packets from this
// host to another host of the fleet. `direct` (the hosts are on one link) is
// in package direct, `vxlan` (over any network) in package vxlan, `wireguard`
// (the same, encrypted) in package wireguard; `auto` chooses for each host.
//
// A carrier knows hosts and how to reach them. It knows no endpoints and
// filters nothing.
//
// Design page: docs/design/network.md.
package carrier

import (
	"errors"
	"net"
	"net/netip"
)

// ErrUnreachable means that a carrier cannot reach a host the way it works.
var ErrUnreachable = errors.New("host cannot be reached by this carrier")

// Peer is another host.
type Peer struct {
	// Host is its id and Address its underlay address.
	Host    string
	Address netip.Addr
	// LinkLocal is the IPv6 address of the interface with Address, MAC its
	// hardware address, Links are its prefixes, and Key is the host's public
	// key for WireGuard; see record.Underlay. Any may be missing.
	LinkLocal netip.Addr
	MAC       net.HardwareAddr
	Links     []netip.Prefix
	Key       string
	// Prefixes is what lies behind it, for carriers that must know.
	Prefixes []netip.Prefix
}

// Hop is the way to a peer, as routes name it.
type Hop struct {
	// Link is the index of the interface.
	Link int
	// Gateway is the next hop, Gateway6 that of IPv6 packets; not valid when
	// the link needs none.
	Gateway  netip.Addr
	Gateway6 netip.Addr
	// OnLink says that the gateway is on the link although no address says
	// so.
	OnLink bool
	// MTU is the greatest packet in bytes that the way takes, 0 for what the
	// link takes.
	MTU int
}

// Carrier is one way between hosts. It may make and remove devices and
// entries of its own, and touches no others.
type Carrier interface {
	// Name is "direct", "vxlan" or "wireguard".
	Name() string
	// Overhead is what it adds to each packet, in bytes.
	Overhead() int
	// Underlay is this host's underlay MTU in bytes.
	Underlay() (mtu int, err error)
	// Sync makes exactly these peers reachable, as far as the carrier can.
	Sync(peers []Peer) error
	// Hop says how to get to a peer. The error is [ErrUnreachable], with the
	// reason, when this carrier has no way.
	Hop(Peer) (Hop, error)
}
