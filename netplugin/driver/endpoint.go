package driver

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/docker/go-plugins-helpers/network"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/pkg/hostconfig"
)

// CreateEndpoint links an endpoint to the host and lets its packets through
// the filter.
func (d *Driver) CreateEndpoint(r *network.CreateEndpointRequest) (*network.CreateEndpointResponse, error) {
	defer d.exclusive(r.EndpointID)()
	d.mu.Lock()
	n, ok := d.networks[r.NetworkID]
	old, again := d.endpoints[r.EndpointID]
	d.mu.Unlock()
	if !ok || n.Removed {
		return nil, fmt.Errorf("create endpoint: this host's plugin does not know the network %s: remove and create it again", r.NetworkID)
	}
	if r.Interface == nil {
		r.Interface = &network.EndpointInterface{}
	}
	if again && old.Address.String() == r.Interface.Address {
		return reply(r.Interface, old), nil
	}
	e, err := d.endpoint(r, n)
	if err != nil {
		return nil, fmt.Errorf("create endpoint on network %s: %w", n.Network.ID, err)
	}
	for _, stale := range d.holding(e) {
		// Our IPAM gives an address again only when nobody has it any more:
		// the engine has forgotten to say goodbye to this one.
		d.Log.Info("replacing a stale endpoint", "endpoint", stale, "address", e.Address)
		d.tearDown(stale)
	}
	if err := d.add(e); err != nil {
		d.tearDown(e.ID)
		return nil, fmt.Errorf("create endpoint on network %s: %w", n.Network.ID, err)
	}
	return reply(r.Interface, e), nil
}

// endpoint works out the endpoint that a call asks for.
func (d *Driver) endpoint(r *network.CreateEndpointRequest, n networkState) (endpointState, error) {
	e := endpointState{EngineNetwork: r.NetworkID}
	sn, err := segmentNetwork(n.Network)
	if err != nil {
		return e, err
	}
	e.Endpoint = segment.Endpoint{ID: r.EndpointID, Network: sn}
	if r.Interface.AddressIPv6 != "" {
		return e, errNoIPv6
	}
	if e.Address, err = netip.ParsePrefix(r.Interface.Address); err != nil {
		return e, fmt.Errorf("read address: %w", err)
	}
	if err := d.mayUse(n, sn, e.Address.Addr()); err != nil {
		return e, err
	}
	e.MAC = segment.MAC(e.Address.Addr())
	if r.Interface.MacAddress != "" {
		if e.MAC, err = net.ParseMAC(r.Interface.MacAddress); err != nil {
			return e, fmt.Errorf("read hardware address: %w", err)
		}
	}
	e.Wanted, _, err = bindings(r.Options)
	return e, err
}

// mayUse checks that an address is this host's to use, so that no address is
// ever in use twice, whichever IPAM the engine asked.
func (d *Driver) mayUse(n networkState, sn segment.Network, a netip.Addr) error {
	if !sn.Subnet.Contains(a) || a == sn.Gateway {
		return fmt.Errorf("address %s is not one for containers of %s", a, sn.Subnet)
	}
	if !n.Foreign {
		if !d.Addresses.Owner(n.Network.ID, a) {
			return fmt.Errorf("address %s has not been allocated to this host", a)
		}
		return nil
	}
	lower := netip.PrefixFrom(sn.Subnet.Addr(), sn.Subnet.Bits()+1)
	if !lower.Contains(a) {
		return fmt.Errorf("address %s is not in %s, the half of the subnet that this engine's own IPAM may use; "+
			"--ipam-driver clocker has no such limit", a, lower)
	}
	return nil
}

// reply fills in what the engine left open: it refuses anything else.
func reply(asked *network.EndpointInterface, e endpointState) *network.CreateEndpointResponse {
	i := &network.EndpointInterface{}
	if asked.MacAddress == "" {
		i.MacAddress = e.MAC.String()
	}
	return &network.CreateEndpointResponse{Interface: i}
}

// holding lists endpoints that have another's address.
func (d *Driver) holding(e endpointState) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var ids []string
	for id, x := range d.endpoints {
		if id != e.ID && x.Network.ID == e.Network.ID && x.Address.Addr() == e.Address.Addr() {
			ids = append(ids, id)
		}
	}
	return ids
}

func (d *Driver) add(e endpointState) error {
	if err := d.remember(e); err != nil {
		return err
	}
	if err := d.Filter.PutEndpoint(filterEndpoint(e)); err != nil {
		return err
	}
	if err := d.attach(e.Endpoint); err != nil {
		return err
	}
	d.Addresses.Annotate(e.Network.ID, e.Address.Addr(), addresses.Note{MAC: e.MAC.String(), Endpoint: e.ID})
	return nil
}

