package nft

import "github.com/google/nftables/expr"

// FromLoopback matches what the host sends to itself.
func FromLoopback() Statement {
	return Statement{text: `iifname "lo"`, exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: append([]byte("lo"), make([]byte, ifname-2)...)},
	}}
}
