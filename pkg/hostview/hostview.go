// Package hostview is what a host's network plugin and agent tell of the
// host's own networks when they are asked: what is there, what is not as it
// must be, and what would become of one packet. It is types only, shared by
// those who ask and those who answer.
//
// It finds nothing out itself.
//
// Design page: docs/design/trace.md.
package hostview

import (
	"net/netip"

	"clocker.io/clocker/pkg/record"
)

// Socket is where the plugin answers, below the host's state directory; only
// root may open it.
const Socket = "net/control.sock"

// The plugin's paths, and those under which the agent serves the same to
// controllers.
const (
	PathReport = "/report" // GET → Report
	PathCheck  = "/check"  // POST CheckRequest → []finding.Finding
	PathTrace  = "/trace"  // POST Question → View
	// PathApplied (GET, ?revision=N) answers with 204 when the host's services
	// lead where etcd says at that revision, or with 504 when that takes longer
	// than a moment.
	PathApplied = "/applied"

	// AgentPlugin is the prefix of the plugin's paths at the agent.
	AgentPlugin = "/net/plugin"
	// AgentNetworks (GET) lists the engine's networks of the fleet:
	// []EngineNetwork; AgentCheck (POST CheckRequest) compares them with what
	// the fleet has: []finding.Finding.
	AgentNetworks = "/net/networks"
	AgentCheck    = "/net/check"
)

// CheckRequest asks for findings, and with Fix to mend what can be mended.
type CheckRequest struct {
	Fix bool `json:"fix,omitempty"`
}

// EngineNetwork is a network of the fleet on one engine.
type EngineNetwork struct {
	// ID is the fleet's id, Name the network's name on the engine.
	ID   string `json:"id"`
	Name string `json:"name"`
	// Containers are attached, running or not: by name where it is known.
	Containers []string `json:"containers,omitempty"`
}

// Report is what there is of the fleet's networks on a host.
type Report struct {
	Host    string `json:"host"`
	Version string `json:"version"`
	// Knowledge is how the host knows the fleet: "followed" (etcd is
	// watched), "remembered" (from an earlier run) or "unknown".
	Knowledge string `json:"knowledge"`
	// Underlay is how other hosts reach this one, as it has announced itself.
	Underlay  record.Underlay `json:"underlay"`
	Networks  []Network       `json:"networks"`
	Endpoints []Endpoint      `json:"endpoints"`
	// Blocks are those that the host owns, by network id.
	Blocks map[string][]netip.Prefix `json:"blocks,omitempty"`
	// Ways are how each other host is reached.
	Ways []Way `json:"ways,omitempty"`
}

// Network is a network that is present on a host.
type Network struct {
	ID      string `json:"id"`
	Segment string `json:"segment"`
	Carrier string `json:"carrier"`
	MTU     int    `json:"mtu"`
}

// Endpoint is one local endpoint with its link.
type Endpoint struct {
	// ID is the engine's id of the endpoint.
	ID        string       `json:"id"`
	Network   string       `json:"network"`
	Addresses []netip.Addr `json:"addresses"`
	// Link is the host's end; Problem says what is wrong with it, empty when
	// it is there and up.
	Link    string `json:"link"`
	Problem string `json:"problem,omitempty"`
}

// Way is how another host is reached.
type Way struct {
	// Host is the other host's id, Address its underlay address.
	Host    string `json:"host"`
	Address string `json:"address"`
	// Carrier is the one that serves, Link its interface and MTU the greatest
	// packet in bytes, 0 when the link says.
	Carrier string `json:"carrier"`
	Link    string `json:"link,omitempty"`
	MTU     int    `json:"mtu,omitempty"`
	// Problem says why there is no way; empty when there is one.
	Problem string `json:"problem,omitempty"`
}

// Question is one packet: the first of a connection.
type Question struct {
	From netip.Addr `json:"from"`
	To   netip.Addr `json:"to"`
	// Protocol is "tcp", "udp" or "icmp"; Port counts for tcp and udp.
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
}

// View is what one host has to say about a question. What does not concern
// the host is nil.
type View struct {
	Host string `json:"host"`
	// From and To are the host's endpoints with these addresses.
	From *Endpoint `json:"from,omitempty"`
	To   *Endpoint `json:"to,omitempty"`
	// Backends are where the host spreads connections to a service's address;
	// Balanced says that To is such an address here.
	Balanced bool         `json:"balanced,omitempty"`
	Backends []netip.Addr `json:"backends,omitempty"`
	// Route is where the kernel sends the packet.
	Route *Route `json:"route,omitempty"`
	// Way is the carrier to the host that has To.
	Way *Way `json:"way,omitempty"`
	// Leave is the verdict on the packet as it comes from a local endpoint or
	// from the host, Enter as it goes to one.
	Leave *Verdict `json:"leave,omitempty"`
	Enter *Verdict `json:"enter,omitempty"`
}

// Route is what the kernel answers for a destination.
type Route struct {
	// Kind is "unicast", "local", "unreachable", "blackhole" or "none".
	Kind string `json:"kind"`
	// Destination is the route's own, where the kernel tells.
	Destination string `json:"destination,omitempty"`
	Link        string `json:"link,omitempty"`
	Gateway     string `json:"gateway,omitempty"`
	// Error is why the kernel could not answer.
	Error string `json:"error,omitempty"`
}

// Verdict says whether the packet filter lets a packet pass, and by which rule.
type Verdict struct {
	Open   bool   `json:"open"`
	Reason string `json:"reason"`
}
