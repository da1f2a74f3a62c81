// Package netbench holds what the network benches of package e2e have in
// common: how the measuring program (examples/images/netbench) is run at a
// place in the network, and how the figures of several contenders, taken in
// turns, become a table of medians and ratios.
//
// It measures and prints; it never decides whether a figure is good enough.
//
// Design page: docs/design/speed.md.
package netbench
