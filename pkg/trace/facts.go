package trace

import (
	"net/netip"

	"clocker.io/clocker/pkg/record"
)

// Query is what is asked.
type Query struct {
	// From and To name a replica, a service ("web.shop", or "web" where only
	// one application has it), a container, a host ("host:NAME", or its name)
	// or an address.
	From string `json:"from"`
	To   string `json:"to"`
	// Protocol is "tcp", "udp" or "icmp"; empty means tcp with a port and icmp
	// without.
	Protocol string `json:"protocol,omitempty"`
	Port     uint16 `json:"port,omitempty"`
}

// protocol is the protocol that is meant.
func (q Query) protocol() string {
	switch {
	case q.Protocol != "":
		return q.Protocol
	case q.Port != 0:
		return "tcp"
	}
	return "icmp"
}

// Fleet is what etcd says of a fleet's networks.
type Fleet struct {
	Hosts    map[string]Host           // by id
	Networks map[string]record.Network // by id
	// Endpoints and Services are by network id and address.
	Endpoints map[string]map[netip.Addr]record.Endpoint
	Services  map[string]map[netip.Addr]record.Service
	// Names are the replicas that can be reached, by host id and task.
	Names map[string]map[string]record.NameRecord
	// Attached are by network id, then host id.
	Attached map[string]map[string]record.Attached
	// Blocks are by network id.
	Blocks map[string]map[netip.Prefix]record.Block
	// Tasks are the replicas as wanted and as seen.
	Tasks []Task
}

// Host is a host of the fleet.
type Host struct {
	ID, Name, Address string
	// Up says that its agent is heard of.
	Up bool
}

// Task is a replica as wanted and as seen.
type Task struct {
	// Name is the container's name.
	Name, App, Service string
	// Host is the id of its host; empty when no host has it.
	Host string
	// State and Health are as in record.Observed, Error says what keeps it
	// from running.
	State, Health, Error string
	// Addresses are by network id.
	Addresses map[string]string
}

// hostName is a host's name, or its id when it is not known.
func (f Fleet) hostName(id string) string {
	if h, ok := f.Hosts[id]; ok {
		return h.Name
	}
	return id
}

// networkName is a network's name, or its id while it has none.
func (f Fleet) networkName(id string) string {
	if n, ok := f.Networks[id]; ok && n.Name != "" {
		return n.Name
	}
	return id
}
