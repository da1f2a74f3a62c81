package record

// Labels on what Clocker makes on engines. They are as much a format as the
// keys in etcd: whoever comes after must know what an earlier version made.
const (
	LabelFleet   = "io.clocker.fleet"
	LabelApp     = "io.clocker.app"
	LabelService = "io.clocker.service"
	LabelSlot    = "io.clocker.slot"
	LabelTask    = "io.clocker.task"
	LabelHash    = "io.clocker.hash"
	// LabelNetwork holds the fleet's id of a network.
	LabelNetwork = "io.clocker.network"
	// LabelSystem marks Clocker's own containers: "agent", "controller" or
	// "probe".
	LabelSystem = "io.clocker.system"
	// LabelHost holds the name of the host that an agent serves.
	LabelHost = "io.clocker.host"
	// LabelFence holds how long a container may run without etcd, as "15s".
	LabelFence = "io.clocker.fence"
)
