package api

import "time"

// What a controller does.
const (
	ControllerLeader  = "leader"
	ControllerStandby = "standby"
	// ControllerJoining has not been up yet.
	ControllerJoining = "joining"
	ControllerDown    = "down"
)

// Controller is a controller of the fleet.
type Controller struct {
	Name string `json:"name"`
	// Host is the host of the fleet whose engine runs it, Endpoint how that
	// engine is reached; empty when not known.
	Host     string `json:"host,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Address  string `json:"address"`
	URL      string `json:"url"`
	// EtcdURL is of the member of etcd that it embeds.
	EtcdURL string `json:"etcdURL,omitempty"`
	// Status is one of the Controller constants; Since when it came up.
	Status  string    `json:"status"`
	Since   time.Time `json:"since,omitzero"`
	AddedAt time.Time `json:"addedAt"`
	Version string    `json:"version"`
	// Schema is the layout of the state that it knows; 0 while it is down.
	Schema int `json:"schema,omitempty"`
	// Etcd is nil for an etcd of the user's own.
	Etcd *EtcdMember `json:"etcd,omitempty"`
}

// What a member of etcd is.
const (
	MemberVoter   = "voter"
	MemberLearner = "learner"
	// MemberUnstarted was added and has not come up yet.
	MemberUnstarted = "unstarted"
	// MemberGone means that etcd has no such member.
	MemberGone = "gone"
)

// EtcdMember is the member of etcd that a controller embeds.
type EtcdMember struct {
	// ID is hexadecimal.
	ID string `json:"id"`
	// State is one of the Member constants; Leader that raft's leader is here.
	State  string `json:"state"`
	Leader bool   `json:"leader,omitempty"`
	// Healthy means that it answers; Error why it does not.
	Healthy bool   `json:"healthy"`
	Error   string `json:"error,omitempty"`
	Term    uint64 `json:"term,omitempty"`
	Index   uint64 `json:"index,omitempty"`
	// Lag is how many entries it is behind the furthest member.
	Lag uint64 `json:"lag"`
	// Size is what its data takes on disk, in bytes.
	Size    int64  `json:"size,omitempty"`
	Version string `json:"version,omitempty"`
}

// ControllerRequest asks for a place for a controller that is about to be
// made.
type ControllerRequest struct {
	Name     string `json:"name"`
	Host     string `json:"host,omitempty"`
	Endpoint string `json:"endpoint,omitempty"`
	Address  string `json:"address"`
	URL      string `json:"url"`
	// EtcdURL and PeerURL are of the member of etcd that it will embed.
	EtcdURL string `json:"etcdURL,omitempty"`
	PeerURL string `json:"peerURL,omitempty"`
}

// ControllerPlace is the answer: what the new controller starts with.
type ControllerPlace struct {
	// Cluster are etcd's members as its --initial-cluster has them.
	Cluster  string `json:"cluster,omitempty"`
	MemberID string `json:"memberID,omitempty"`
	// Controllers are the URLs of all.
	Controllers []string `json:"controllers"`
	// Warnings are for the user.
	Warnings []string `json:"warnings,omitempty"`
}

// RestoredHost is a host that has not settled with a restored etcd.
type RestoredHost struct {
	Host     string    `json:"host"`
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Snapshot time.Time `json:"snapshot,omitzero"`
	// Looked is when its agent looked last; zero when it has not yet.
	Looked time.Time      `json:"looked,omitzero"`
	Kept   []RestoredTask `json:"kept,omitempty"`
}

// RestoredTask is a container that is kept though the restored state wants it
// otherwise.
type RestoredTask struct {
	Task        string `json:"task"`
	Container   string `json:"container"`
	Name        string `json:"name"`
	Application string `json:"application"`
	Service     string `json:"service"`
	Why         string `json:"why"`
}
