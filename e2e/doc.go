// Package e2e holds the scenarios: each states one obligation of docker
// clocker towards its users and checks it on real Docker engines, by what the
// engines, the kernel and the network show rather than by what is printed.
//
// The scenarios share one testbed of three hosts and one fleet on it; those
// that need another engine, or etcd of their own, make another. They need
// root and the programs of `make build` in bin/.
//
// Design page: docs/design/testbed.md.
package e2e
