// Package planes holds every data plane, which is a segment and a carrier, to
// one set of scenarios: on hosts that are namespaces of this machine, on one
// link or on two with a router between, with real plugin processes and a real
// etcd, in IPv4 and IPv6.
//
// It has tests only and nothing imports it.
//
// Design page: docs/design/bridged.md.
package planes
