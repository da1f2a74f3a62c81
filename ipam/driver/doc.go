// Package driver answers an engine's IPAM calls (docker.ipamdriver/1.0) for
// one host. It claims blocks of the fleet's networks in etcd, hands out their
// addresses from memory, and writes each to a journal on the local disk before
// it answers; etcd learns of it after.
//
// The promise is that no address is ever held twice: an address is in one
// block, a block is created in etcd by one transaction that needs it to be
// absent, only the host it names hands out its addresses, and that host
// removes it only after it has written down that nothing of it is held. With
// etcd away the host goes on with the blocks it has.
//
// An address outside the host's blocks is a pin: etcd decides about it where no
// host owns its block, and the owner, asked through etcd, where one does.
//
// A pool's id is "<space>/<network id>/<cidr>", so every call can be read
// without state. Calls may come twice, and releases may never come: all are
// idempotent, and [Driver.Reconcile] finds what the engine forgot.
//
// Design page: docs/design/addresses.md.
package driver
