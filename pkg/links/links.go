// Package links works out, from what hosts say about their underlays, which
// hosts are on one link and how much of a packet is lost on the way between
// others.
//
// The package is pure: it looks at no interface.
//
// Design page: docs/design/carriers.md.
package links

import (
	"net/netip"

	"clocker.io/clocker/pkg/record"
)

// What a carrier adds to each packet, in bytes, where hosts reach each other
// by IPv4, and how much more it is by IPv6. VXLAN: outer IP, UDP, VXLAN and
// inner Ethernet headers (RFC 7348 §5). WireGuard: outer IP, UDP, and 32 bytes
// of a data message (WireGuard's paper §5.4.6).
const (
	VXLAN     = 20 + 8 + 8 + 14
	WireGuard = 20 + 8 + 32
	ByIPv6    = 20
)

// Padding is to a multiple of what WireGuard fills packets up, unless that
// makes them larger than the sender's device takes (WireGuard's paper §5.4.6).
// A host with a smaller device takes no more than such a multiple.
const Padding = 16

// ethernet is the MTU of a fleet of which nothing is known.
const ethernet = 1500

// MTU is the largest packet of a network, in bytes, that every host can send
// to every other one by the carrier, see [Overhead]. With WireGuard it is a
// multiple of [Padding], whatever the hosts that come later take.
func MTU(carrier string, hosts []record.Underlay) int {
	least := 0
	for _, u := range hosts {
		if u.MTU > 0 && (least == 0 || u.MTU < least) {
			least = u.MTU
		}
	}
	if least == 0 {
		least = ethernet
	}
	most := least - Overhead(carrier, hosts)
	if carrier == "wireguard" {
		most = Padded(most)
	}
	return most
}

// Padded is the largest packet that does not grow past most when it is filled
// up.
func Padded(most int) int { return most - most%Padding }

// Same reports whether two hosts are on one link: each has the other in a
// prefix of the interface by which it is reached. Of a host that does not say
// what its prefixes are, nothing is known.
func Same(a, b record.Underlay) bool {
	x, y := parse(a), parse(b)
	return x.sees(y) && y.sees(x)
}

// Overhead is what a network's packets lose between the hosts, in bytes, with
// the carrier "direct", "vxlan", "wireguard" or "auto" (also ""). With auto it
// is nothing as long as all hosts are on one link.
func Overhead(carrier string, hosts []record.Underlay) int {
	all := make([]host, len(hosts))
	more := 0
	for i, u := range hosts {
		all[i] = parse(u)
		if all[i].address.Is6() {
			more = ByIPv6
		}
	}
	switch carrier {
	case "direct":
		return 0
	case "vxlan":
		return VXLAN + more
	case "wireguard":
		return WireGuard + more
	}
	for i, a := range all {
		for _, b := range all[:i] {
			if !a.sees(b) || !b.sees(a) {
				return VXLAN + more
			}
		}
	}
	return 0
}

// host is a record with its texts read.
type host struct {
	address  netip.Addr
	prefixes []netip.Prefix
}

// parse leaves out what cannot be read.
func parse(u record.Underlay) host {
	var h host
	if a, err := netip.ParseAddr(u.Address); err == nil {
		h.address = a
	}
	for _, l := range u.Links {
		if p, err := netip.ParsePrefix(l); err == nil {
			h.prefixes = append(h.prefixes, p)
		}
	}
	return h
}

func (h host) sees(other host) bool { return Within(other.address, h.prefixes) }

// Within reports whether an address is in one of the prefixes.
func Within(a netip.Addr, prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
