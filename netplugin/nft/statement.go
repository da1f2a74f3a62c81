package nft

import (
	"net/netip"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Statement is one part of a rule: a match, a verdict, a translation. Its
// text is what nft(8) would take, and exprs what the kernel takes.
type Statement struct {
	text  string
	exprs []expr.Any
	// family is the protocol (unix.NFPROTO_*) whose header it reads, 0 for
	// none: the rule must then be for that only, which nft(8) adds by itself.
	family byte
}

// Registers: values of one field go to reg1; those of several lie one after
// the other from there on, each on a multiple of four bytes.
const (
	reg1   = unix.NFT_REG_1
	reg32  = unix.NFT_REG32_00
	ifname = 16 // bytes of an interface's name
)

// Field is something of a packet that sets are looked up by.
type Field struct {
	text   string
	bytes  uint32
	family byte
	load   func(reg uint32) expr.Any
}

// The fields that sets are looked up by.
var (
	FieldInLink          = Field{"iifname", ifname, 0, loadMeta(expr.MetaKeyIIFNAME)}
	FieldOutLink         = Field{"oifname", ifname, 0, loadMeta(expr.MetaKeyOIFNAME)}
	FieldSource          = Field{"ip saddr", 4, unix.NFPROTO_IPV4, loadPayload(expr.PayloadBaseNetworkHeader, 12, 4)}
	FieldDestination     = Field{"ip daddr", 4, unix.NFPROTO_IPV4, loadPayload(expr.PayloadBaseNetworkHeader, 16, 4)}
	FieldSource6         = Field{"ip6 saddr", 16, unix.NFPROTO_IPV6, loadPayload(expr.PayloadBaseNetworkHeader, 8, 16)}
	FieldDestination6    = Field{"ip6 daddr", 16, unix.NFPROTO_IPV6, loadPayload(expr.PayloadBaseNetworkHeader, 24, 16)}
	FieldProtocol        = Field{"meta l4proto", 4, 0, loadMeta(expr.MetaKeyL4PROTO)}
	FieldDestinationPort = Field{"th dport", 4, 0, loadPayload(expr.PayloadBaseTransportHeader, 2, 2)}
)

func loadMeta(k expr.MetaKey) func(uint32) expr.Any {
	return func(reg uint32) expr.Any { return &expr.Meta{Key: k, Register: reg} }
}

func loadPayload(base expr.PayloadBase, offset, length uint32) func(uint32) expr.Any {
	return func(reg uint32) expr.Any {
		return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length}
	}
}

// load puts fields into registers for a lookup.
func load(fields []Field) (s Statement) {
	var names []string
	at := uint32(0)
	for _, f := range fields {
		reg := uint32(reg1)
		if at > 0 {
			reg = reg32 + at/4
		}
		s.exprs = append(s.exprs, f.load(reg))
		s.family = max(s.family, f.family)
		names = append(names, f.text)
		at += f.bytes
	}
	s.text = strings.Join(names, " . ")
	return s
}

func lookup(text string, set string, invert bool, fields []Field) Statement {
	s := load(fields)
	s.text += text + "@" + set
	s.exprs = append(s.exprs, &expr.Lookup{SourceRegister: reg1, SetName: set, Invert: invert})
	return s
}

// InSet matches packets whose fields are an element of the set.
func InSet(set string, fields ...Field) Statement { return lookup(" ", set, false, fields) }

// NotInSet matches packets whose fields are no element of the set.
func NotInSet(set string, fields ...Field) Statement { return lookup(" != ", set, true, fields) }

// Dispatch goes on where the verdict map says for the field.
func Dispatch(set string, f Field) Statement {
	s := load([]Field{f})
	s.text += " vmap @" + set
	s.exprs = append(s.exprs, &expr.Lookup{
		SourceRegister: reg1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set,
	})
	return s
}

// TranslateTo sends the connection to the address and port that the map has
// for the fields; without an element the rule does not match, and the kernel
// translates IPv4 packets only.
func TranslateTo(set string, fields ...Field) Statement {
	return translate("dnat ip to ", unix.NFPROTO_IPV4, 4, set, fields)
}

// TranslateTo6 is [TranslateTo] for IPv6 packets.
func TranslateTo6(set string, fields ...Field) Statement {
	return translate("dnat ip6 to ", unix.NFPROTO_IPV6, 16, set, fields)
}

// translate looks an address of the given length, and a port, up.
func translate(text string, family, length uint32, set string, fields []Field) Statement {
	s := load(fields)
	s.text = text + s.text + " map @" + set
	s.exprs = append(s.exprs,
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg1, RegProtoMin: reg32 + length/4})
	return s
}

// Masquerade gives the connection the address of the way out.
func Masquerade() Statement {
	return Statement{text: "masquerade", exprs: []expr.Any{&expr.Masq{}}}
}

func nameMatch(text string, key expr.MetaKey, op expr.CmpOp, prefix string) Statement {
	not := map[expr.CmpOp]string{expr.CmpOpEq: " ", expr.CmpOpNeq: " != "}[op]
	return Statement{text: text + not + `"` + prefix + `*"`, exprs: []expr.Any{
		&expr.Meta{Key: key, Register: reg1},
		&expr.Cmp{Op: op, Register: reg1, Data: []byte(prefix)},
	}}
}

