// Package scale shows how Clocker does with a thousand hosts, on one machine.
//
// The hosts are simulated, and this is how far:
//
//   - etcd is real: a server of its own process, with TLS, writing to disk.
//   - The controllers are real: pkg/controller.Run in processes of their own,
//     with the configuration, the certificates and the API that init would give
//     them. They are ended by SIGKILL.
//   - The agents are real as far as the fleet sees them: pkg/agent's own loop,
//     decisions, reports, names, events and lease, one for each host, all in
//     this process ([agent.Simulate]).
//   - The engines are not: containers and networks exist in memory only, and
//     making and starting one takes as long as was asked for.
//   - There are no network plugins: nobody claims blocks or endpoints, and
//     addresses are made up. There are no facts of machines and no DNS servers;
//     a real agent follows the names of the whole fleet, here only as many do
//     as Options.Followers says.
//
// Each agent has a connection to etcd of its own, with TLS, as on a host, though
// all show the same certificate. Hosts are put into etcd as registering would
// leave them; no certificates are made for them.
//
// It never talks to an engine, and leaves nothing behind.
//
// Design page: docs/design/scale.md.
package scale