func (d *Driver) remember(e endpointState) error {
	if err := d.files.putEndpoint(e); err != nil {
		return err
	}
	d.mu.Lock()
	d.endpoints[e.ID] = e
	d.mu.Unlock()
	return nil
}

// known finds an endpoint.
func (d *Driver) known(id string) (endpointState, networkState, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.endpoints[id]
	return e, d.networks[e.EngineNetwork], ok
}

// Route types of Join's reply.
const (
	nextHop   = 0
	connected = 1
)

// Join tells the engine how to set the container's interface up.
func (d *Driver) Join(r *network.JoinRequest) (*network.JoinResponse, error) {
	defer d.exclusive(r.EndpointID)()
	e, n, ok := d.known(r.EndpointID)
	if !ok {
		return nil, fmt.Errorf("join: endpoint %s is not known on this host", r.EndpointID)
	}
	wanted, told, err := bindings(r.Options)
	if err != nil {
		return nil, err
	}
	if told {
		e.Wanted = wanted
	}
	e.Left, e.Sandbox, e.DNS = false, r.SandboxKey, d.firstOf(r.SandboxKey, e.ID)
	if err := d.remember(e); err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return joinReply(e, n), nil
}

// firstOf reports whether no other endpoint of the sandbox has the route to
// DNS.
func (d *Driver) firstOf(sandbox, id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.endpoints {
		if e.ID != id && e.Sandbox == sandbox && e.DNS {
			return false
		}
	}
	return true
}

// joinReply works out the container's routes. Engines set interface routes
// first, then those by a next hop, then the default route.
func joinReply(e endpointState, n networkState) *network.JoinResponse {
	gateway := e.Network.Gateway.String()
	j := &network.JoinResponse{
		InterfaceName: network.InterfaceName{SrcName: segment.PeerName(e.ID), DstPrefix: "eth"},
		// An internal network has no way out, not even by docker_gwbridge.
		DisableGatewayService: n.Network.Internal,
	}
	if e.Address.IsSingleIP() {
		j.StaticRoutes = append(j.StaticRoutes,
			&network.StaticRoute{Destination: gateway + "/32", RouteType: connected},
			&network.StaticRoute{Destination: e.Network.Subnet.String(), RouteType: nextHop, NextHop: gateway})
	}
	if e.DNS {
		j.StaticRoutes = append(j.StaticRoutes,
			&network.StaticRoute{Destination: hostconfig.DNSAddress + "/32", RouteType: nextHop, NextHop: gateway})
	}
	if n.Network.Egress == egressPlugin && !n.Network.Internal {
		j.Gateway = gateway
	}
	return j
}

// EndpointInfo has nothing to add.
func (d *Driver) EndpointInfo(*network.InfoRequest) (*network.InfoResponse, error) {
	return &network.InfoResponse{Value: map[string]string{}}, nil
}

// Leave withdraws the ports, in case the engine did not say so, and frees the
// sandbox. The link stays: the engine has yet to give its other end back.
func (d *Driver) Leave(r *network.LeaveRequest) error {
	defer d.exclusive(r.EndpointID)()
	if e, _, ok := d.known(r.EndpointID); ok {
		e.Sandbox, e.DNS, e.Left = "", false, true
		d.withdraw(e)
	}
	return nil
}

// DeleteEndpoint forgets an endpoint. Its link is removed aside.
func (d *Driver) DeleteEndpoint(r *network.DeleteEndpointRequest) error {
	defer d.exclusive(r.EndpointID)()
	d.tearDown(r.EndpointID)
	return nil
}

// tearDown takes every trace of an endpoint away.
func (d *Driver) tearDown(id string) {
	d.mu.Lock()
	e, ok := d.endpoints[id]
	delete(d.endpoints, id)
	d.mu.Unlock()
	if !ok {
		return
	}
	d.removeRules(e)
	d.ports.Release(id)
	d.detach(e.Endpoint)
	if err := d.files.deleteEndpoint(id); err != nil {
		d.Log.Error("endpoint's state left behind", "endpoint", id, "error", err)
	}
}

// removeRules removes an endpoint's rules. Nothing waits for it unless ports
// are published still: the rules are about a link that is going, and while
// links go the kernel is slow to change its tables.
func (d *Driver) removeRules(e endpointState) {
	remove := func() {
		if err := d.Filter.RemoveEndpoint(segment.LinkName(e.ID)); err != nil {
			d.Log.Error("endpoint's rules left behind", "endpoint", e.ID, "error", err)
		}
	}
	if len(e.Published) > 0 {
		remove()
		return
	}
	go remove()
}
