package api

import (
	"time"

	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
)

// Paths about networks. {net} is a network's name or id, {pool} a pool's name.
//
//	GET    /v1/networks                      → []Network
//	POST   /v1/networks                      NetworkRequest → NetworkChange, when every host that answers has it
//	GET    /v1/networks/{net}                → NetworkDetail
//	DELETE /v1/networks/{net}                → NetworkChange, when no host that answers has it any more
//	PUT    /v1/networks/{net}/hosts/{host}   puts a machine on a network → Attachment
//	DELETE /v1/networks/{net}/hosts/{host}   takes it off again
//	GET    /v1/rules                         → []Rule
//	POST   /v1/rules                         RuleRequest → Rule
//	DELETE /v1/rules/{rule}
//	GET    /v1/pools                         → []Pool
//	POST   /v1/pools                         record.Pool → Pool
//	GET    /v1/pools/{pool}                  → PoolDetail
//	DELETE /v1/pools/{pool}
//	GET    /v1/pools/{pool}/check            → []finding.Finding
//	POST   /v1/doctor                        DoctorRequest → DoctorReport
//	POST   /v1/trace                         trace.Query → trace.Result

// Network is a line of `docker clocker network ls`.
type Network struct {
	record.Network
	// Hosts is how many hosts have it, Endpoints how many addresses of it are
	// in use.
	Hosts     int `json:"hosts"`
	Endpoints int `json:"endpoints"`
}

// NetworkRequest asks for a network. What is empty is chosen.
type NetworkRequest struct {
	Name string `json:"name"`
	// Driver is another network driver of the engines; empty or "clocker" is
	// ours.
	Driver string `json:"driver,omitempty"`
	// Subnets, Ranges and Gateways hold at most one of each family, in any
	// order. Aux maps names to addresses that no container gets.
	Subnets  []string          `json:"subnets,omitempty"`
	Ranges   []string          `json:"ranges,omitempty"`
	Gateways []string          `json:"gateways,omitempty"`
	Aux      map[string]string `json:"aux,omitempty"`
	// IPv6 asks for an IPv6 subnet, NoIPv4 for none of IPv4.
	IPv6   bool `json:"ipv6,omitempty"`
	NoIPv4 bool `json:"noIPv4,omitempty"`
	// Pool is where a subnet is taken from, Size its prefix length.
	Pool     string            `json:"pool,omitempty"`
	Size     int               `json:"size,omitempty"`
	Internal bool              `json:"internal,omitempty"`
	Segment  string            `json:"segment,omitempty"`
	Carrier  string            `json:"carrier,omitempty"`
	MTU      int               `json:"mtu,omitempty"`
	DNS      []string          `json:"dns,omitempty"`
	Search   []string          `json:"search,omitempty"`
	Options  map[string]string `json:"options,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// NetworkChange is what became of a network that was made or removed.
type NetworkChange struct {
	Network record.Network `json:"network"`
	// Behind are the hosts that have not followed yet, by name; they will.
	Behind []HostBehind `json:"behind,omitempty"`
}

// HostBehind is a host that has not done yet what it will.
type HostBehind struct {
	Host string `json:"host"`
	// Down says that the host does not answer at all.
	Down   bool   `json:"down,omitempty"`
	Reason string `json:"reason"`
}

// NetworkDetail is what `docker clocker network inspect` shows.
type NetworkDetail struct {
	Network
	// On are the hosts, all of the fleet.
	On []NetworkHost `json:"on"`
	// InUse are the addresses in use.
	InUse []NetworkEndpoint `json:"inUse"`
	// VIPs are the services that have an address of their own on it.
	VIPs []NetworkService `json:"vips,omitempty"`
	// Rules open it to others, or others to it.
	Rules []Rule `json:"rules,omitempty"`
	// Blocks are which host hands out which addresses.
	Blocks []NetworkBlock `json:"blocks,omitempty"`
}

// NetworkHost is a host as a network sees it.
type NetworkHost struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Up      bool   `json:"up"`
	// Present says that the host's engine has the network, Attached that the
	// machine itself is on it.
	Present  bool   `json:"present"`
	Attached bool   `json:"attached,omitempty"`
	MTU      int    `json:"mtu,omitempty"`
	Error    string `json:"error,omitempty"`
}

// NetworkEndpoint is one address in use.
type NetworkEndpoint struct {
	Address string `json:"address"`
	// Host is the host's name, Container the container's.
	Host      string `json:"host"`
	Container string `json:"container,omitempty"`
	// App and Service are set for a replica, Healthy says that others are sent
	// to it.
	App     string `json:"app,omitempty"`
	Service string `json:"service,omitempty"`
	Healthy bool   `json:"healthy,omitempty"`
	// Machine says that it is the host's own.
	Machine bool   `json:"machine,omitempty"`
	MAC     string `json:"mac,omitempty"`
}

// NetworkService is a service's own address.
type NetworkService struct {
	App       string   `json:"app"`
	Service   string   `json:"service"`
	Addresses []string `json:"addresses"`
}

// NetworkBlock is a part of a subnet with its owner.
type NetworkBlock struct {
	CIDR  string `json:"cidr"`
	Host  string `json:"host,omitempty"`
	State string `json:"state"`
}

// Attachment is a machine that is on a network.
type Attachment struct {
	Network string `json:"network"`
	Host    string `json:"host"`
	// Addresses are empty while the host has not followed.
	Addresses []string `json:"addresses,omitempty"`
	// Reason says why it has not.
	Reason string `json:"reason,omitempty"`
}

// Rule is an opening between networks.
type Rule struct {
	ID string `json:"id"`
	record.Rule
	// FromName and ToName are the networks' names; FromName is the prefix
	// where From is one.
	FromName string `json:"fromName"`
	ToName   string `json:"toName"`
}

// RuleRequest asks for an opening; From and To are networks' names or ids. From
// may be a prefix; To may be an address, a prefix or "host:NAME".
type RuleRequest struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol,omitempty"`
	Port     uint16 `json:"port,omitempty"`
}

