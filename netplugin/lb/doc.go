// Package lb spreads connections over the replicas of services on the host
// that they come from: those to a service's address (VIP) in a network, and
// those to ports that every host of the fleet answers on. What it wants is
// worked out from the topology by pure functions; one nftables table,
// `inet clocker-lb`, is kept equal to it by changes of elements.
//
// It translates addresses of new connections and leaves the rest to the
// kernel's connection tracking: a connection stays with its replica for as
// long as that lives. It lets nothing pass that package policy forbids, and
// knows no health but what names say: a replica without a name gets nothing.
//
// Design page: docs/design/services.md.
package lb
