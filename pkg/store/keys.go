package store

import (
	"fmt"
	"strings"
)

// Keys names every key of one fleet. The zero value is not valid; use
// [NewKeys].
type Keys struct{ prefix string }

// NewKeys returns the keys of the named fleet.
func NewKeys(fleet string) Keys { return Keys{prefix: "/clocker/" + fleet + "/"} }

// Prefix is what every key of the fleet starts with; it ends with a slash.
func (k Keys) Prefix() string { return k.prefix }

// Schema holds the number of the layout; see [record.SchemaVersion].
func (k Keys) Schema() string { return k.prefix + "schema" }

// Hosts is the prefix of all hosts' keys.
func (k Keys) Hosts() string { return k.prefix + "hosts/" }

// HostSpec holds a [record.Host], written by the controller.
func (k Keys) HostSpec(id string) string { return k.prefix + "hosts/" + id + "/spec" }

// HostFacts holds [record.HostFacts], written by the host's agent.
func (k Keys) HostFacts(id string) string { return k.prefix + "hosts/" + id + "/facts" }

// HostLease holds a [record.HostLease] on the agent's lease: it is there while the
// agent is alive and connected.
func (k Keys) HostLease(id string) string { return k.prefix + "hosts/" + id + "/lease" }

// Apps is the prefix of all applications.
func (k Keys) Apps() string { return k.prefix + "apps/" }

// App is the prefix of one application's keys.
func (k Keys) App(app string) string { return k.prefix + "apps/" + app + "/" }

// AppCurrent holds an [record.AppState]: which release is current and what is wanted
// of it.
func (k Keys) AppCurrent(app string) string { return k.App(app) + "current" }

// Release is the prefix of one release; its parts are at [Keys.ReleasePart].
func (k Keys) Release(app string, n int) string {
	return fmt.Sprintf("%sreleases/%08d/", k.App(app), n)
}

// ReleasePart holds one part of a [record.Release]'s JSON.
func (k Keys) ReleasePart(app string, n, part int) string {
	return fmt.Sprintf("%sparts/%04d", k.Release(app, n), part)
}

// ReleaseStatus holds a [record.ReleaseStatus].
func (k Keys) ReleaseStatus(app string, n int) string { return k.Release(app, n) + "status" }

// Assignments is the prefix of every host's assignments.
func (k Keys) Assignments() string { return k.prefix + "assign/" }

// HostAssignments is the prefix of what one host must run.
func (k Keys) HostAssignments(host string) string { return k.prefix + "assign/" + host + "/" }

// Assignment holds an [record.Assignment], written by the leader.
func (k Keys) Assignment(host, task string) string { return k.HostAssignments(host) + task }

// AllObserved is the prefix of what every host reports.
func (k Keys) AllObserved() string { return k.prefix + "observed/" }

// HostObserved is the prefix of what one host reports.
func (k Keys) HostObserved(host string) string { return k.prefix + "observed/" + host + "/" }

// Observed holds an [record.Observed], written by the host's agent.
func (k Keys) Observed(host, task string) string { return k.HostObserved(host) + task }

// Net is the prefix of everything that network plugins share.
func (k Keys) Net() string { return k.prefix + "net/" }

// Pools is the prefix of the address pools; Pool holds a [record.Pool].
func (k Keys) Pools() string { return k.prefix + "net/pools/" }

// Pool holds a [record.Pool].
func (k Keys) Pool(name string) string { return k.Pools() + name }

// NetworkGuard is written by every transaction that adds or removes a
// network: comparing its revision makes the choice of a subnet exclusive.
func (k Keys) NetworkGuard() string { return k.prefix + "net/guard" }

// Networks is the prefix of all networks.
func (k Keys) Networks() string { return k.prefix + "net/networks/" }

// Network holds a [record.Network].
func (k Keys) Network(id string) string { return k.Networks() + id }

// AllUses is the prefix of who uses which network.
func (k Keys) AllUses() string { return k.prefix + "net/uses/" }

