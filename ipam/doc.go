// Package ipam decides which addresses are handed out: how a subnet is cut
// into blocks, which block a host should try to claim, which address of its
// own blocks it gives next, and which subnet of a pool a new network takes.
//
// It is pure: no clock, no I/O, no globals. What it decides becomes true
// elsewhere: ipam/registry writes networks to etcd, ipam/driver claims blocks
// there and keeps ipam/journal on the local disk, and speaks to the engine.
//
// Both address families are treated alike, but that an IPv6 subnet is cut into
// blocks only in a window at its start. The safety argument that the whole of it rests on is
// in the design page: every address is in one block, a block has one owner,
// and only its owner hands its addresses out.
//
// Design page: docs/design/addresses.md.
package ipam
