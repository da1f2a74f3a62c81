// Package record holds what a fleet keeps in etcd, as Go values: hosts,
// releases, assignments, what hosts report, networks, addresses and names.
// pkg/store reads and writes them under their keys.
//
// The package is pure: it decides nothing and does no I/O, so what decides on
// records need not know etcd.
//
// Design page: docs/design/state.md.
package record
