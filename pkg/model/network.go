package model

// Network is a network that the application declares or uses.
type Network struct {
	// Name is the name inside the file; "default" is the application's own.
	Name string `json:"name"`
	// External means that the network exists already under ExternalName and
	// outlives the application.
	External bool `json:"external,omitempty"`
	// ExternalName is the network's name in the fleet and on every engine.
	// For a network of the application itself it may be empty, which means
	// <application>_<Name>.
	ExternalName string `json:"externalName,omitempty"`
	// Internal networks have no way out of the fleet.
	Internal   bool `json:"internal,omitempty"`
	Attachable bool `json:"attachable,omitempty"`
	// Subnet and Gateway are IPv4, Subnet6 and Gateway6 IPv6; empty means that
	// the fleet chooses. Range and Range6 limit containers' addresses to a part
	// of the subnet, and Reserved are addresses that no container gets.
	Subnet   string   `json:"subnet,omitempty"`
	Gateway  string   `json:"gateway,omitempty"`
	Range    string   `json:"range,omitempty"`
	Subnet6  string   `json:"subnet6,omitempty"`
	Gateway6 string   `json:"gateway6,omitempty"`
	Range6   string   `json:"range6,omitempty"`
	Reserved []string `json:"reserved,omitempty"`
	// IPv6 gives the network IPv6 too; NoIPv4 leaves IPv4 out.
	IPv6   bool `json:"ipv6,omitempty"`
	NoIPv4 bool `json:"noIPv4,omitempty"`
	// Segment, Carrier and Egress are as in the fleet's record of a network,
	// and MTU is in bytes; empty means the fleet's choice.
	Segment string `json:"segment,omitempty"`
	Carrier string `json:"carrier,omitempty"`
	Egress  string `json:"egress,omitempty"`
	MTU     int    `json:"mtu,omitempty"`
	// Driver is another network driver of the engines, with options of its
	// own; empty means the fleet's.
	Driver        string            `json:"driver,omitempty"`
	DriverOptions map[string]string `json:"driverOptions,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	// DNSServers are asked for what the fleet does not know, in place of the
	// host's; DNSSearch are the domains that containers try.
	DNSServers []Value  `json:"dnsServers,omitempty"`
	DNSSearch  []string `json:"dnsSearch,omitempty"`
	// Unfiltered leaves out closing and masquerading (addIptablesRules: false).
	Unfiltered bool     `json:"unfiltered,omitempty"`
	Position   Position `json:"position,omitzero"`
}

// DefaultNetwork is the name of the network that an application has of its
// own and that its services join unless they name others.
const DefaultNetwork = "default"
