// Package redirect takes packets between two endpoints of one network past
// the host: by eBPF programs on the links, from an endpoint's link straight to
// the neighbour that has the other one, and from the underlay straight into
// the container. Neither the host's routing nor its packet filters see such
// packets, which is what makes them fast.
//
// What is taken this way is decided by the programs, for each packet by
// itself: source and destination must be endpoints of the same network, which
// may always talk to each other (package policy), and the source must be where
// it claims to be: on its own link, or not on this host at all. Every other
// packet goes on as if the programs were not there. Networks whose packets may
// be translated on the way (virtual addresses, published ports) must be left
// out by the caller: the kernel's connection tracking must see all packets of
// a translated connection.
//
// Frames between two endpoints of one bridged network are taken past the bridge
// the same way: by a copy of the bridge's own static entries, with hardware
// address and source pinned to the port.
//
// The programs work only as long as the process says so: when it ends, what
// they redirected goes the long way.
//
// Design page: docs/design/speed.md.
package redirect
