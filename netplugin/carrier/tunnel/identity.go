package tunnel

import (
	"crypto/sha256"
	"net"
	"net/netip"
)

// Identity is how a host is called on the tunnel devices of every other host:
// worked out from its id alone, so that nobody has to be asked or told.
type Identity struct {
	MAC net.HardwareAddr
	// LinkLocal is the next hop of IPv6 packets to the host.
	LinkLocal netip.Addr
	// Own is an IPv4 address of class E, which nobody else uses and which is
	// never in a packet.
	Own netip.Addr
}

// Identify works out a host's identity. 46 bits of the hash make two hosts
// with one hardware address unlikely in any fleet.
func Identify(host string) Identity {
	h := sha256.Sum256([]byte("tunnel " + host))
	// The lowest two bits of the first byte: not of a group, and not given by
	// a manufacturer (IEEE 802).
	mac := net.HardwareAddr{h[0]&^0x03 | 0x02, h[1], h[2], h[3], h[4], h[5]}
	link := [16]byte{0: 0xfe, 1: 0x80}
	copy(link[8:], h[8:16])
	// The last bit is 0: never the broadcast address.
	own := [4]byte{0xf0 | h[16]&0x0f, h[17], h[18], h[19] &^ 0x01}
	return Identity{MAC: mac, LinkLocal: netip.AddrFrom16(link), Own: netip.AddrFrom4(own)}
}

// Next is the next hop of IPv4 packets to the host: its underlay address,
// which says more to who reads the routes, where that is IPv4.
func (i Identity) Next(underlay netip.Addr) netip.Addr {
	if underlay.Is4() {
		return underlay
	}
	return i.Own
}
