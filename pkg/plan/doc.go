// Package plan compares what is wanted of an application with what hosts
// report and says what to do next. It is pure: a [Snapshot] in, a [Decision]
// out, each step with its cause. It has no clock and does no I/O; the leading
// controller calls it after every change and writes what it says.
//
// The functions are level-triggered: they look only at the state, never at
// what led to it, so a new leader goes on where a dead one was.
//
// Design page: docs/design/deploy.md.
package plan
