package record

import (
	"time"

	"clocker.io/clocker/pkg/model"
)

// Device is something that an engine can give to containers.
type Device struct {
	// Driver is the engine's ("nvidia", "cdi"), Kind what it is ("gpu").
	Driver string `json:"driver"`
	Kind   string `json:"kind"`
	// IDs name each one as the driver does.
	IDs   []string `json:"ids"`
	Model string   `json:"model,omitempty"`
}

// HostUsage is how busy a host is, written by its agent when it has changed
// enough to matter, at hosts/<id>/usage.
type HostUsage struct {
	// CPU is the share of all CPUs in use, 0 to 1, over the last half minute.
	CPU         float64 `json:"cpu"`
	MemoryUsed  int64   `json:"memoryUsed"`
	DiskFree    int64   `json:"diskFree"`
	LoadAverage float64 `json:"loadAverage"`
	// Containers counts all that run on the engine.
	Containers int       `json:"containers"`
	At         time.Time `json:"at"`
}

// HostHealth is what the leader makes of a host's lease, at
// hosts/<id>/health. No key means healthy.
type HostHealth struct {
	// State is one of the Health constants.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Losses are the times at which the host was lost lately, for telling a
	// flapping one.
	Losses []time.Time `json:"losses,omitempty"`
	Reason string      `json:"reason,omitempty"`
}

// What a host's health is.
const (
	HealthReady       = "ready"
	HealthSuspect     = "suspect"     // lease lost: no new work, nothing replaced yet
	HealthLost        = "lost"        // its work is replaced elsewhere
	HealthQuarantined = "quarantined" // it flaps: it is up, but takes no new work
)

// Membership is what a host must know of the fleet's controllers and
// authority, kept by the leader at hosts/<id>/membership. The host's agent
// brings its own files to it.
type Membership struct {
	// Etcd and Controllers are URLs.
	Etcd        []string `json:"etcd"`
	Controllers []string `json:"controllers"`
	// CA holds every certificate that the fleet trusts, as PEM: two while the
	// authority is being rotated.
	CA string `json:"ca"`
	// Signer is the fingerprint of the certificate that signs now: a host whose
	// own certificate is of another one asks for a new one.
	Signer string `json:"signer"`
}

// ControllerMember is a controller of the fleet, at controllers/<name>/spec;
// controllers/<name>/lease is there while it runs.
type ControllerMember struct {
	Name string `json:"name"`
	// Host is the name of the fleet's host whose engine runs it, Endpoint how
	// that engine is reached; Address is advertised.
	Host     string `json:"host,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Address  string `json:"address"`
	URL      string `json:"url"`
	// EtcdURL, PeerURL and MemberID (hexadecimal) are of its embedded etcd.
	EtcdURL  string    `json:"etcdURL,omitempty"`
	PeerURL  string    `json:"peerURL,omitempty"`
	MemberID string    `json:"memberID,omitempty"`
	Version  string    `json:"version"`
	AddedAt  time.Time `json:"addedAt"`
}

// ControllerLease is on the lease of a running controller.
type ControllerLease struct {
	Boot    string    `json:"boot"`
	Version string    `json:"version"`
	Schema  int       `json:"schema"`
	Since   time.Time `json:"since"`
}

// The roles of users.
const (
	RoleAdmin  = "admin"  // everything
	RoleDeploy = "deploy" // changes the applications that it is given
	RoleRead   = "read"   // sees the applications that it is given
)

// User is somebody who may call the API, at users/<name>.
type User struct {
	Name string `json:"name"`
	Role string `json:"role"`
	// Apps are the applications that the role is for, as patterns of
	// path.Match; empty means all.
	Apps      []string  `json:"apps,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
	CreatedBy string    `json:"createdBy,omitempty"`
	// Until is the end of the certificate that was given last, SerialNumbers
	// are of those that still hold (hexadecimal).
	Until         time.Time `json:"until,omitzero"`
	SerialNumbers []string  `json:"serialNumbers,omitempty"`
	// CertifiedBy names the authority that has signed the newest of them, by
	// ca.Authority.KeyID; empty in records of older programs.
	CertifiedBy string `json:"certifiedBy,omitempty"`
	// RemovedAt is when the user's rights were taken away last: certificates
	// from before are refused for ever.
	RemovedAt time.Time `json:"removedAt,omitzero"`
}

