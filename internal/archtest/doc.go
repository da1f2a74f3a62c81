// Package archtest holds the shape of the repository: which package may import
// which, what pure packages may touch, how files and packages are named and
// how long they are, and that documents point at what exists. It has tests
// only and nothing imports it.
//
// Design page: docs/design/overview.md.
package archtest
