// Package registry keeps the fleet's networks in etcd: which exist, which
// subnet each has, and which hosts use them. The controller makes and removes
// networks of applications with it, the network plugin those made by hand.
//
// Subnets are chosen under one guard key that every transaction which adds a
// network compares and writes, so no two networks ever overlap. Blocks of
// addresses within a network are ipam/driver's; here they are only removed
// together with their network.
//
// Design page: docs/design/addresses.md.
package registry
