// Package nft describes nftables' tables as plain data, writes them in the
// notation of nft(8), and brings them to the kernel, as a whole or by changes,
// each in one transaction.
//
// It knows no network and decides nothing: packages policy and lb say what
// their tables hold.
//
// Design page: docs/design/networks.md.
package nft