// InLink matches packets that came by an interface whose name begins so.
func InLink(prefix string) Statement {
	return nameMatch("iifname", expr.MetaKeyIIFNAME, expr.CmpOpEq, prefix)
}

// NotInLink matches all others.
func NotInLink(prefix string) Statement {
	return nameMatch("iifname", expr.MetaKeyIIFNAME, expr.CmpOpNeq, prefix)
}

// OutLink matches packets that go out by an interface whose name begins so.
func OutLink(prefix string) Statement {
	return nameMatch("oifname", expr.MetaKeyOIFNAME, expr.CmpOpEq, prefix)
}

// NotOutLink matches all others.
func NotOutLink(prefix string) Statement {
	return nameMatch("oifname", expr.MetaKeyOIFNAME, expr.CmpOpNeq, prefix)
}

// SourceLeadsTo matches packets whose source the host would reach by an
// interface whose name begins so.
func SourceLeadsTo(prefix string) Statement {
	return Statement{text: `fib saddr oifname "` + prefix + `*"`, exprs: []expr.Any{
		&expr.Fib{Register: reg1, ResultOIFNAME: true, FlagSADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte(prefix)},
	}}
}

// LocalDestination matches packets to an address of the host.
func LocalDestination() Statement {
	return Statement{text: "fib daddr type local", exprs: []expr.Any{
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}}
}

// NotLocalSource matches packets that do not come from an address of the host.
func NotLocalSource() Statement {
	return Statement{text: "fib saddr type != local", exprs: []expr.Any{
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagSADDR: true},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}}
}

// Source matches an address or prefix, of either family, that a packet comes
// from.
func Source(p string) Statement { return addressMatch(FieldSource, FieldSource6, p) }

// Destination matches an address or prefix, of either family, that a packet
// goes to.
func Destination(p string) Statement { return addressMatch(FieldDestination, FieldDestination6, p) }

// addressMatch panics on something that is no address or prefix: all callers
// pass constants or the text of one.
func addressMatch(v4, v6 Field, text string) Statement {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a := netip.MustParseAddr(text)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	f := v4
	if p.Addr().Is6() {
		f = v6
	}
	s := Statement{text: f.text + " " + text, family: f.family, exprs: []expr.Any{f.load(reg1)}}
	if !p.IsSingleIP() {
		s.exprs = append(s.exprs, &expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: f.bytes, Mask: mask(p), Xor: make([]byte, f.bytes)})
	}
	s.exprs = append(s.exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: p.Masked().Addr().AsSlice()})
	return s
}

// mask is the mask of a prefix, as long as its address.
func mask(p netip.Prefix) []byte {
	m := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}

// DestinationPort matches a port of a protocol, "tcp" or "udp".
func DestinationPort(protocol string, port uint16) Statement {
	number := map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}[protocol]
	return Statement{text: protocol + " dport " + itoa(port), exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{number}},
		FieldDestinationPort.load(reg1),
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.BigEndian.PutUint16(port)},
	}}
}

// NetworkProtocol matches "ipv4" or "ipv6" packets.
func NetworkProtocol(name string) Statement {
	number := map[string]byte{"ipv4": unix.NFPROTO_IPV4, "ipv6": unix.NFPROTO_IPV6}[name]
	return Statement{text: "meta nfproto " + name, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{number}},
	}}
}

// ConnectionState matches packets of connections in one of the states.
func ConnectionState(names ...string) Statement {
	bits := map[string]uint32{
		"new": expr.CtStateBitNEW, "invalid": expr.CtStateBitINVALID, "established": expr.CtStateBitESTABLISHED, "related": expr.CtStateBitRELATED,
	}
	var mask uint32
	for _, n := range names {
		mask |= bits[n]
	}
	return ctBits("ct state "+strings.Join(names, ","), expr.CtKeySTATE, mask)
}

// Translated matches connections whose destination was translated: those to
// published ports.
func Translated() Statement {
	const destinationTranslated = 1 << 5 // IPS_DST_NAT
	return ctBits("ct status dnat", expr.CtKeySTATUS, destinationTranslated)
}

func ctBits(text string, key expr.CtKey, mask uint32) Statement {
	return Statement{text: text, exprs: []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}}
}

// Accept lets the packet pass this hook of the table.
func Accept() Statement { return verdict("accept", expr.VerdictAccept, "") }

// Return goes back to the chain that this one was reached from by jump.
func Return() Statement { return verdict("return", expr.VerdictReturn, "") }

// Jump goes on in another chain.
func Jump(chain string) Statement { return verdict("jump "+chain, expr.VerdictJump, chain) }

// Drop counts and drops the packet.
func Drop() Statement {
	s := verdict("counter drop", expr.VerdictDrop, "")
	s.exprs = append([]expr.Any{&expr.Counter{}}, s.exprs...)
	return s
}

func verdict(text string, kind expr.VerdictKind, chain string) Statement {
	return Statement{text: text, exprs: []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}}
}
