package conformance

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/libnetwork/driverapi"
	"github.com/docker/docker/libnetwork/ipamapi"
	"github.com/docker/docker/libnetwork/netlabel"
	"github.com/docker/docker/libnetwork/options"
	"github.com/docker/docker/libnetwork/types"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
)

func id() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails
	return hex.EncodeToString(b)
}

// network is what libnetwork keeps of a network.
type network struct {
	id, pool string
	subnet   *net.IPNet
	gateway  *net.IPNet
	options  map[string]any
}

// create does what libnetwork does for `docker network create`, in its order.
func (e *engine) create(generic, ipamOptions map[string]string, subnet string, exclude ...netip.Prefix) (*network, error) {
	n := &network{id: id(), options: map[string]any{
		netlabel.GenericData: map[string]any{}, netlabel.EnableIPv4: true, netlabel.EnableIPv6: false,
	}}
	for k, v := range generic {
		n.options[netlabel.GenericData].(map[string]any)[k] = v
	}
	skip := false
	if c, ok := e.network().(driverapi.GwAllocChecker); ok {
		var err error
		if skip, _, err = c.GetSkipGwAlloc(options.Generic(n.options)); err != nil {
			return nil, err
		}
	}
	local, _, err := e.ipam().GetDefaultAddressSpaces()
	if err != nil {
		return nil, err
	}
	p, err := e.ipam().RequestPool(ipamapi.PoolRequest{AddressSpace: local, Pool: subnet, Options: ipamOptions, Exclude: exclude})
	if err != nil {
		return nil, err
	}
	n.pool, n.subnet = p.PoolID, &net.IPNet{IP: p.Pool.Addr().AsSlice(), Mask: net.CIDRMask(p.Pool.Bits(), p.Pool.Addr().BitLen())}
	if !skip {
		n.gateway, _, err = e.ipam().RequestAddress(n.pool, nil, map[string]string{ipamapi.RequestAddressType: netlabel.Gateway})
	}
	if err == nil {
		err = e.network().CreateNetwork(context.Background(), n.id, n.options, nil,
			[]driverapi.IPAMData{{AddressSpace: local, Pool: n.subnet, Gateway: n.gateway}}, nil)
	}
	if err != nil {
		return nil, errors.Join(err, e.ipam().ReleasePool(n.pool))
	}
	return n, nil
}

// remove does what libnetwork does for `docker network rm`: it gives the
// addresses back before it tells the network driver.
func (e *engine) remove(t *testing.T, n *network) {
	t.Helper()
	assert.NilError(t, e.ipam().ReleaseAddress(n.pool, n.gateway.IP))
	assert.NilError(t, e.ipam().ReleasePool(n.pool))
	assert.NilError(t, e.network().DeleteNetwork(n.id))
}

// start does what libnetwork does when a container starts.
func (e *engine) start(n *network, ports ...types.PortBinding) (*endpoint, error) {
	ep := &endpoint{id: id()}
	var err error
	if ep.address, _, err = e.ipam().RequestAddress(n.pool, nil, nil); err != nil {
		return nil, err
	}
	opts := map[string]any{netlabel.PortMap: ports, netlabel.ExposedPorts: []types.TransportPort{}}
	ctx := context.Background()
	if err = e.network().CreateEndpoint(ctx, n.id, ep.id, ep, opts); err == nil {
		if err = e.network().Join(ctx, n.id, ep.id, "/var/run/docker/netns/"+ep.id[:12], ep, opts, opts); err == nil {
			err = e.network().ProgramExternalConnectivity(ctx, n.id, ep.id, opts)
		}
	}
	if err == nil {
		_, err = e.network().EndpointOperInfo(n.id, ep.id)
	}
	return ep, err
}

func (e *engine) stop(t *testing.T, n *network, ep *endpoint) {
	t.Helper()
	assert.NilError(t, e.network().RevokeExternalConnectivity(n.id, ep.id))
	assert.NilError(t, e.network().Leave(n.id, ep.id))
	assert.NilError(t, e.network().DeleteEndpoint(n.id, ep.id))
	assert.NilError(t, e.ipam().ReleaseAddress(n.pool, ep.address.IP))
}

func world(t *testing.T) (*nettest.World, *engine, *engine) {
	t.Helper()
	w := nettest.NewWorld(t, plugin)
	return w, connect(t, w.AddHost()), connect(t, w.AddHost())
}

func TestEngineTakesTheDrivers(t *testing.T) {
	_, e, _ := world(t)
	assert.Equal(t, e.scopes, driverapi.Capability{DataScope: "local", ConnectivityScope: "global"})
	local, global, err := e.ipam().GetDefaultAddressSpaces()
	assert.NilError(t, err)
	assert.Assert(t, local != "" && global != "" && local != global, "address spaces %q and %q", local, global)
}

