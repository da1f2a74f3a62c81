// Package carrier says what a carrier is: a way to bring packets from this
// host to another host of the fleet. `direct` (the hosts are on one link) is
// in package direct; `vxlan` and `wireguard` will stand beside it.
//
// A carrier knows hosts and how to reach them. It knows no endpoints and
// filters nothing.
//
// Design page: docs/design/network.md.
package carrier

import (
	"errors"
	"net/netip"
)

// ErrUnreachable means that a carrier cannot reach a host the way it works.
var ErrUnreachable = errors.New("host cannot be reached by this carrier")

// Peer is another host.
type Peer struct {
	// Host is its id and Address its underlay address.
	Host    string
	Address netip.Addr
	// Prefixes is what lies behind it, for carriers that must know.
	Prefixes []netip.Prefix
}

// Hop is the way to a peer, as routes name it.
type Hop struct {
	// Link is the index of the interface.
	Link int
	// Gateway is the next hop; not valid when the link needs none.
	Gateway netip.Addr
	// OnLink says that the gateway is on the link although no address says
	// so.
	OnLink bool
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
