package nft

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The TCP header (RFC 9293): flags are in byte 13, and the option of kind 2 is
// the greatest segment that the sender takes.
const (
	tcpFlags   = 13
	flagSYN    = 0x02
	flagRST    = 0x04
	optionMSS  = 2
	mssAt      = 2
	mssBytes   = 2
	wordsBytes = 2
)

// ClampMSS makes both ends of a TCP connection send no greater segments than
// the ways there and back take. It matches the packets that open one.
func ClampMSS() Statement {
	return Statement{text: "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu", exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 1, Mask: []byte{flagSYN | flagRST}, Xor: []byte{0}},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{flagSYN}},
		&expr.Rt{Register: reg1, Key: expr.RtTCPMSS},
		&expr.Byteorder{SourceRegister: reg1, DestRegister: reg1, Op: expr.ByteorderHton, Len: wordsBytes, Size: wordsBytes},
		&expr.Exthdr{SourceRegister: reg1, Type: optionMSS, Offset: mssAt, Len: mssBytes, Op: expr.ExthdrOpTcpopt},
	}}
}
