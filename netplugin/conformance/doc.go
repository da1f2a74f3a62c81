// Package conformance holds the plugin against Docker's own code: the remote
// network driver and the remote IPAM of the engine's source drive the socket of
// a real plugin process, and what they refuse to take, the engine would refuse.
//
// It has tests only.
//
// Design page: docs/design/networks.md.
package conformance
