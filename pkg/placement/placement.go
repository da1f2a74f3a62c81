// Package placement decides which host runs which replica: filters that say
// why they refuse a host, then scores that order the rest. It is pure: a
// snapshot of hosts and a list of requests in, decisions and reasons out. It
// never talks to anything and keeps nothing between calls.
//
// A decision reserves what it uses at once, so requests placed in one call
// never overbook a host. Callers that place at the same time must be
// serialised, as the leading controller does.
//
// Design page: docs/design/placement.md.
package placement

import "clocker.io/clocker/pkg/model"

// Host is a host as placement sees it.
type Host struct {
	ID, Name string
	// Up means that its agent lives; Cordoned that it takes no new work.
	Up, Cordoned bool
	// Why says more about a host that is not up or cordoned ("it is being
	// drained", "it is suspect since 12:00:03"); may be empty.
	Why string
	// Labels are the fleet's, EngineLabels those of the engine's own
	// configuration; a rule sees both, the fleet's first.
	Labels, EngineLabels map[string]string
	// Role is RoleManager where a controller runs; empty means RoleWorker.
	Role string
	// Platform is "linux/amd64"; Hostname the machine's own name.
	Platform, Hostname string
	// Capacity is what containers may use in all; 0 means not known, which
	// refuses whoever reserves it.
	Capacity model.Amounts
	// Usage is the CPU share in use, 0 to 1; negative means not known.
	Usage float64
	// Strangers counts containers that are not the fleet's.
	Strangers int
	// Devices are how many of a kind the engine can give ("gpu": 2, and by
	// driver "nvidia/gpu": 2), Generic its own countable resources.
	Devices, Generic map[string]int64
	// Volumes are the names of volumes that are on this host alone.
	Volumes []string
	// Affinity are the host's own rules.
	Affinity []string
	// Ports are taken host ports, "tcp/80" or "tcp/10.0.0.1:80", with who
	// holds them.
	Ports map[string]string
	// Tasks are the replicas assigned to the host.
	Tasks []Task
}

// Task is a replica that a host has already.
type Task struct {
	// ID is the task's own; empty where tasks are not told apart.
	ID           string
	App, Service string
	// Parent is the plan id of the entity above the service, Type and Title
	// its type and display name; empty where there is none.
	Parent, Type, Title string
	// Reserve, Devices and Generic are what it keeps of the host's.
	Reserve          model.Amounts
	Devices, Generic map[string]int64
}

// Request asks for a host for one replica.
type Request struct {
	App, Service string
	Slot         int
	// Ports are what the replica publishes; HostPort 0 takes any free port.
	Ports []model.Port
	// Host pins to a host by name; empty means any.
	Host string
	// Task is the replica's own id, when it has one before it has a host; what is
	// decided is then reserved under it.
	Task string
	// Prefer names a host to stay on, by id, when it is still eligible.
	Prefer string
	// Avoid names hosts, by id, that a move must not end on.
	Avoid []string
	// Parent, Type and Title are as in [Task].
	Parent, Type, Title string
	// Placement is the service's own, Resources what a replica takes, Volumes
	// the volumes that it mounts.
	Placement model.Placement
	Resources model.Resources
	Volumes   []string
}

// Policy holds for every request.
type Policy struct {
	// Strategies are applied before a request's own; none means the default
	// order.
	Strategies []model.Strategy
	Affinity   []string
	// MaxContainers and MaxCPU override what strategies say; 0 means unset.
	MaxContainers int
	MaxCPU        float64
	// Reserve is what each host keeps for itself.
	Reserve model.Amounts
}
