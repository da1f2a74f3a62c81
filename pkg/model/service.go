package model

import "time"

// Service describes the container that each replica of an entity runs. A nil
// slice means "what the image says"; an empty one means "nothing".
type Service struct {
	// Image is a normalised image reference, such as
	// "docker.io/library/redis:3" or "registry:5000/a/b@sha256:...".
	Image      string   `json:"image"`
	Command    []string `json:"command,omitzero"`
	Entrypoint []string `json:"entrypoint,omitzero"`
	// Env are the variables in the order they were given; names are unique.
	Env []EnvVar `json:"env,omitempty"`
	// Replicas is how many members run; at least 0.
	Replicas int    `json:"replicas"`
	Ports    []Port `json:"ports,omitempty"`
	// Networks lists what each replica joins, first one first. Never empty
	// after a front end is done.
	Networks    []Attachment      `json:"networks,omitempty"`
	Mounts      []Mount           `json:"mounts,omitempty"`
	Links       []Link            `json:"links,omitempty"`
	DependsOn   []Dependency      `json:"dependsOn,omitempty"`
	Restart     Restart           `json:"restart,omitzero"`
	Healthcheck *Healthcheck      `json:"healthcheck,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// EndpointMode says what the service's name answers with: EndpointVIP or
	// EndpointDNSRR; empty means the former.
	EndpointMode string `json:"endpointMode,omitempty"`
	// StopGracePeriod is how long a replica may take to stop before it is
	// killed; 0 means the engine's default of 10 s.
	StopGracePeriod time.Duration `json:"stopGracePeriod,omitempty"`
	Placement       Placement     `json:"placement,omitzero"`
	Resources       Resources     `json:"resources,omitzero"`
	// Update is how replicas are replaced; nil means the fleet's default.
	Update *Update `json:"update,omitempty"`
	// HostLost is what becomes of its replicas when their host is lost.
	HostLost HostLost `json:"hostLost,omitzero"`
}

// What the name of a service answers with: an address of its own, which leads
// to all replicas, or the replicas' addresses.
const (
	EndpointVIP   = "vip"
	EndpointDNSRR = "dnsrr"
)

// EnvVar is one environment variable of a container.
type EnvVar struct {
	Name  string `json:"name"`
	Value Value  `json:"value"`
}

// Port publishes a container's port.
type Port struct {
	// HostIP is the host address to bind; empty means every address.
	HostIP string `json:"hostIP,omitempty"`
	// HostPort is the port on the host; 0 means the fleet picks one.
	HostPort      uint16 `json:"hostPort,omitempty"`
	ContainerPort uint16 `json:"containerPort"`
	// Protocol is "tcp" or "udp".
	Protocol string `json:"protocol"`
	// Mode is PortHost or PortIngress.
	Mode     string   `json:"mode"`
	Position Position `json:"position,omitzero"`
}

// The modes of a port: published on each host that runs a replica, or on every
// host of the fleet.
const (
	PortHost    = "host"
	PortIngress = "ingress"
)

// Attachment joins a service to a network of the application.
type Attachment struct {
	Network string   `json:"network"`
	Aliases []string `json:"aliases,omitempty"`
	// Address and Address6 are the addresses that a service of one replica
	// has there for good; MAC is its hardware address.
	Address  string `json:"address,omitempty"`
	Address6 string `json:"address6,omitempty"`
	MAC      string `json:"mac,omitempty"`
	// GatewayPriority decides which of several networks leads out: the highest.
	GatewayPriority int      `json:"gatewayPriority,omitempty"`
	Position        Position `json:"position,omitzero"`
}

// MountType says what is mounted.
type MountType string

// The kinds of mounts.
const (
	MountBind   MountType = "bind"
	MountVolume MountType = "volume"
	MountTmpfs  MountType = "tmpfs"
)

// Mount puts a path of the host, a volume or a tmpfs into the container.
type Mount struct {
	Type MountType `json:"type"`
	// Source is an absolute path of the host (bind) or a volume's name.
	Source   string `json:"source,omitempty"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// CreateHostPath makes a missing bind source, as docker run -v does.
	CreateHostPath bool `json:"createHostPath,omitempty"`
	// Shared says that the source is the same data on every host that the
	// service may be on, as with a network file system.
	Shared bool `json:"shared,omitempty"`
}

// Link makes another entity known to a service: by a name that resolves and
// by the variables of Docker's legacy links (spec/clocker.md §1.3.3). The
// source starts when the target is up.
type Link struct {
	// Target is the plan id of the entity linked to.
	Target string `json:"target"`
	// Alias is the name the source uses; never empty.
	Alias    string   `json:"alias"`
	Position Position `json:"position,omitzero"`
}

// Condition says when a dependency is met.
type Condition string

// The conditions of compose's depends_on.
const (
	ConditionStarted   Condition = "service_started"
	ConditionHealthy   Condition = "service_healthy"
	ConditionCompleted Condition = "service_completed_successfully"
)

// Dependency delays a service until another one meets a condition.
type Dependency struct {
	Entity    string    `json:"entity"`
	Condition Condition `json:"condition"`
	Position  Position  `json:"position,omitzero"`
}

// Restart is the engine's restart policy, which holds while every part of
// Clocker is away.
type Restart struct {
	// Policy is "no", "always", "on-failure" or "unless-stopped".
	Policy string `json:"policy"`
	// MaxRetries bounds on-failure; 0 means without bound.
	MaxRetries int `json:"maxRetries,omitempty"`
}

// Healthcheck overrides the image's own; Disable turns it off.
type Healthcheck struct {
	// Test is in the engine's form: ["CMD", ...] or ["CMD-SHELL", "..."].
	Test          []string      `json:"test,omitempty"`
	Interval      time.Duration `json:"interval,omitempty"`
	Timeout       time.Duration `json:"timeout,omitempty"`
	StartPeriod   time.Duration `json:"startPeriod,omitempty"`
	StartInterval time.Duration `json:"startInterval,omitempty"`
	Retries       int           `json:"retries,omitempty"`
	Disable       bool          `json:"disable,omitempty"`
}
