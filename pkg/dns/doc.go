// Package dns answers for the names of the fleet: each host's agent serves
// them on one address of each family that means "this host" everywhere, and
// containers of applications ask there.
//
// What a name means depends on who asks. A container is known by its source
// address and sees the names of the networks it is in: containers, services
// (their address, or every replica that can be reached in random order),
// "tasks.<service>", aliases, and <service>.<app>; each also with the suffix
// ".clocker". Everything else goes to the servers of the asker's network or of
// the host, but for names of one label: those are only ever meant for here, and
// nobody outside shall learn them.
//
// Who asks from an address of no network of the fleet, such as the host itself
// or a container on docker_gwbridge, sees <service>.<app> of every
// application: a bare name would be ambiguous there. Names are no secret; what
// may be reached is decided by the network plugin.
//
// The package keeps no state and writes nothing: its index is made from
// etcd's net/names, where a record is there only while its container can be
// reached, and goes with the lease of the agent that published it.
//
// One pure function (resolve) says what a question means. Two encoders write
// its answer: one for the questions that nearly everybody asks, on bytes and
// without garbage, and one for all the rest.
//
// Design page: docs/design/names.md.
package dns
