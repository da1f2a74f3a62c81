package record

import (
	"time"

	"clocker.io/clocker/pkg/model"
)

// SchemaVersion is the layout this program reads and writes. A fleet with a
// higher number refuses this program.
const SchemaVersion = 1

// Host is a machine of the fleet as the user added it.
type Host struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// Endpoint is how the user's machine reaches the engine: unix://,
	// tcp://host:port, ssh://user@host. It holds no credentials.
	Endpoint string `json:"endpoint"`
	// Address is the underlay address other hosts use.
	Address string            `json:"address"`
	Labels  map[string]string `json:"labels,omitempty"`
	// EngineID is the engine's own id, by which a machine under two names
	// is noticed.
	EngineID string `json:"engineID,omitempty"`
	// State is "active", "cordoned", "draining" or "removing".
	State string `json:"state"`
	// Before is the state to which a removal that does not come to its end goes
	// back; empty in any other state.
	Before string `json:"before,omitempty"`
	// Affinity are rules for what may share the host (spec/clocker.md §2.4).
	Affinity []string `json:"affinity,omitempty"`
	// Provider names the host provider that the machine came from, and Machine
	// its id there; both are empty for a host that a user added.
	Provider string    `json:"provider,omitempty"`
	Machine  string    `json:"machine,omitempty"`
	AddedAt  time.Time `json:"addedAt"`
}

// The states of a host's spec.
const (
	HostActive   = "active"
	HostCordoned = "cordoned" // takes no new work
	HostDraining = "draining" // its work moves away
	HostRemoving = "removing"
)

// HostFacts is what an agent knows about its host.
type HostFacts struct {
	AgentVersion  string            `json:"agentVersion"`
	EngineVersion string            `json:"engineVersion"`
	APIVersion    string            `json:"apiVersion"`
	OS            string            `json:"os"`
	Architecture  string            `json:"architecture"`
	Kernel        string            `json:"kernel"`
	CPUs          int               `json:"cpus"`
	MemoryBytes   int64             `json:"memoryBytes"`
	EngineLabels  map[string]string `json:"engineLabels,omitempty"`
	// DiskBytes is the size of the file system that the engine keeps its data
	// on.
	DiskBytes int64 `json:"diskBytes,omitempty"`
	// Devices are what the engine can give to containers, Generic its
	// node-generic-resources, Runtimes its OCI runtimes.
	Devices  []Device                `json:"devices,omitempty"`
	Generic  []model.GenericResource `json:"generic,omitempty"`
	Runtimes []string                `json:"runtimes,omitempty"`
	// Volumes are the names of volumes that are on this host alone.
	Volumes []string `json:"volumes,omitempty"`
	// Strangers counts containers that are not Clocker's; they count for
	// placement and headroom, and are never touched.
	Strangers int `json:"strangers,omitempty"`
	// CertificateUntil is the end of the host's own certificate.
	CertificateUntil time.Time `json:"certificateUntil,omitzero"`
	// CertificateBy names the authority that has signed it, by
	// ca.Authority.KeyID.
	CertificateBy string `json:"certificateBy,omitempty"`
	// Routes are the destinations of the host's own routes, in CIDR form.
	Routes []string `json:"routes,omitempty"`
	// Listening are the ports that something on the host other than Clocker
	// listens on, as "tcp/80".
	Listening []string  `json:"listening,omitempty"`
	At        time.Time `json:"at"`
}

// HostLease shows that an agent lives.
type HostLease struct {
	// Boot differs for each run of the agent.
	Boot  string    `json:"boot"`
	Since time.Time `json:"since"`
}

// HostFence says of a host's agent that it stops what has a fence once etcd has
// not vouched for the host for that long. It is written in the same transaction
// as each [HostLease], and is on no lease: while it has not changed, no lease
// was taken since.
type HostFence struct {
	Boot string `json:"boot"`
	// Unguarded means that the agent has ended and its work runs on: it may run
	// forever.
	Unguarded bool `json:"unguarded,omitempty"`
}

