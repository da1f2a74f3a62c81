// Package matrix tries every pair of places in a fleet: containers of the same
// network, of another network, of another application, the hosts themselves
// and the world outside, both ways, by TCP, UDP and ICMP, over IPv4 and IPv6.
// What must get through and what must not is one table, [Verdict], the same
// for every data plane.
//
// It runs in tests only, on hosts of package nettest.
//
// Design page: docs/design/policy.md.
package matrix
