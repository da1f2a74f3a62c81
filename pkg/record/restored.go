package record

import "time"

// Restored says that etcd was restored from an older state, or went on from a
// single member's, at hosts/<id>/restored. While it is there, the host's agent
// disturbs nothing that runs for the sake of what was written before it: its
// creation revision parts what is old from what is new.
type Restored struct {
	// ID tells one restore from another.
	ID string    `json:"id"`
	At time.Time `json:"at"`
	// Snapshot is when the state was taken; zero when etcd went on from a
	// single member.
	Snapshot time.Time `json:"snapshot,omitzero"`
	// Looked is when the agent looked last; Kept is what it keeps though etcd
	// wants it otherwise.
	Looked time.Time  `json:"looked,omitzero"`
	Kept   []KeptTask `json:"kept,omitempty"`
}

// KeptTask is a container that an agent keeps after a restore.
type KeptTask struct {
	Task      string `json:"task"`
	Container string `json:"container"`
	Name      string `json:"name"`
	App       string `json:"app"`
	Service   string `json:"service"`
	// Why says in words how etcd's state differs.
	Why string `json:"why"`
}
