// Package dns answers for the names of the fleet: each host's agent serves
// them on one link-local address, and containers of applications ask there.
//
// What a name means depends on who asks. A container is known by its source
// address and sees the names of the networks it is in: replicas, services
// (every replica that can be reached, in random order), aliases, and
// <service>.<app>; each also with the suffix ".clocker". Everything else goes
// to the host's own servers, but for names of one label: those are only ever
// meant for here, and nobody outside shall learn them.
//
// Who asks from an address of no network of the fleet, such as the host itself
// or a container on docker_gwbridge, sees <service>.<app> of every
// application: a bare name would be ambiguous there. Names are no secret; what
// may be reached is decided by the network plugin.
//
// The package keeps no state and writes nothing: its index is made from
// etcd's net/names, where a record is there only while its task can be
// reached, and goes with the lease of the agent that published it.
//
// Design page: docs/design/names.md.
package dns
