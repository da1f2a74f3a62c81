package nft

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Echo matches ICMP echo requests (RFC 792).
func Echo() Statement { return icmp("echo-request", 8) }

// Echo6 matches ICMPv6 echo requests (RFC 4443).
func Echo6() Statement { return icmp6("echo-request", 128) }

// NeighbourSolicit and NeighbourAdvert match what IPv6 neighbours find each
// other by (RFC 4861).
func NeighbourSolicit() Statement { return icmp6("nd-neighbor-solicit", 135) }

// NeighbourAdvert matches the answer to a solicitation.
func NeighbourAdvert() Statement { return icmp6("nd-neighbor-advert", 136) }

// Unreachable matches what tells a sender that a packet could not go on, also
// because it was too big for the way (RFC 1191).
func Unreachable() Statement { return icmp("destination-unreachable", 3) }

// Unreachable6 is [Unreachable] of ICMPv6.
func Unreachable6() Statement { return icmp6("destination-unreachable", 1) }

// TooBig6 matches what tells a sender the greatest packet of the way
// (RFC 8201).
func TooBig6() Statement { return icmp6("packet-too-big", 2) }

func icmp(name string, kind byte) Statement {
	return icmpMatch("icmp type "+name, unix.NFPROTO_IPV4, unix.IPPROTO_ICMP, kind)
}

func icmp6(name string, kind byte) Statement {
	return icmpMatch("icmpv6 type "+name, unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6, kind)
}

func icmpMatch(text string, family, protocol, kind byte) Statement {
	return Statement{text: text, family: family, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{protocol}},
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{kind}},
	}}
}

// Protocol matches packets of a transport protocol: "tcp", "udp", "icmp",
// "ipv6-icmp" or "sctp".
func Protocol(name string) Statement {
	number := map[string]byte{
		"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "icmp": unix.IPPROTO_ICMP,
		"ipv6-icmp": unix.IPPROTO_ICMPV6, "sctp": unix.IPPROTO_SCTP,
	}[name]
	return Statement{text: "meta l4proto " + name, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{number}},
	}}
}
