package record

import (
	"cmp"
	"time"

	"clocker.io/clocker/pkg/model"
)

// Pool is address space that networks take their subnets from: of one family,
// that of its CIDR.
type Pool struct {
	Name string `json:"name"`
	CIDR string `json:"cidr"`
	// SubnetBits is the prefix length of each network's subnet.
	SubnetBits int `json:"subnetBits"`
}

// Network is one network of the fleet, under an id of its own: engines'
// network ids differ from host to host.
type Network struct {
	ID string `json:"id"`
	// Name is the name of the Docker network on every host. It may be empty
	// for a moment after `docker network create` by hand: CreateNetwork
	// carries no name, the agent adds it.
	Name string `json:"name"`
	// App owns the network; empty for one made by hand.
	App string `json:"app,omitempty"`
	// Subnet and Gateway are IPv4, Subnet6 and Gateway6 IPv6; of the two
	// families one may be missing.
	Subnet   string `json:"subnet,omitempty"`
	Gateway  string `json:"gateway,omitempty"`
	Subnet6  string `json:"subnet6,omitempty"`
	Gateway6 string `json:"gateway6,omitempty"`
	// Range limits the addresses that containers get to a part of the
	// subnet, in CIDR form; empty means all of it.
	Range  string `json:"range,omitempty"`
	Range6 string `json:"range6,omitempty"`
	// Pool and Pool6 name the pools that the subnets were taken from; empty
	// where the subnet was asked for.
	Pool  string `json:"pool,omitempty"`
	Pool6 string `json:"pool6,omitempty"`
	// Joined is the id under which its IPv6 half was made by hand, before the
	// engine said that both are one network: engines' pool ids still name it.
	Joined string `json:"joined,omitempty"`
	// Reserved are addresses of the subnets that something outside the fleet
	// has (docker's --aux-address); no container gets them.
	Reserved []string `json:"reserved,omitempty"`
	// BlockBits and BlockBits6 are the prefix lengths of the blocks that hosts
	// claim.
	BlockBits  int `json:"blockBits,omitempty"`
	BlockBits6 int `json:"blockBits6,omitempty"`
	// Segment is "routed" or "bridged"; Carrier "direct", "vxlan",
	// "wireguard" or "auto".
	Segment string `json:"segment"`
	Carrier string `json:"carrier"`
	// VNI identifies a bridged network on the wire (24 bits, RFC 7348); it is
	// of no other network of the fleet.
	VNI int `json:"vni,omitempty"`
	// Driver is another network driver of the engines that carries the network
	// instead of ours ("macvlan", "calico"), with its own options; addresses
	// are ours all the same.
	Driver        string            `json:"driver,omitempty"`
	DriverOptions map[string]string `json:"driverOptions,omitempty"`
	// DNS and DNSSearch are for containers of applications on the network, in
	// place of the host's own.
	DNS       []string `json:"dns,omitempty"`
	DNSSearch []string `json:"dnsSearch,omitempty"`
	// Unfiltered leaves out masquerading and closing (addIptablesRules: false
	// of the old Clocker): whoever has a route may talk to its containers.
	Unfiltered bool `json:"unfiltered,omitempty"`
	MTU        int  `json:"mtu"`
	Internal   bool `json:"internal,omitempty"`
	// Egress is "plugin" (our gateway, NAT and published ports) or "engine"
	// (docker_gwbridge does both).
	Egress string `json:"egress"`
	// Foreign is the host whose engine's own IPAM hands out addresses from
	// the lower half of the subnet; empty when the IPAM driver is ours.
	Foreign string `json:"foreign,omitempty"`
	// ByHand is true for a network that `docker network create` on one host
	// made; it goes when the last host has removed it.
	ByHand    bool              `json:"byHand,omitempty"`
	Options   map[string]string `json:"options,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
}

// NetworkUse says that a host's engine has a Docker network on a network of
// the fleet. A network is removed for good when nobody uses it.
type NetworkUse struct {
	Host string `json:"host"`
	// Made is true where the Docker network was made by hand, which made the
	// fleet's network too; false where the agent made it.
	Made  bool      `json:"made,omitempty"`
	Since time.Time `json:"since"`
}

// Block says which host hands out the addresses of a part of a subnet. It has
// no lease: a host that is away keeps its blocks.
type Block struct {
	Host string `json:"host"`
	// Epoch names the journal of the host that knows which addresses are
	// taken; a host whose journal was lost has another epoch.
	Epoch int64 `json:"epoch"`
	// State is one of the Block constants.
	State string    `json:"state"`
	Since time.Time `json:"since"`
}

// The states of a block.
const (
	BlockOwned       = "owned"
	BlockDraining    = "draining"
	BlockQuarantined = "quarantined"
	// BlockEngine is a block whose addresses the host's engine hands out
	// with its own IPAM.
	BlockEngine = "engine"
	// BlockServices is a block whose addresses the controller gives to
	// services; it has no host.
	BlockServices = "services"
)

// Pin says that one address is a host's although it owns no block with it:
// asked for by name in a block of another host (which has then taken it out of
// its own hands), or in no block at all.
type Pin struct {
	Host string `json:"host"`
	// Container is the name that the address stays with, if it does.
	Container string `json:"container,omitempty"`
	// Owner is the host whose block it is in; empty where no block is.
	Owner string `json:"owner,omitempty"`
	// Epoch names the journal of Host that knows of it.
	Epoch int64 `json:"epoch,omitempty"`
	// Released means that Host does not use the address any more and only
	// keeps it for its container's name: the pin is on a lease then.
	Released bool      `json:"released,omitempty"`
	Since    time.Time `json:"since"`
}

// Live is on a lease that a host's network plugin keeps up: it says that the
// plugin runs and reaches etcd, and nothing about who owns what.
type Live struct {
	Host  string `json:"host"`
	Epoch int64  `json:"epoch"`
}

// Ask is one host's question to the owner of a block for an address of it. The
// owner answers by a [Pin], or by Refused, and whoever asked deletes it.
type Ask struct {
	// From asks Owner.
	From      string `json:"from"`
	Owner     string `json:"owner"`
	Network   string `json:"network"`
	Address   string `json:"address"`
	Container string `json:"container,omitempty"`
	// Epoch names the journal of From, for the pin.
	Epoch   int64  `json:"epoch,omitempty"`
	Refused string `json:"refused,omitempty"`
}

// Service is a service's address in a network (VIP): callers' hosts spread its
// connections over the service's replicas, which are those that have a
// [NameRecord] with its application and name.
type Service struct {
	App     string `json:"app"`
	Service string `json:"service"`
	Address string `json:"address,omitempty"`
	// Address6 is its IPv6 address, in networks that have that.
	Address6 string `json:"address6,omitempty"`
}

// Published is a port that every host of the fleet answers on, and spreads
// over the replicas of a service.
type Published struct {
	App     string `json:"app"`
	Service string `json:"service"`
	// Network is the network on which the replicas are reached.
	Network string `json:"network"`
	// HostIP is the one address that is published on, empty for all.
	HostIP string `json:"hostIP,omitempty"`
	// Protocol is "tcp" or "udp".
	Protocol string `json:"protocol"`
	HostPort uint16 `json:"hostPort"`
	Port     uint16 `json:"port"`
}

// Attached puts a machine itself on a network (network attach --host).
type Attached struct {
	Host    string    `json:"host"`
	Network string    `json:"network"`
	Since   time.Time `json:"since"`
}

// Rule opens a closed network to another: packets of new connections may go
// from one to the other. Networks and hosts are otherwise closed.
type Rule struct {
	// From and To are network ids; From may also be a prefix in CIDR form.
	From string `json:"from"`
	To   string `json:"to"`
	// Protocol is "tcp", "udp", "icmp" or "" for all, Port 0 for all.
	Protocol  string    `json:"protocol,omitempty"`
	Port      uint16    `json:"port,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
}

