package nft

import "github.com/google/nftables/expr"

// Untracked keeps the packet out of connection tracking. It works in chains of
// the priority raw only.
func Untracked() Statement {
	return Statement{text: "notrack", exprs: []expr.Any{&expr.Notrack{}}}
}
