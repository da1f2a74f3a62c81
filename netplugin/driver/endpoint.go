package driver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/docker/go-plugins-helpers/network"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/netplugin/segment"
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
	if again && text(old.Address) == r.Interface.Address && text(old.Address6) == r.Interface.AddressIPv6 {
		return reply(r.Interface, old), nil
	}
	e, err := d.endpoint(r, n)
	if err != nil {
		return nil, fmt.Errorf("create endpoint on network %s: %w", n.Network.ID, err)
	}
	for _, stale := range d.holding(e) {
		// Our IPAM gives an address again only when nobody has it any more:
		// the engine has forgotten to say goodbye to this one.
		d.Log.Info("replacing a stale endpoint", "endpoint", stale, "addresses", e.Addresses())
		d.tearDown(stale)
	}
	err = d.add(e)
	for _, a := range e.Addresses() {
		// The address may have changed hands before it could be seen that it
		// has an endpoint.
		if err == nil && !n.Foreign && !d.Addresses.Owner(n.Network.ID, a) {
			err = fmt.Errorf("address %s is not this host's any more", a)
		}
	}
	if err != nil {
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
	if r.Interface.Address == "" && r.Interface.AddressIPv6 == "" {
		return e, errors.New("read address: the engine has given it none")
	}
	for _, f := range []struct {
		to   *netip.Prefix
		text string
		of   segment.Subnet
	}{{&e.Address, r.Interface.Address, segment.Subnet{Prefix: sn.Subnet, Gateway: sn.Gateway}}, {&e.Address6, r.Interface.AddressIPv6, segment.Subnet{Prefix: sn.Subnet6, Gateway: sn.Gateway6}}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = netip.ParsePrefix(f.text); err != nil {
			return e, fmt.Errorf("read address: %w", err)
		}
		if err := d.mayUse(n, f.of, f.to.Addr()); err != nil {
			return e, err
		}
	}
	e.MAC = segment.MAC(e.Addresses()[0])
	if r.Interface.MacAddress != "" {
		if e.MAC, err = net.ParseMAC(r.Interface.MacAddress); err != nil {
			return e, fmt.Errorf("read hardware address: %w", err)
		}
		if len(e.MAC) != 6 {
			return e, fmt.Errorf("read hardware address: %s is not one of Ethernet", e.MAC)
		}
	}
	e.Wanted, _, err = bindings(r.Options)
	return e, err
}

// text is a prefix as engines write it, empty when there is none.
func text(p netip.Prefix) string {
	if !p.IsValid() {
		return ""
	}
	return p.String()
}

// mayUse checks that an address is this host's to use, so that no address is
// ever in use twice, whichever IPAM the engine asked.
func (d *Driver) mayUse(n networkState, of segment.Subnet, a netip.Addr) error {
	if !of.Prefix.IsValid() || !of.Prefix.Contains(a) || a == of.Gateway {
		return fmt.Errorf("address %s is not one for containers of %s", a, subnetsOf(n.Network))
	}
	if !n.Foreign {
		if !d.Addresses.Owner(n.Network.ID, a) {
			return fmt.Errorf("address %s has not been allocated to this host", a)
		}
		return nil
	}
	lower := netip.PrefixFrom(of.Prefix.Addr(), of.Prefix.Bits()+1)
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
		if id != e.ID && x.Network.ID == e.Network.ID && slices.ContainsFunc(x.Addresses(), e.has) {
			ids = append(ids, id)
		}
	}
	return ids
}

// has reports whether an address is the endpoint's.
func (e endpointState) has(a netip.Addr) bool { return slices.Contains(e.Addresses(), a) }

func (d *Driver) add(e endpointState) error {
	if err := d.remember(e); err != nil {
		return err
	}
	// Filter and link wait for different parts of the kernel.
	filtered := make(chan error, 1)
	go func() { filtered <- d.Filter.PutEndpoint(filterEndpoint(e)) }()
	err := d.attach(e.Endpoint)
	if err := errors.Join(<-filtered, err); err != nil {
		return err
	}
	d.annotate(e)
	return nil
}

// annotate tells the fleet what has the endpoint's addresses.
func (d *Driver) annotate(e endpointState) {
	note := addresses.Note{MAC: e.MAC.String(), Endpoint: e.ID, Ports: portsText(e.Published)}
	for _, a := range e.Addresses() {
		d.Addresses.Annotate(e.Network.ID, a, note)
	}
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

// EndpointInfo has nothing to add.
func (d *Driver) EndpointInfo(*network.InfoRequest) (*network.InfoResponse, error) {
	return &network.InfoResponse{Value: map[string]string{}}, nil
}

// Leave withdraws the ports, in case the engine did not say so, and frees the
// sandbox. The link stays: the engine has yet to give its other end back.
func (d *Driver) Leave(r *network.LeaveRequest) error {
	defer d.exclusive(r.EndpointID)()
	if e, _, ok := d.known(r.EndpointID); ok {
		e.Sandbox, e.DNS, e.First6, e.Left = "", false, false, true
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
