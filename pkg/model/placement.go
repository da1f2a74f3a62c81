package model

import "time"

// Placement says which hosts the replicas of a service may run on, and which
// of those are best. The zero value means any host, replicas spread.
type Placement struct {
	// Strategies are the service's own chain, applied after the fleet's.
	Strategies []Strategy `json:"strategies,omitempty"`
	// Affinity are rules of the old grammar (spec/clocker.md §2.4), one each.
	Affinity []string `json:"affinity,omitempty"`
	// Constraints are compose's: "node.labels.disk == ssd".
	Constraints []string `json:"constraints,omitempty"`
	// Spread are compose's placement preferences: labels, such as
	// "node.labels.zone", over whose values replicas are spread evenly, the
	// first one first.
	Spread []string `json:"spread,omitempty"`
	// MaxPerHost bounds the replicas of the service on one host; 0 means no
	// bound.
	MaxPerHost int `json:"maxPerHost,omitempty"`
	// Platform is "os/arch[/variant]"; empty means any.
	Platform string `json:"platform,omitempty"`
	// MinCores and MinMemory are the least free capacity that a host must have,
	// from provisioning.properties; they count as reserved while the replica is
	// there.
	MinCores  float64  `json:"minCores,omitempty"`
	MinMemory int64    `json:"minMemory,omitempty"`
	Position  Position `json:"position,omitzero"`
}

// Strategy is one member of a placement chain: a filter, which refuses hosts,
// or a sorter, which orders them.
type Strategy struct {
	// Name is the short name: "depth-first", "breadth-first", "random",
	// "least-containers", "lowest-cpu", "max-containers", "max-cpu",
	// "hostname", "label", "group", "provisioning-flags", "affinity",
	// "spread", "binpack", "max-replicas-per-host", "zone-spread".
	Name string `json:"name"`
	// Soft makes a filter a wish: hosts that it would refuse come last.
	Soft bool `json:"soft,omitempty"`
	// Containers is the bound of max-containers and max-replicas-per-host.
	Containers int `json:"containers,omitempty"`
	// CPU is the bound of max-cpu, 0 to 1.
	CPU float64 `json:"cpu,omitempty"`
	// Hostname is the regular expression of hostname, for the whole name.
	Hostname string `json:"hostname,omitempty"`
	// Labels are those of label, "key" or "key=value", and the one of
	// zone-spread.
	Labels []string `json:"labels,omitempty"`
	// Exclusive and Timeout are those of group.
	Exclusive bool          `json:"exclusive,omitempty"`
	Timeout   time.Duration `json:"timeout,omitempty"`
	// Cores and MemoryBytes are the minima of provisioning-flags.
	Cores       float64 `json:"cores,omitempty"`
	MemoryBytes int64   `json:"memoryBytes,omitempty"`
	// Rules are those of affinity.
	Rules    []string `json:"rules,omitempty"`
	Position Position `json:"position,omitzero"`
}

// Amounts are quantities of what a container uses; 0 means unset.
type Amounts struct {
	// NanoCPUs are billionths of a CPU.
	NanoCPUs    int64 `json:"nanoCPUs,omitempty"`
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	PIDs        int64 `json:"pids,omitempty"`
}

// Resources are what each replica is given at most, and what a host keeps
// free for it.
type Resources struct {
	Limit   Amounts `json:"limit,omitzero"`
	Reserve Amounts `json:"reserve,omitzero"`
	// CPUShares weigh CPU time against other containers; 0 means the engine's
	// default of 1024. CPUSet names CPUs ("0-2,4").
	CPUShares int64  `json:"cpuShares,omitempty"`
	CPUSet    string `json:"cpuSet,omitempty"`
	// SwapBytes is the bound of memory and swap together; -1 means without
	// bound, 0 the engine's default.
	SwapBytes int64 `json:"swapBytes,omitempty"`
	// Devices are asked of the engine ("--gpus"), Paths mapped into the
	// container ("--device"), and Generic the host's own countable resources.
	Devices []DeviceRequest   `json:"devices,omitempty"`
	Paths   []DevicePath      `json:"paths,omitempty"`
	Generic []GenericResource `json:"generic,omitempty"`
}

// DeviceRequest asks for devices of a driver, as `docker run --gpus` does.
type DeviceRequest struct {
	Driver string `json:"driver,omitempty"`
	// Count is how many; -1 means all. IDs names them instead.
	Count        int               `json:"count,omitempty"`
	IDs          []string          `json:"ids,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`
	Options      map[string]string `json:"options,omitempty"`
}

// DevicePath maps a device node of the host into a container.
type DevicePath struct {
	Host        string `json:"host"`
	Container   string `json:"container"`
	Permissions string `json:"permissions,omitempty"` // of "rwm"; empty means all
}

// GenericResource is an amount of something a host declares to have (compose's
// generic_resources, the engine's node-generic-resources).
type GenericResource struct {
	Kind  string `json:"kind"`
	Value int64  `json:"value"`
}

// Update says how replicas are replaced, by a deploy or a move.
type Update struct {
	// Parallelism is how many at once; 0 means all.
	Parallelism int `json:"parallelism,omitempty"`
	// StartFirst starts the successor before its predecessor stops.
	StartFirst bool `json:"startFirst,omitempty"`
	// Delay is the pause between two batches, Monitor how long a new replica
	// is watched for failure.
	Delay   time.Duration `json:"delay,omitempty"`
	Monitor time.Duration `json:"monitor,omitempty"`
	// OnFailure is "pause", "continue" or "rollback"; empty means rollback.
	OnFailure string `json:"onFailure,omitempty"`
}
