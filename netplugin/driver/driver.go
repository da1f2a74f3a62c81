// Package driver answers the engine's network driver calls: it knows which
// network of the fleet each of the engine's networks is, links endpoints by a
// segment, has packets filtered by package policy, and keeps on disk what the
// engine tells only once. Every call can be repeated; deleting the unknown
// succeeds.
//
// It hands out no addresses (that is the IPAM driver's) and knows nothing of
// applications.
//
// Design page: docs/design/networks.md.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/server"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

var errSwarm = errors.New("swarm-scoped networks are not available: leave out --scope swarm, and the network is made on every host")

// Addresses is this host's management of addresses and of the networks they
// are of: see package ipam/driver, which it is.
type Addresses interface {
	// Network and BySubnet find a network that this host uses.
	Network(id string) (record.Network, bool)
	BySubnet(subnet netip.Prefix) (record.Network, bool)
	// CreateForeign registers a network whose addresses this host's engine
	// hands out itself; ReleaseNetwork ends that use of it.
	CreateForeign(registry.Request) (record.Network, error)
	// JoinFamilies makes one network of two that were made by hand, each with
	// one family: engines ask for a pool of each before they say that both are
	// of one network.
	JoinFamilies(id, half string) (record.Network, error)
	ReleaseNetwork(id string) error
	// Change changes a network in etcd.
	Change(id string, f func(*record.Network) error) (record.Network, error)
	// Reserve keeps addresses of a network from containers everywhere.
	Reserve(network string, addrs ...netip.Addr) error
	// Owner reports whether this host has allocated the address.
	Owner(network string, a netip.Addr) bool
	// Annotate tells what endpoint has the address.
	Annotate(network string, a netip.Addr, note addresses.Note)
	// The engine's calls, for what this host itself asks for.
	RequestPool(*ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error)
	RequestAddress(*ipam.RequestAddressRequest) (*ipam.RequestAddressResponse, error)
	ReleaseAddress(*ipam.ReleaseAddressRequest) error
	ReleasePool(*ipam.ReleasePoolRequest) error
	// Reconcile compares what is held with what endpoints have.
	Reconcile(addresses.Live) (addresses.Report, error)
}

// Filter is the table of packet filter rules; see [policy.Table].
type Filter interface {
	PutNetwork(policy.Network) error
	RemoveNetwork(id string) error
	PutEndpoint(policy.Endpoint) error
	RemoveEndpoint(link string) error
	SetFleet(policy.Fleet) error
	Load() error
}

// Topology is what is known of the fleet's networks.
type Topology interface {
	Read(func(t *topology.Topology, k topology.Knowledge))
	// Network finds a network of the fleet by its id, in etcd if need be;
	// store.ErrNotFound, wrapped, when there is none.
	Network(ctx context.Context, id string) (record.Network, error)
}

// Config is what a [Driver] works with.
type Config struct {
	// Host is this host's id, and Name its name in the fleet.
	Host, Name string
	// StateDir is where networks and endpoints are kept; Boot identifies the
	// boot of the host.
	StateDir, Boot string
	// AddressSpace is the local address space of our IPAM driver: networks
	// with addresses from it are not foreign.
	AddressSpace string
	Addresses    Addresses
	// Segments are by name, "routed" and "bridged".
	Segments map[string]segment.Segment
	Filter   Filter
	Topology Topology
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger
}

// Driver answers the engine.
type Driver struct {
	Config
	files files
	ports *holder

	mu        sync.Mutex
	networks  map[string]networkState  // by the engine's id; guarded by mu
	endpoints map[string]endpointState // by id; guarded by mu
	machines  map[string]machineState  // by the fleet's id of the network; guarded by mu
	// locks keep calls about one network or endpoint apart; guarded by mu.
	locks map[string]*lock
	// seen is when an endpoint's link was first missed; used by Run only.
	seen map[string]time.Time
	kick chan struct{}
}

var _ server.Network = (*Driver)(nil)

// callTime bounds what one call may wait for etcd: the engine waits longer.
const callTime = 10 * time.Second

// New returns a driver that goes on where an earlier run stopped: networks,
// endpoints, filter and published ports are as they were. etcd is not asked.
func New(c Config) (*Driver, error) {
	f, err := openFiles(c.StateDir, c.Boot)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		Config: c, files: f, ports: newHolder(c.Log),
		networks: map[string]networkState{}, endpoints: map[string]endpointState{}, machines: map[string]machineState{},
		locks: map[string]*lock{}, seen: map[string]time.Time{}, kick: make(chan struct{}, 1),
	}
	if err := d.restore(); err != nil {
		return nil, err
	}
	return d, nil
}

