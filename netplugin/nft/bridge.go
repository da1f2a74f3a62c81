package nft

import (
	"net"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Fields of frames, for tables of the family bridge. There a rule that reads
// a packet must say by [EtherType] what the frame holds, before it reads it.
var (
	FieldHardwareSource      = Field{"ether saddr", hardwareWidth, 0, loadPayload(expr.PayloadBaseLLHeader, 6, hardware)}
	FieldHardwareDestination = Field{"ether daddr", hardwareWidth, 0, loadPayload(expr.PayloadBaseLLHeader, 0, hardware)}
	FieldFrameSource         = Field{"ip saddr", 4, 0, loadPayload(expr.PayloadBaseNetworkHeader, 12, 4)}
	FieldFrameSource6        = Field{"ip6 saddr", 16, 0, loadPayload(expr.PayloadBaseNetworkHeader, 8, 16)}
	// FieldARPHardware and FieldARPSource are whom an ARP packet says to be
	// from (RFC 826, for Ethernet and IPv4).
	FieldARPHardware = Field{"arp saddr ether", hardwareWidth, 0, loadPayload(expr.PayloadBaseNetworkHeader, 8, hardware)}
	FieldARPSource   = Field{"arp saddr ip", 4, 0, loadPayload(expr.PayloadBaseNetworkHeader, 14, 4)}
	// FieldNeighbour is the target of a neighbour advertisement (RFC 4861,
	// section 4.4).
	FieldNeighbour = Field{"icmpv6 taddr", 16, 0, loadPayload(expr.PayloadBaseTransportHeader, 8, 16)}
)

// hardware is the length of an Ethernet address in bytes, hardwareWidth its
// length in a register.
const (
	hardware      = 6
	hardwareWidth = 8
)

// Types of ICMPv6 packets (RFC 4861, section 4).
const (
	NeighbourSolicitation  = 135
	NeighbourAdvertisement = 136
)

// EtherType matches frames that hold "ip", "ip6" or "arp".
func EtherType(name string) Statement {
	number := map[string]uint16{"ip": unix.ETH_P_IP, "ip6": unix.ETH_P_IPV6, "arp": unix.ETH_P_ARP}[name]
	return Statement{text: "meta protocol " + name, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.BigEndian.PutUint16(number)},
	}}
}

// MulticastFrame matches frames to more than one station, broadcasts among
// them.
func MulticastFrame() Statement {
	bit := []byte{1, 0, 0, 0, 0, 0}
	return Statement{text: "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00", exprs: []expr.Any{
		loadPayload(expr.PayloadBaseLLHeader, 0, hardware)(reg1),
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: hardware, Mask: bit, Xor: make([]byte, hardware)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: bit},
	}}
}

// HandUp gives a frame that has come in the bridge's own address, by which the
// host takes it for one to itself. It panics on what is no address: all callers
// pass the text of one.
func HandUp(bridge string) Statement {
	return Statement{text: "ether daddr set " + bridge + " meta pkttype set host", exprs: []expr.Any{
		&expr.Immediate{Register: reg1, Data: mustHardware(bridge)},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: reg1, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: hardware},
		&expr.Immediate{Register: reg1, Data: []byte{unix.PACKET_HOST}},
		&expr.Meta{Key: expr.MetaKeyPKTTYPE, SourceRegister: true, Register: reg1},
	}}
}

func mustHardware(address string) []byte {
	b, ok := hardwareAddress(address)
	if !ok {
		panic("nft: no Ethernet address: " + address)
	}
	return b[:hardware]
}

// FrameICMP6 matches frames with an ICMPv6 packet of the type; it says what
// the frame holds itself.
func FrameICMP6(kind byte) Statement {
	s := EtherType("ip6")
	s.text = "meta protocol ip6 icmpv6 type " + itoa(uint16(kind))
	s.exprs = append(s.exprs,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.IPPROTO_ICMPV6}},
		loadPayload(expr.PayloadBaseTransportHeader, 0, 1)(reg1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{kind}})
	return s
}

// FrameSource6 matches frames with an IPv6 packet from the prefix.
func FrameSource6(prefix string) Statement {
	s := addressMatch(FieldFrameSource, FieldFrameSource6, prefix)
	s.family = 0
	return s
}

// hardwareAddress reads an Ethernet address as a field of an element.
func hardwareAddress(s string) ([]byte, bool) {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != hardware {
		return nil, false
	}
	return append(m, 0, 0), true
}

// GoTo goes on in another chain; from there it goes back to where this chain
// was reached from.
func GoTo(chain string) Statement { return verdict("goto "+chain, expr.VerdictGoto, chain) }