// NetworkUses is the prefix of the hosts that use one network.
func (k Keys) NetworkUses(network string) string { return k.AllUses() + network + "/" }

// NetworkUse holds a [record.NetworkUse], written by the host's network plugin.
func (k Keys) NetworkUse(network, host string) string { return k.NetworkUses(network) + host }

// Blocks is the prefix of all blocks of all networks.
func (k Keys) Blocks() string { return k.prefix + "net/blocks/" }

// NetworkBlocks is the prefix of one network's blocks.
func (k Keys) NetworkBlocks(network string) string { return k.Blocks() + network + "/" }

// Block holds a [record.Block]; its key has the CIDR with "_" for "/".
func (k Keys) Block(network, cidr string) string {
	return k.NetworkBlocks(network) + strings.ReplaceAll(cidr, "/", "_")
}

// Endpoints is the prefix of all endpoints.
func (k Keys) Endpoints() string { return k.prefix + "net/endpoints/" }

// Endpoint holds an [record.Endpoint].
func (k Keys) Endpoint(network, ip string) string { return k.Endpoints() + network + "/" + ip }

// Pins is the prefix of the pinned addresses of all networks.
func (k Keys) Pins() string { return k.prefix + "net/pins/" }

// NetworkPins is the prefix of one network's pins.
func (k Keys) NetworkPins(network string) string { return k.Pins() + network + "/" }

// Pin holds a [record.Pin].
func (k Keys) Pin(network, ip string) string { return k.NetworkPins(network) + ip }

// Lives is the prefix of which hosts' network plugins run.
func (k Keys) Lives() string { return k.prefix + "net/live/" }

// Live holds a [record.Live], on the lease of the host's network plugin.
func (k Keys) Live(host string) string { return k.Lives() + host }

// Asks is the prefix of what hosts ask owners of blocks for; Ask holds a
// [record.Ask].
func (k Keys) Asks() string { return k.prefix + "net/asks/" }

// Ask holds what is asked of the owner; ids are random.
func (k Keys) Ask(owner, id string) string { return k.Asks() + owner + "/" + id }

// Services is the prefix of all services' addresses.
func (k Keys) Services() string { return k.prefix + "net/services/" }

// NetworkServices is the prefix of the services' addresses in one network.
func (k Keys) NetworkServices(network string) string { return k.Services() + network + "/" }

// Service holds a [record.Service], written by the leader; its key has the
// service's IPv4 address, or the IPv6 one in a network without IPv4.
func (k Keys) Service(network, ip string) string { return k.NetworkServices(network) + ip }

// PublishedPorts is the prefix of the ports that every host answers on.
func (k Keys) PublishedPorts() string { return k.prefix + "net/published/" }

// Published holds a [record.Published], written by the leader.
func (k Keys) Published(protocol string, hostPort uint16) string {
	return fmt.Sprintf("%s%s_%d", k.PublishedPorts(), protocol, hostPort)
}

// Attachments is the prefix of machines that are on networks themselves.
func (k Keys) Attachments() string { return k.prefix + "net/attached/" }

// Attached holds a [record.Attached], written by the leader.
func (k Keys) Attached(network, host string) string { return k.Attachments() + network + "/" + host }

// Rules is the prefix of what is open between networks; Rule holds a
// [record.Rule] under an id of its own.
func (k Keys) Rules() string { return k.prefix + "net/rules/" }

// Rule holds a [record.Rule].
func (k Keys) Rule(id string) string { return k.Rules() + id }

// Underlays is the prefix of all hosts' underlay addresses.
func (k Keys) Underlays() string { return k.prefix + "net/hosts/" }

// Underlay holds an [record.Underlay].
func (k Keys) Underlay(host string) string { return k.Underlays() + host }

// Names is the prefix of all names that DNS answers.
func (k Keys) Names() string { return k.prefix + "net/names/" }

