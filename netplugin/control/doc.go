// Package control is how the network plugin of a host is asked about itself:
// what there is of the fleet's networks on the host, what is not as it must
// be, and what would become of a packet. It answers HTTP on a unix socket that
// only root may open; the agent on the same host passes questions of
// controllers on to it.
//
// It changes nothing but through the parts' own [finding.Checker], and sends
// no packet.
//
// Design page: docs/design/trace.md.
package control
