package api

import (
	"time"

	"clocker.io/clocker/pkg/record"
)

// Paths about the number of hosts. {provider} is a name, {machine} an id, or
// the name or handle of one machine.
//
//	GET    /v1/headroom                      → Headroom
//	PUT    /v1/headroom                      HeadroomRequest → Headroom
//	DELETE /v1/headroom                      takes the policy away
//	GET    /v1/providers                     → []Provider
//	POST   /v1/providers                     ProviderRequest → Provider
//	GET    /v1/providers/{provider}          → Provider
//	DELETE /v1/providers/{provider}
//	GET    /v1/machines                      → []Machine
//	DELETE /v1/machines/{machine}            lets a machine go → Machine

// Headroom is the policy about the number of hosts, and what it comes to.
type Headroom struct {
	Policy record.HeadroomPolicy `json:"policy"`
	// Revision is the policy's; 0 means that none is set.
	Revision int64 `json:"revision"`
	// UpDelay, DownDelay and LostDelay are those in force (LostDelay less than 0
	// means never), MaxContainers what a host is
	// taken to hold.
	UpDelay       time.Duration    `json:"upDelay"`
	DownDelay     time.Duration    `json:"downDelay"`
	LostDelay     time.Duration    `json:"lostDelay"`
	MaxContainers int              `json:"maxContainers"`
	Decision      HeadroomDecision `json:"decision"`
	Providers     int              `json:"providers"`
	Machines      []Machine        `json:"machines"`
}

// HeadroomDecision is what was decided last about the number of hosts.
type HeadroomDecision struct {
	// Hosts count, Coming are machines on their way.
	Hosts  int `json:"hosts"`
	Coming int `json:"coming"`
	// Desired is how many hosts there should be by what is seen now, Target by
	// the stabilisation windows.
	Desired int            `json:"desired"`
	Target  int            `json:"target"`
	Rooms   []HeadroomRoom `json:"rooms"`
	// Event is "hot", "cold" or "ok"; Reason says all of this in words.
	Event  string `json:"event"`
	Reason string `json:"reason"`
	// Stay are empty hosts that stay, and why, by name.
	Stay map[string]string `json:"stay,omitempty"`
}

// HeadroomRoom is one kind of room: containers, billionths of a CPU, bytes, or
// replicas of a service.
type HeadroomRoom struct {
	// Name is "count", "percent", "cpu", "memory" or "for APP/SERVICE".
	Name string `json:"name"`
	// Available is what is Possible less what is Used; Needed is what lacks of
	// Headroom, and not positive while there is enough.
	Possible  int64 `json:"possible"`
	Used      int64 `json:"used"`
	Available int64 `json:"available"`
	Headroom  int64 `json:"headroom"`
	Needed    int64 `json:"needed"`
	// Utilisation is Used of Possible; between Low and High nothing needs
	// doing.
	Utilisation float64 `json:"utilisation"`
	Low         float64 `json:"low"`
	High        float64 `json:"high"`
	// Desired is how many hosts it asks for.
	Desired int    `json:"desired"`
	Problem string `json:"problem,omitempty"`
}

// HeadroomRequest replaces the policy.
type HeadroomRequest struct {
	Policy record.HeadroomPolicy `json:"policy"`
	// Revision is that of the policy that it replaces: a conflict when it is
	// another by now.
	Revision int64 `json:"revision"`
}

// Provider is a source of hosts, without its secret.
type Provider struct {
	Name          string                   `json:"name"`
	Kind          string                   `json:"kind"`
	Machines      []record.ProviderMachine `json:"machines,omitempty"`
	InstallEngine bool                     `json:"installEngine,omitempty"`
	Labels        map[string]string        `json:"labels,omitempty"`
	Config        map[string]string        `json:"config,omitempty"`
	// Sealed says that it has credentials, which are never shown.
	Sealed    bool      `json:"sealed"`
	CreatedAt time.Time `json:"createdAt"`
	// Hosts are those it gave, Coming those on their way, Failed those that
	// are set aside, and Free how many it could give yet.
	Hosts  int `json:"hosts"`
	Coming int `json:"coming"`
	Failed int `json:"failed"`
	Free   int `json:"free"`
	// Problem says why it can give nothing at all; may be empty.
	Problem string `json:"problem,omitempty"`
}

// ProviderRequest adds a source of hosts.
type ProviderRequest struct {
	Name          string                   `json:"name"`
	Kind          string                   `json:"kind"`
	Machines      []record.ProviderMachine `json:"machines"`
	InstallEngine bool                     `json:"installEngine,omitempty"`
	Labels        map[string]string        `json:"labels,omitempty"`
	// CPU is in billionths and Memory in bytes: how large each of its machines
	// is; 0 means not known.
	CPU    int64 `json:"cpu,omitempty"`
	Memory int64 `json:"memory,omitempty"`
	// SSHKey is the private key for machines at ssh://; CA, Cert and Key are
	// for engines at tcp://. All are PEM and secret: the controller keeps them
	// sealed and never gives them out.
	SSHKey string `json:"sshKey,omitempty"`
	CA     string `json:"ca,omitempty"`
	Cert   string `json:"cert,omitempty"`
	Key    string `json:"key,omitempty"`
}

// Machine is a machine that a provider was asked for.
type Machine struct {
	record.Machine
	// HostName is the name of the host it became, Status that host's; empty
	// while there is none.
	HostName string `json:"hostName,omitempty"`
	Status   string `json:"status,omitempty"`
}
