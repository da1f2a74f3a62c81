// Package e2e holds the tests of pkg/fleet, pkg/image and pkg/engine/connect
// on the testbed's real engines: the real programs are built, carried to
// hosts and taken away again, and what is left is compared with what was
// there before. It has no code of its own.
package e2e