// AppState is the one key that decides what an application is.
type AppState struct {
	Name string `json:"name"`
	// Release is the current release's number; 0 before the first is made
	// current.
	Release int `json:"release"`
	// Pending is the number of a release under way, or 0.
	Pending int `json:"pending,omitempty"`
	// Last is the highest number ever given to a release.
	Last int `json:"last"`
	// Desired is "running", "stopped" or "removed".
	Desired string `json:"desired"`
	// Stopped lists the services that the user stopped one by one.
	Stopped []string `json:"stopped,omitempty"`
	// Restarts counts, per service ("" for all), how often the user asked
	// for a restart.
	Restarts  map[string]int `json:"restarts,omitempty"`
	CreatedAt time.Time      `json:"createdAt"`
}

// What may be wanted of an application.
const (
	DesiredRunning = "running"
	DesiredStopped = "stopped"
	DesiredRemoved = "removed"
)

// Release is everything needed to make an application what it was at one
// moment.
type Release struct {
	App         string             `json:"app"`
	Number      int                `json:"number"`
	Application *model.Application `json:"application"`
	// Networks maps the application's network names to network ids.
	Networks  map[string]string `json:"networks"`
	CreatedAt time.Time         `json:"createdAt"`
	By        string            `json:"by,omitempty"`
}

// ReleaseStatus says how far a release has come.
type ReleaseStatus struct {
	// Phase is one of the Phase constants of releases.
	Phase string `json:"phase"`
	// Problems say why a release failed.
	Problems []string `json:"problems,omitempty"`
	// Wait makes the release done only when every replica is healthy.
	Wait bool `json:"wait,omitempty"`
	// Cancel asks the leader to take a release back that is under way.
	Cancel    bool      `json:"cancel,omitempty"`
	UpdatedAt time.Time `json:"updatedAt"`
}

// The phases of a release, in order.
const (
	ReleasePlanning  = "planning"  // networks are made, nothing is assigned
	ReleasePreparing = "preparing" // images are fetched, ports are checked
	ReleaseStarting  = "starting"  // containers are created and started
	ReleaseDone      = "done"
	ReleaseFailed    = "failed"
	ReleaseCancelled = "cancelled"
)

// Assignment is one task that a host must carry out: one incarnation of one
// replica. A changed container is a new task with a new id.
type Assignment struct {
	Task    string `json:"task"`
	App     string `json:"app"`
	Release int    `json:"release"`
	Service string `json:"service"`
	// Slot numbers the replica from 1.
	Slot int    `json:"slot"`
	Host string `json:"host"`
	// Phase is what the agent must bring about: "prepare", "run" or "stop".
	Phase string `json:"phase"`
	// Hash identifies what the release asked for, before ports and link
	// variables were decided; a replica with the same hash is kept.
	Hash string `json:"hash"`
	// Restarts makes the agent restart the container when it is higher than
	// the number the agent last reported.
	Restarts int `json:"restarts,omitempty"`
	// Retries counts those of Restarts that were deploys starting a container
	// again which had failed and was kept; Retried is the last such release.
	Retries   int           `json:"retries,omitempty"`
	Retried   int           `json:"retried,omitempty"`
	Container ContainerSpec `json:"container"`
	CreatedAt time.Time     `json:"createdAt"`
	// Completed is, for a job that ended well on another host and came from
	// there, one more than its Restarts then; 0 for any other. While it is more
	// than Restarts, the agent makes no container and reports it as complete.
	Completed int `json:"completed,omitempty"`
	// Replaces is the task, of the same service and slot on another host, that
	// goes once this one is up; empty when there is none.
	Replaces string `json:"replaces,omitempty"`
	// Cause says why the task was placed anew: "drain", "rebalance", "lost";
	// empty for a deploy.
	Cause string `json:"cause,omitempty"`
	// LeftAt is when it came into phase "leave".
	LeftAt time.Time `json:"leftAt,omitzero"`
	// Reason says in a few words why it was placed on this host.
	Reason string `json:"reason,omitempty"`
}

// The phases of an assignment.
const (
	PhasePrepare = "prepare" // image is there, host ports are free; nothing made
	PhaseRun     = "run"
	PhaseStop    = "stop" // container kept, not running
	// PhaseLeave is that of a replica whose successor is up: it runs on for a
	// moment, but has no names any more, so that nobody new comes.
	PhaseLeave = "leave"
)

