// Package fleet makes fleets and takes hosts in and out of them: it is what
// `docker clocker init` and `docker clocker host add|rm` do. It works through
// an engine's own API only, from the user's machine: image, certificates,
// plugin and containers are carried there, nothing is fetched from a
// registry, and no engine is restarted nor any container touched that is not
// Clocker's.
//
// Every action can be run again: it looks at what is there, does what is
// missing and says so. One that fails takes back what it made itself.
//
//   - [Init] makes a controller and, unless told otherwise, a first host.
//   - [AddHost] adopts a host, [RemoveHost] leaves nothing of Clocker on it.
//   - [Destroy] takes a whole fleet away.
//   - [Profile] is what the user's machine keeps of a fleet.
//
// It decides nothing about placement and writes nothing to etcd: the
// controller does. Sub-packages: ca (certificates), controllerconfig (what a
// controller is told), preflight (facts about a machine, gathered on it),
// hostclean (takes kernel state and files away, on the host).
//
// Design page: docs/design/fleet.md.
package fleet