// Pool is a line of `docker clocker pool ls`.
type Pool struct {
	record.Pool
	// Networks is how many have a subnet in it, Subnets how many subnets of its
	// usual size it has in all, and Free how many of them are free; both are
	// at most the highest int64.
	Networks int   `json:"networks"`
	Subnets  int64 `json:"subnets"`
	Free     int64 `json:"free"`
}

// PoolDetail is what `docker clocker pool inspect` shows.
type PoolDetail struct {
	Pool
	// Taken are the networks with a subnet in it, by name.
	Taken []PoolNetwork `json:"taken"`
}

// PoolNetwork is a network with a subnet in a pool.
type PoolNetwork struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Subnet is the one in the pool, Size how many addresses it has.
	Subnet string `json:"subnet"`
	Size   int64  `json:"size"`
	// Blocks is how many blocks hosts own, Addresses how many are in use, and
	// Pins how many of those are outside their host's blocks.
	Blocks    int `json:"blocks"`
	Addresses int `json:"addresses"`
	Pins      int `json:"pins"`
}

// DoctorRequest asks all parts of a fleet's networks to compare what is with
// what must be. Hosts are names; none means all.
type DoctorRequest struct {
	Fix   bool     `json:"fix,omitempty"`
	Hosts []string `json:"hosts,omitempty"`
}

// DoctorReport is what was found.
type DoctorReport struct {
	// Hosts are those that were looked at, by name.
	Hosts    []string  `json:"hosts"`
	Findings []Finding `json:"findings"`
}

// Finding is one thing that is not as it must be; Host is empty for what is
// wrong in etcd.
type Finding struct {
	Host string `json:"host,omitempty"`
	finding.Finding
}

// SettleTime is how long a controller waits for hosts to follow a change.
const SettleTime = 20 * time.Second
