package fleet

import (
	"time"

	"github.com/moby/moby/client"
)

// Ports are a controller's ports; 0 means the default of pkg/fleet/
// controllerconfig.
type Ports struct{ API, Etcd, EtcdPeer int }

// EtcdCluster is an etcd cluster of the user's own.
type EtcdCluster struct {
	// Endpoints are URLs: https://address:port or http://address:port.
	Endpoints []string
	// CA, Cert and Key are PEM; empty where the cluster wants none.
	CA, Cert, Key []byte
}

// InitOptions say what fleet Init makes, and where.
type InitOptions struct {
	// Dir is docker's configuration directory.
	Dir string
	// Name is the fleet's name; empty means [DefaultName].
	Name string
	// Engine is where the controller runs, and Endpoint how the user reaches
	// it: unix://, tcp://, ssh:// or context:NAME. Access names the files
	// that were used for that.
	Engine   *client.Client
	Endpoint string
	Access   Access
	// Advertise is the address that users and hosts reach the controller
	// by; empty means it is chosen (see [ChooseAddress]).
	Advertise string
	Ports     Ports
	// Etcd is nil for the controller's embedded etcd.
	Etcd *EtcdCluster
	// User names the first user; empty means "admin".
	User string
	// ControllerOnly leaves out making the engine the fleet's first host.
	ControllerOnly bool
	// HostName and Labels are the first host's; an empty name means the
	// engine's own.
	HostName string
	Labels   map[string]string
	// Kit is what is carried to the engine; nil means NewKit(Build{}).
	Kit *Kit
	// Connect makes the client of the new fleet; nil means
	// [Profile.Client].
	Connect func(*Profile) (Controller, error)
	// Now is the clock; nil means the machine's.
	Now func() time.Time
}

// AddOptions say which engine becomes a host of a fleet.
type AddOptions struct {
	// Controller is the fleet's; Fleet its name and CA its CA certificate as
	// PEM, which the host must agree with.
	Controller Controller
	Fleet      string
	CA         []byte
	// pin is the CA's fingerprint where the CA itself is not known yet.
	pin    string
	Engine *client.Client
	// ThroughAgent says that the engine is reached through the host's own agent
	// (see [api.Client.HostEngine]), which is then exchanged by a container on
	// the machine. For upgrades.
	ThroughAgent bool
	// Endpoint is what the fleet remembers of how the engine is reached.
	Endpoint string
	// Name is the host's name; empty means the engine's own.
	Name string
	// Address is what other hosts reach it by; empty means it is chosen (see
	// [ChooseAddress]).
	Address string
	// Labels replace those that the host has; none keeps them.
	Labels map[string]string
	// Force takes a machine over that says it belongs to another fleet:
	// what that fleet left on it is removed first, and containers of others
	// are cut off from its networks. That fleet is not told.
	Force bool
	// Kit is what is carried to the engine; nil means NewKit(Build{}).
	// Hosts that are added together share one.
	Kit *Kit
	// Wait bounds how long the host may take to report ready once its agent
	// runs; 0 means a minute.
	Wait time.Duration
	// Now is the clock; nil means the machine's.
	Now func() time.Time
}

// RemoveOptions say which host leaves a fleet.
type RemoveOptions struct {
	Controller Controller
	Fleet      string
	// Name is the host's name in the fleet.
	Name string
	// Engine is the host's; nil when it does not answer: then Unreachable
	// says why, and Force is needed.
	Engine      *client.Client
	Unreachable error
	// Joined says that the host joined by itself, so that no engine is needed:
	// what is on its machine is taken away there, by [LeaveHost].
	Joined bool
	// Force gives up a host that does not answer, disconnects containers
	// that others attached to the fleet's networks, and lets the last host
	// go.
	Force bool
	// Kit is what is carried to the engine; nil means NewKit(Build{}).
	Kit *Kit
}

// DestroyOptions say which fleet is taken away.
type DestroyOptions struct {
	// Dir is docker's configuration directory.
	Dir     string
	Profile *Profile
	// Controller is nil when it does not answer; the hosts are then cleaned
	// without it, as far as Engines reaches them.
	Controller Controller
	// Engine is the controller's; nil when it does not answer.
	Engine *client.Client
	// Engines opens the engine of a host of the fleet.
	Engines func(name, endpoint string) (*client.Client, error)
	// Force goes on past hosts that do not answer and applications that
	// still run.
	Force bool
	// Kit is what is carried to the engine; nil means NewKit(Build{}).
	Kit *Kit
}
