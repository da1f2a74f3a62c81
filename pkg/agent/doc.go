// Package agent makes one host match what etcd assigns to it. It follows the
// host's assignments, has the host's engine create, start, stop and remove the
// containers they ask for, and reports what it sees: the state of each task,
// the names under which it can be reached, the facts of the host, and, by a
// lease, that it lives.
//
// One goroutine (the loop) owns everything the agent knows. Changes from etcd
// and from the engine reach it as messages; after each it asks the pure
// function decide what to do, and hands the answers to goroutines of their
// own, one per task at a time. Nothing is polled: the engine's events and
// etcd's watches say when to look again.
//
// The agent touches nothing that it did not make: containers of other fleets,
// of users and of Clocker itself (label io.clocker.system) are left alone, and
// so is everything while etcd does not know the host.
//
// Design page: docs/design/agent.md.
package agent