// Active reports whether the user has rights: a record of one who has none is
// kept for as long as the certificates could be shown.
func (u User) Active() bool { return u.Role != "" }

// Token lets its bearer join once: as a host, or as a user. It is kept at
// tokens/<id> on a lease that ends with it; the secret itself is not stored.
type Token struct {
	ID string `json:"id"`
	// Kind is "host" or "user".
	Kind string `json:"kind"`
	// Hash is the SHA-256 of the secret, in hexadecimal.
	Hash string `json:"hash"`
	// User is what a user token makes, Labels what a host token's host has.
	User      *User             `json:"user,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	CreatedAt time.Time         `json:"createdAt"`
	CreatedBy string            `json:"createdBy,omitempty"`
	Expires   time.Time         `json:"expires"`
	// UsedAt and UsedBy tell a token that was used from one that never was.
	UsedAt time.Time `json:"usedAt,omitzero"`
	UsedBy string    `json:"usedBy,omitempty"`
}

// The kinds of tokens.
const (
	TokenHost = "host"
	TokenUser = "user"
)

// AuditEntry is something that somebody asked the controllers for, at
// audit/<id>, on a lease.
type AuditEntry struct {
	ID   string    `json:"id"`
	At   time.Time `json:"at"`
	User string    `json:"user"`
	Role string    `json:"role,omitempty"`
	// From is the caller's address, Action a verb such as "deploy" or "host rm",
	// Subject what it was for. Neither holds a secret.
	From    string `json:"from,omitempty"`
	Action  string `json:"action"`
	Subject string `json:"subject,omitempty"`
	// Result is "ok", "refused" or "failed", with the reason.
	Result string `json:"result"`
	Reason string `json:"reason,omitempty"`
}

// PlacementPolicy holds for every application of the fleet, at
// policy/fleet/placement.
type PlacementPolicy struct {
	// Strategies are applied before those of services; none means the default
	// order.
	Strategies []model.Strategy `json:"strategies,omitempty"`
	Affinity   []string         `json:"affinity,omitempty"`
	// MaxContainers bounds the containers of each host and MaxCPU its CPU
	// usage (0 to 1); 0 means no bound. They override strategies' own.
	MaxContainers int     `json:"maxContainers,omitempty"`
	MaxCPU        float64 `json:"maxCPU,omitempty"`
	// KernelReserve is what every host keeps for itself.
	KernelReserve model.Amounts `json:"kernelReserve,omitzero"`
}

// HeadroomPolicy is the room that the fleet keeps free, and how it comes by
// hosts, at policy/fleet/headroom.
type HeadroomPolicy struct {
	// Count is in containers, Percent in parts of 1 of what the fleet can hold,
	// CPU in billionths and Memory in bytes; 0 means unset. At most one of
	// Count and Percent is set.
	Count   int     `json:"count,omitempty"`
	Percent float64 `json:"percent,omitempty"`
	CPU     int64   `json:"cpu,omitempty"`
	Memory  int64   `json:"memory,omitempty"`
	// For keeps room for more replicas of services.
	For []HeadroomFor `json:"for,omitempty"`
	// MinHosts and MaxHosts bound the fleet; 0 as MaxHosts means no bound.
	MinHosts int `json:"minHosts,omitempty"`
	MaxHosts int `json:"maxHosts,omitempty"`
	// UpDelay and DownDelay are the stabilisation windows.
	UpDelay   time.Duration `json:"upDelay,omitempty"`
	DownDelay time.Duration `json:"downDelay,omitempty"`
	// RemoveEmpty lets hosts go that nothing runs on.
	RemoveEmpty bool `json:"removeEmpty,omitempty"`
	// EvenWithStrangers lets hosts go that run somebody else's containers.
	EvenWithStrangers bool `json:"evenWithStrangers,omitempty"`
	// LostDelay is how long a host of a provider is lost before its machine is
	// given back; 0 means the default, less than 0 never. LostWithData gives it
	// back also when replicas wait for what they wrote there.
	LostDelay    time.Duration `json:"lostDelay,omitempty"`
	LostWithData bool          `json:"lostWithData,omitempty"`
	// Suspended makes the policy look and say, but do nothing.
	Suspended bool `json:"suspended,omitempty"`
}

// HeadroomFor is room for N more replicas of a service.
type HeadroomFor struct {
	App     string `json:"app"`
	Service string `json:"service"`
	N       int    `json:"n"`
}

// Provider is a source of hosts, at providers/<name>/spec.
type Provider struct {
	Name string `json:"name"`
	// Kind is "byon" or "standby" (see pkg/location).
	Kind string `json:"kind"`
	// Machines are what a fixed list holds.
	Machines []ProviderMachine `json:"machines,omitempty"`
	// InstallEngine lets a bare machine get an engine.
	InstallEngine bool `json:"installEngine,omitempty"`
	// Labels are given to its hosts; Config is the provider's own.
	Labels map[string]string `json:"labels,omitempty"`
	Config map[string]string `json:"config,omitempty"`
	// Secret is the sealed private key or certificate by which its machines
	// are reached: encrypted to the fleet's identity, which etcd does not hold.
	Secret    string    `json:"secret,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
}