// HostNames is the prefix of the names that one host publishes.
func (k Keys) HostNames(host string) string { return k.Names() + host + "/" }

// Name holds a [record.NameRecord], on the lease of the agent that publishes it.
func (k Keys) Name(host, task string) string { return k.HostNames(host) + task }

// Volumes is the prefix of volumes.
func (k Keys) Volumes() string { return k.prefix + "vol/" }

// Events is the prefix of the fleet's events; Event holds an [record.Event] on a
// lease that lets it expire.
func (k Keys) Events() string { return k.prefix + "events/" }

// Event names an event; ids sort by time.
func (k Keys) Event(id string) string { return k.Events() + id }

// Election is the prefix under which controllers elect their leader.
func (k Keys) Election() string { return k.prefix + "elect/leader" }

// Term is written by each new leader before it decides anything: who has seen
// that write has seen all that former leaders wrote.
func (k Keys) Term() string { return k.prefix + "elect/term" }

// HostUsage holds a [record.HostUsage], written by the host's agent.
func (k Keys) HostUsage(id string) string { return k.prefix + "hosts/" + id + "/usage" }

// HostHealth holds a [record.HostHealth], written by the leader.
func (k Keys) HostHealth(id string) string { return k.prefix + "hosts/" + id + "/health" }

// HostFence holds a [record.HostFence], written by the host's agent.
func (k Keys) HostFence(id string) string { return k.prefix + "hosts/" + id + "/fence" }

// HostMembership holds a [record.Membership], written by the leader.
func (k Keys) HostMembership(id string) string { return k.prefix + "hosts/" + id + "/membership" }

// HostRestored holds a [record.Restored] while the host has not settled with a
// restored etcd: written before etcd serves, kept by the host's agent.
func (k Keys) HostRestored(id string) string { return k.prefix + "hosts/" + id + "/restored" }

// Controllers is the prefix of the fleet's controllers.
func (k Keys) Controllers() string { return k.prefix + "controllers/" }

// Controller holds a [record.ControllerMember].
func (k Keys) Controller(name string) string { return k.Controllers() + name + "/spec" }

// ControllerLease holds a [record.ControllerLease] on the controller's lease.
func (k Keys) ControllerLease(name string) string { return k.Controllers() + name + "/lease" }

// Users is the prefix of who may call the API; User holds a [record.User].
func (k Keys) Users() string { return k.prefix + "users/" }

// User holds a [record.User].
func (k Keys) User(name string) string { return k.Users() + name }

// Tokens is the prefix of tokens; Token holds a [record.Token].
func (k Keys) Tokens() string { return k.prefix + "tokens/" }

// Token holds a [record.Token].
func (k Keys) Token(id string) string { return k.Tokens() + id }

// Audit is the prefix of the audit log; AuditEntry holds a
// [record.AuditEntry]; ids sort by time.
func (k Keys) Audit() string { return k.prefix + "audit/" }

// AuditEntry holds a [record.AuditEntry].
func (k Keys) AuditEntry(id string) string { return k.Audit() + id }

// Authority holds what is public about the fleet's certificate authority:
// which certificate signs, which are still trusted.
func (k Keys) Authority() string { return k.prefix + "authority" }

// PlacementPolicy holds a [record.PlacementPolicy].
func (k Keys) PlacementPolicy() string { return k.prefix + "policy/fleet/placement" }

// HeadroomPolicy holds a [record.HeadroomPolicy].
func (k Keys) HeadroomPolicy() string { return k.prefix + "policy/fleet/headroom" }

// Providers is the prefix of the sources of hosts.
func (k Keys) Providers() string { return k.prefix + "providers/" }

// Provider holds a [record.Provider].
func (k Keys) Provider(name string) string { return k.Providers() + name + "/spec" }

// Machines is the prefix of what providers were asked for.
func (k Keys) Machines() string { return k.prefix + "machines/" }

// Machine holds a [record.Machine].
func (k Keys) Machine(id string) string { return k.Machines() + id }