// restore brings segment and filter to what the files say.
func (d *Driver) restore() error {
	networks, err := load[networkState](d.files.networks())
	if err != nil {
		return err
	}
	endpoints, err := load[endpointState](d.files.endpoints())
	if err != nil {
		return err
	}
	var present []segment.Network
	for _, n := range networks {
		d.networks[n.ID] = n
		if n.Removed {
			continue
		}
		sn, err := segmentNetwork(n.Network)
		if err != nil {
			return err
		}
		present = append(present, sn)
		if err := d.Filter.PutNetwork(filterNetwork(n.Network, sn)); err != nil {
			return err
		}
	}
	var attached []segment.Endpoint
	for _, e := range endpoints {
		d.endpoints[e.ID] = e
		attached = append(attached, e.Endpoint)
	}
	d.readFleet()
	gone, err := d.adopt(present, attached)
	if err != nil {
		return fmt.Errorf("take over endpoints: %w", err)
	}
	for _, e := range gone {
		d.Log.Info("endpoint's link is gone", "endpoint", e.ID, "addresses", e.Addresses())
	}
	for _, e := range d.endpoints {
		d.ports.Restore(e.ID, e.families(), e.Published)
		if err := d.Filter.PutEndpoint(filterEndpoint(e)); err != nil {
			d.Log.Error("endpoint not restored", "endpoint", e.ID, "error", err)
		}
	}
	if err := d.restoreMachines(); err != nil {
		return err
	}
	return d.Filter.Load()
}

// GetCapabilities says that networks are made on each engine (local), and
// reach every host (global).
func (d *Driver) GetCapabilities() (*network.CapabilitiesResponse, error) {
	return &network.CapabilitiesResponse{Scope: network.LocalScope, ConnectivityScope: network.GlobalScope}, nil
}

// GwAllocCheck is the first that Engine 28 asks when a network is created:
// wrong options are refused here, before an address is taken. Every network
// needs its gateway.
func (d *Driver) GwAllocCheck(r *server.GwAllocCheckRequest) (*server.GwAllocCheckResponse, error) {
	o, err := parseOptions(r.Options)
	if err != nil {
		return nil, err
	}
	n := record.Network{Segment: o.segment, Carrier: o.carrier}
	if o.ipv6 {
		n.Subnet6 = "::/0"
	}
	if err := d.checkMTU(o.mtu, n); err != nil {
		return nil, err
	}
	return &server.GwAllocCheckResponse{}, nil
}

// AllocateNetwork and FreeNetwork are calls of a swarm's managers.
func (d *Driver) AllocateNetwork(*network.AllocateNetworkRequest) (*network.AllocateNetworkResponse, error) {
	return nil, errSwarm
}

// FreeNetwork always succeeds.
func (d *Driver) FreeNetwork(*network.FreeNetworkRequest) error { return nil }

// DiscoverNew and DiscoverDelete tell of swarm nodes, which mean nothing here.
func (d *Driver) DiscoverNew(*network.DiscoveryNotification) error { return nil }

// DiscoverDelete always succeeds.
func (d *Driver) DiscoverDelete(*network.DiscoveryNotification) error { return nil }

// lock is a mutex that is forgotten when nobody holds it.
type lock struct {
	sync.Mutex
	users int
}

// exclusive keeps calls about the same thing apart: engines repeat a call when
// the first one's connection broke, without knowing whether it still runs.
func (d *Driver) exclusive(id string) (unlock func()) {
	d.mu.Lock()
	l := d.locks[id]
	if l == nil {
		l = &lock{}
		d.locks[id] = l
	}
	l.users++
	d.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		d.mu.Lock()
		if l.users--; l.users == 0 {
			delete(d.locks, id)
		}
		d.mu.Unlock()
	}
}

func filterNetwork(n record.Network, sn segment.Network) policy.Network {
	return policy.Network{
		ID: n.ID, Subnet: sn.Subnet, Gateway: sn.Gateway, Subnet6: sn.Subnet6, Gateway6: sn.Gateway6,
		Egress: n.Egress == egressPlugin && !n.Internal,
		// docker_gwbridge has no IPv6: the way out is ours on every network.
		Egress6: sn.Subnet6.IsValid() && !n.Internal, Unfiltered: n.Unfiltered && !n.Internal,
		Bridge: sn.Bridge(),
	}
}

func filterEndpoint(e endpointState) policy.Endpoint {
	x := policy.Endpoint{Link: segment.LinkName(e.ID), Network: e.Network.ID, Ports: e.Published}
	if e.Address.IsValid() {
		x.Address = e.Address.Addr()
	}
	if e.Address6.IsValid() {
		x.Address6 = e.Address6.Addr()
	}
	return x
}