// ProviderMachine is a machine of a fixed list.
type ProviderMachine struct {
	// Endpoint is ssh://user@host[:port] or tcp://host:port.
	Endpoint string `json:"endpoint"`
	Name     string `json:"name,omitempty"`
	// HostKey is the SSH host key in the form of authorized_keys.
	HostKey string            `json:"hostKey,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// Machine is a machine that a provider was asked for, at machines/<id>. It is
// written before the provider is asked, so that a controller that dies in the
// middle leaves a trace of what may exist.
type Machine struct {
	ID       string `json:"id"`
	Provider string `json:"provider"`
	// Handle is the provider's own name for it; empty until it has one.
	Handle   string `json:"handle,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	// Host is the id of the host it became; Name the name it is given, empty
	// for the engine's own.
	Host string `json:"host,omitempty"`
	Name string `json:"name,omitempty"`
	// Offer is what the provider was asked for, as it names it.
	Offer string `json:"offer,omitempty"`
	// For is the "app/service" whose placement was refused when it was asked
	// for; empty when it was for room.
	For string `json:"for,omitempty"`
	// Leave says why it goes; empty while it is wanted. Ordered means that a
	// user said so, and that nothing takes it back.
	Leave   string `json:"leave,omitempty"`
	Ordered bool   `json:"ordered,omitempty"`
	// Lost means that it goes because its host is lost: it may not answer.
	Lost bool `json:"lost,omitempty"`
	// State is one of the Machine constants; Since when it began.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// Why says what it was asked for; Error what went wrong last, Attempts how
	// often.
	Why       string    `json:"why,omitempty"`
	Error     string    `json:"error,omitempty"`
	Attempts  int       `json:"attempts,omitempty"`
	CreatedAt time.Time `json:"createdAt"`
}

// The states of a machine, in order.
const (
	MachineRequested = "requested" // the provider may or may not have been asked
	MachineCreating  = "creating"
	MachineAdopting  = "adopting"
	MachineHost      = "host"
	MachineDraining  = "draining"
	MachineReleasing = "releasing"
	MachineFailed    = "failed" // kept visible, not counted, tried no more
)