// Endpoint is one address in use.
type Endpoint struct {
	Host     string `json:"host"`
	Epoch    int64  `json:"epoch"`
	MAC      string `json:"mac,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Container is the container's name where the engine tells it.
	Container string `json:"container,omitempty"`
	// Machine says that it is the host's own (see [Attached]).
	Machine bool `json:"machine,omitempty"`
	// Ports are the ports of the host that lead to it, as "tcp/8080", or
	// "tcp/10.0.0.1/8080" where only one of the host's addresses has it, with
	// commas between.
	Ports string `json:"ports,omitempty"`
}

// Underlay is how other hosts reach a host.
type Underlay struct {
	Host string `json:"host"`
	// Name is the host's name, for who is told about it.
	Name    string `json:"name,omitempty"`
	Address string `json:"address"`
	// LinkLocal is the IPv6 address (fe80::/10) of the interface with Address,
	// by which hosts on the same link hand IPv6 packets over.
	LinkLocal string `json:"linkLocal,omitempty"`
	// Links are the prefixes of the interface with Address: two hosts are on
	// one link when each is in a prefix of the other.
	Links []string `json:"links,omitempty"`
	// Addresses are all addresses of the host's own interfaces, of both
	// families, but for link-local ones and those of the loopback.
	Addresses []string `json:"addresses,omitempty"`
	// MAC is the hardware address of that interface.
	MAC string `json:"mac,omitempty"`
	MTU int    `json:"mtu"`
	// WireGuard is the host's public key, and Routes are the destinations of
	// its own routes, in CIDR form.
	WireGuard string   `json:"wireguard,omitempty"`
	Routes    []string `json:"routes,omitempty"`
	Epoch     int64    `json:"epoch"`
}

// Called is the host's name, or its id while it has told none.
func (u Underlay) Called() string { return cmp.Or(u.Name, u.Host) }

// NameRecord is what DNS answers for one task: its names in each of its
// networks. It is there only while the task can be reached.
type NameRecord struct {
	App     string `json:"app"`
	Service string `json:"service"`
	// Replica is the container's name.
	Replica string `json:"replica"`
	// Networks maps network ids to address and aliases.
	Networks map[string]NamedAddress `json:"networks"`
	// Ports are the container's ports, for SRV records.
	Ports []model.Port `json:"ports,omitempty"`
}

// NamedAddress is an address with the extra names it has in a network.
type NamedAddress struct {
	Address  string   `json:"address,omitempty"`
	Address6 string   `json:"address6,omitempty"`
	Aliases  []string `json:"aliases,omitempty"`
}
