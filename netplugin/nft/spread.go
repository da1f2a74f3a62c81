package nft

import (
	"fmt"
	"strconv"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TypeNumber is the type of a key that holds a number, as [Number] writes it.
const TypeNumber = "mark"

// numbers begin with this in an element: a plain decimal is a port.
const numberPrefix = "0x"

// Number is a number as a field of an element.
func Number(n int) string { return fmt.Sprintf("%s%08x", numberPrefix, n) }

// number reads what [Number] wrote, in the machine's byte order.
func number(s string) ([]byte, bool) {
	if len(s) != len(numberPrefix)+8 || s[:2] != numberPrefix {
		return nil, false
	}
	n, err := strconv.ParseUint(s[2:], 16, 32)
	if err != nil {
		return nil, false
	}
	return binaryutil.NativeEndian.PutUint32(uint32(n)), true
}

// FieldChance is a number from 0 to n-1, each as likely as the others, drawn
// anew for each packet that gets there.
func FieldChance(n int) Field {
	return Field{text: fmt.Sprintf("numgen random mod %d", n), bytes: 4, load: func(reg uint32) expr.Any {
		return &expr.Numgen{Register: reg, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM}
	}}
}

// DispatchBy goes on where the verdict map says for the fields.
func DispatchBy(set string, fields ...Field) Statement {
	s := load(fields)
	s.text += " vmap @" + set
	s.exprs = append(s.exprs, &expr.Lookup{
		SourceRegister: reg1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: set,
	})
	return s
}

// TranslateAddress sends the connection to the IPv4 address that the map has
// for the fields, of whatever protocol it is and to the same port.
func TranslateAddress(set string, fields ...Field) Statement {
	return translateAddress("dnat ip to ", unix.NFPROTO_IPV4, set, fields)
}

// TranslateAddress6 is [TranslateAddress] for IPv6 packets.
func TranslateAddress6(set string, fields ...Field) Statement {
	return translateAddress("dnat ip6 to ", unix.NFPROTO_IPV6, set, fields)
}

func translateAddress(text string, family uint32, set string, fields []Field) Statement {
	s := load(fields)
	s.text = text + s.text + " map @" + set
	s.exprs = append(s.exprs,
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg1})
	return s
}

// Reset answers a TCP packet with a reset: nobody listens.
func Reset() Statement {
	return Statement{text: "meta l4proto tcp reject with tcp reset", exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	}}
}

// Refuse answers a packet with ICMP's "port unreachable".
func Refuse() Statement {
	return Statement{text: "reject with icmpx type port-unreachable", exprs: []expr.Any{
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH},
	}}
}

// SetConnectionMark puts the bits of value that mask has into the mark of the
// connection.
func SetConnectionMark(value, mask uint32) Statement {
	return Statement{
		text: fmt.Sprintf("ct mark set ct mark & 0x%08x | 0x%08x", ^mask, value),
		exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeyMARK, Register: reg1},
			&expr.Bitwise{
				SourceRegister: reg1, DestRegister: reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(^mask), Xor: binaryutil.NativeEndian.PutUint32(value & mask),
			},
			&expr.Ct{Key: expr.CtKeyMARK, Register: reg1, SourceRegister: true},
		},
	}
}

// ConnectionMark matches connections whose mark has the bits of value in mask.
func ConnectionMark(value, mask uint32) Statement {
	return Statement{
		text: fmt.Sprintf("ct mark & 0x%08x == 0x%08x", mask, value),
		exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeyMARK, Register: reg1},
			&expr.Bitwise{
				SourceRegister: reg1, DestRegister: reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(mask), Xor: make([]byte, 4),
			},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binaryutil.NativeEndian.PutUint32(value)},
		},
	}
}

// SetMark puts the bits of value that mask has into the mark of the packet.
func SetMark(value, mask uint32) Statement {
	return Statement{
		text: fmt.Sprintf("meta mark set meta mark & 0x%08x | 0x%08x", ^mask, value),
		exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
			&expr.Bitwise{
				SourceRegister: reg1, DestRegister: reg1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(^mask), Xor: binaryutil.NativeEndian.PutUint32(value & mask),
			},
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1, SourceRegister: true},
		},
	}
}
