// Package carrier says what a carrier is: a way to bring packets from this
// host to another host of the fleet. `direct` (the hosts are on one link) is
// in package direct, `vxlan` (over any network) in package vxlan, `wireguard`
// (the same, encrypted) in package wireguard; `auto` chooses for each host.
//
// A carrier knows hosts and how to reach them. It knows no endpoints and
// filters nothing.
//
// Design page: docs/design/carriers.md.
package carrier

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"clocker.io/clocker/pkg/record"
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
	// MTU is that of the peer's interface in bytes, 0 when it is not known.
	MTU int
	// Prefixes is what lies behind it, for carriers that must know.
	Prefixes []netip.Prefix
}

// PeerOf is the peer that a host's record describes, with what lies behind it.
// The error says that the record has no address; whatever else cannot be read
// is left out.
func PeerOf(u record.Underlay, prefixes []netip.Prefix) (Peer, error) {
	a, err := netip.ParseAddr(u.Address)
	if err != nil {
		return Peer{}, fmt.Errorf("read underlay address of host %s: %w", u.Host, err)
	}
	p := Peer{Host: u.Host, Address: a, Key: u.WireGuard, MTU: u.MTU, Prefixes: prefixes}
	if l, err := netip.ParseAddr(u.LinkLocal); err == nil {
		p.LinkLocal = l
	}
	if m, err := net.ParseMAC(u.MAC); err == nil {
		p.MAC = m
	}
	for _, text := range u.Links {
		if l, err := netip.ParsePrefix(text); err == nil {
			p.Links = append(p.Links, l)
		}
	}
	return p, nil
}

// Hop is the way to a peer, as routes name it.
type Hop struct {
	// Link is the index of the interface.
	Link int
	// Gateway is the next hop, Gateway6 that of IPv6 packets; not valid when
	// the link needs none. A Gateway that is IPv6 is the next hop of IPv4
	// packets all the same (RFC 8950): hosts whose underlay is IPv6.
	Gateway  netip.Addr
	Gateway6 netip.Addr
	// OnLink says that the gateway is on the link although no address says
	// so.
	OnLink bool
	// MTU is the greatest packet in bytes that the way takes, 0 for what the
	// link takes.
	MTU int
	// Source is the address that the host itself uses on the way, for packets
	// of its family: that a packet was too large, for example. Not valid where
	// the kernel chooses right by itself.
	Source netip.Addr
}

// Carrier is one way between hosts. It may make and remove devices and
// entries of its own, and touches no others.
type Carrier interface {
	// Name is "direct", "vxlan", "wireguard" or "auto".
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