// One life of a network and of a container on it, on two hosts.
func TestEngineCarriesANetworkThrough(t *testing.T) {
	w, e1, e2 := world(t)
	r, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{Name: "app_default", App: "app", Egress: "plugin"})
	assert.NilError(t, err)
	opts := map[string]string{"clocker.network": r.ID}
	var nets []*network
	for _, e := range []*engine{e1, e2} {
		n, err := e.create(opts, opts, r.Subnet)
		assert.NilError(t, err)
		assert.Equal(t, n.subnet.String(), r.Subnet)
		assert.Equal(t, n.gateway.IP.String(), r.Gateway, "every host has the same gateway")
		nets = append(nets, n)
	}
	seen := map[string]bool{}
	var eps []*endpoint
	for i, e := range []*engine{e1, e2} {
		ep, err := e.start(nets[i], types.PortBinding{Proto: types.TCP, Port: 80, HostPort: 18080, HostPortEnd: 18090})
		assert.NilError(t, err)
		assert.Assert(t, nets[i].subnet.Contains(ep.address.IP))
		assert.Assert(t, !seen[ep.address.IP.String()], "address %s twice", ep.address)
		seen[ep.address.IP.String()] = true
		assert.Assert(t, len(ep.mac) == 6 && ep.mac[0]&1 == 0, "hardware address %s", ep.mac)
		assert.Equal(t, ep.gateway.String(), r.Gateway)
		_, err = e.host.Handle.LinkByName(ep.source)
		assert.NilError(t, err, "the link that Join names must be there to be moved")
		kinds := []int{}
		for _, x := range ep.routes {
			kinds = append(kinds, x.kind)
			// The engine sets connected routes first; a hop must be on one.
			if x.kind == types.NEXTHOP && !slices.ContainsFunc(ep.routes, func(c route) bool { return c.kind == types.CONNECTED && c.to.Contains(x.hop) }) {
				t.Errorf("route %v: no connected route leads to its hop", x)
			}
		}
		assert.Assert(t, slices.Contains(kinds, types.CONNECTED))
		eps = append(eps, ep)
	}
	for i, e := range []*engine{e1, e2} {
		e.stop(t, nets[i], eps[i])
		// Repeated and unknown deletes succeed.
		e.stop(t, nets[i], eps[i])
		e.stop(t, nets[i], &endpoint{id: id(), address: eps[i].address})
		e.remove(t, nets[i])
		e.remove(t, nets[i])
	}
}

// A driver may not change what the engine has decided: the address, and a
// hardware address that the user gave.
func TestEngineDecidesAddresses(t *testing.T) {
	_, e, _ := world(t)
	n, err := e.create(nil, nil, "")
	assert.NilError(t, err)
	ep := &endpoint{id: id(), mac: net.HardwareAddr{2, 1, 2, 3, 4, 5}}
	ep.address, _, err = e.ipam().RequestAddress(n.pool, nil, nil)
	assert.NilError(t, err)
	assert.NilError(t, e.network().CreateEndpoint(t.Context(), n.id, ep.id, ep, nil))
	assert.Equal(t, ep.mac.String(), "02:01:02:03:04:05")
	l, err := e.host.Handle.LinkByName("cx" + ep.id[:13])
	assert.NilError(t, err)
	assert.Equal(t, l.Attrs().HardwareAddr.String(), ep.mac.String())
	e.stop(t, n, ep)
	e.remove(t, n)
}

// The engine asks for pools until one does not meet a route of its own; it
// must come to an end, and give back what it did not take.
func TestEngineFindsAPoolBesideItsRoutes(t *testing.T) {
	w, e, _ := world(t)
	n, err := e.create(nil, nil, "", netip.MustParsePrefix("10.208.0.0/16"))
	assert.NilError(t, err)
	taken := netip.MustParsePrefix(n.subnet.String())
	assert.Assert(t, !taken.Overlaps(netip.MustParsePrefix("10.208.0.0/16")), "pool %s", taken)
	e.host.Eventually(10*time.Second, "the pools not taken are given back", func() error {
		all, err := registry.List(t.Context(), w.Store)
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("%d networks in the fleet", len(all))
		}
		return err
	})
	e.remove(t, n)
}

// A pool that has run out is said to be in words, and the address that comes
// back is given again.
func TestEngineMeetsTheEndOfAPool(t *testing.T) {
	w, e, _ := world(t)
	r, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{Name: "small", App: "app", Subnet: netip.MustParsePrefix("10.99.0.0/29")})
	assert.NilError(t, err)
	opts := map[string]string{"clocker.network": r.ID}
	n, err := e.create(opts, opts, r.Subnet)
	assert.NilError(t, err)
	var eps []*endpoint
	for range 5 {
		ep, err := e.start(n)
		assert.NilError(t, err)
		eps = append(eps, ep)
	}
	_, err = e.start(n)
	assert.ErrorContains(t, err, "10.99.0.0/29")
	for _, ep := range eps {
		e.stop(t, n, ep)
	}
	ep, err := e.start(n)
	assert.NilError(t, err)
	e.stop(t, n, ep)
	e.remove(t, n)
}

// Swarm's calls have an answer too.
func TestEngineOfASwarmIsToldWhy(t *testing.T) {
	_, e, _ := world(t)
	_, err := e.network().NetworkAllocate(id(), nil, nil, nil)
	assert.ErrorContains(t, err, "swarm")
	assert.NilError(t, e.network().NetworkFree(id()))
}