// ContainerSpec is what the engine is asked for. Its hash tells whether a
// replica must be replaced.
type ContainerSpec struct {
	Name       string             `json:"name"`
	Image      string             `json:"image"`
	Hostname   string             `json:"hostname,omitempty"`
	Command    []string           `json:"command,omitzero"`
	Entrypoint []string           `json:"entrypoint,omitzero"`
	Env        []string           `json:"env,omitempty"`
	Ports      []model.Port       `json:"ports,omitempty"` // HostPort is decided
	Mounts     []model.Mount      `json:"mounts,omitempty"`
	Networks   []NetworkJoin      `json:"networks,omitempty"`
	Restart    model.Restart      `json:"restart,omitzero"`
	Health     *model.Healthcheck `json:"health,omitempty"`
	Labels     map[string]string  `json:"labels,omitempty"`
	// ExtraHosts are "name:address" lines for /etc/hosts.
	ExtraHosts      []string        `json:"extraHosts,omitempty"`
	StopGracePeriod time.Duration   `json:"stopGracePeriod,omitempty"`
	Resources       model.Resources `json:"resources,omitzero"`
	// Platform is "os/arch[/variant]"; empty means the engine's own.
	Platform string `json:"platform,omitempty"`
	// Fenced means that the container writes to data that outlives it: it is not
	// replaced elsewhere by itself.
	Fenced bool `json:"fenced,omitempty"`
	// Shared says of a container that is Fenced that every host has the data: it
	// moves, but two of one replica must not run at the same time.
	Shared bool `json:"shared,omitempty"`
	// Fence says of a container that is Fenced that it is replaced when its host
	// is lost, and how long it may run there without etcd; 0 means that it waits.
	Fence time.Duration `json:"fence,omitempty"`
}

// NetworkJoin attaches a container to a network.
type NetworkJoin struct {
	ID      string   `json:"id"`
	Aliases []string `json:"aliases,omitempty"`
	// Address, Address6 and MAC are fixed; empty means any.
	Address  string `json:"address,omitempty"`
	Address6 string `json:"address6,omitempty"`
	MAC      string `json:"mac,omitempty"`
	// GatewayPriority decides which network leads out: the highest.
	GatewayPriority int `json:"gatewayPriority,omitempty"`
}

// Observed is what a host's agent sees of a task.
type Observed struct {
	Task      string `json:"task"`
	App       string `json:"app"`
	Service   string `json:"service"`
	Slot      int    `json:"slot"`
	Host      string `json:"host"`
	State     string `json:"state"`
	Health    string `json:"health,omitempty"` // "", "starting", "healthy", "unhealthy"
	Container string `json:"container,omitempty"`
	// Addresses maps network ids to the container's addresses there.
	Addresses map[string]string `json:"addresses,omitempty"`
	Ports     []model.Port      `json:"ports,omitempty"`
	// Fence is how long the host runs it without etcd; 0 means without bound.
	Fence time.Duration `json:"fence,omitempty"`
	// Error says why the task is not what it should be; empty when it is.
	Error string `json:"error,omitempty"`
	// Fatal means that trying again without a change cannot help.
	Fatal     bool      `json:"fatal,omitempty"`
	ExitCode  int       `json:"exitCode,omitempty"`
	Restarts  int       `json:"restarts,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	At        time.Time `json:"at"`
}

// The states of a task as observed, in the order of a healthy life.
const (
	StatePreparing = "preparing"
	StatePrepared  = "prepared"
	StateCreating  = "creating"
	StateStarting  = "starting"
	StateRunning   = "running"
	StateStopped   = "stopped"  // exited because it was told to
	StateComplete  = "complete" // exited by itself with code 0
	StateFailed    = "failed"
	StateLost      = "lost" // its host does not answer; set by readers, never stored
)

// Event is something that happened in the fleet.
type Event struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
	// Type is "application", "task", "host", "network" or "controller".
	Type   string `json:"type"`
	Action string `json:"action"`
	// Subject names what it happened to.
	Subject string            `json:"subject"`
	Text    string            `json:"text,omitempty"`
	Attrs   map[string]string `json:"attrs,omitempty"`
}
