package nettest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	"github.com/google/uuid"
	"github.com/vishvananda/netlink"

	"clocker.io/clocker/pkg/record"
)

// Call makes one of the engine's calls and fails the test when it is refused.
func (h *Host) Call(method string, request, reply any) {
	h.t.Helper()
	if err := h.call(method, request, reply); err != nil {
		h.t.Fatalf("%s: %s: %v", h.ID, method, err)
	}
}

// Try makes one of the engine's calls.
func (h *Host) Try(method string, request, reply any) error { return h.call(method, request, reply) }

func (h *Host) call(method string, request, reply any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	status, answer, err := h.Post(method, body)
	if err != nil {
		return err
	}
	var failure struct{ Err, Error string }
	if err := json.Unmarshal(answer, &failure); err != nil {
		return fmt.Errorf("read reply %q: %w", answer, err)
	}
	if failure.Err != failure.Error || status != http.StatusOK && failure.Err == "" {
		return fmt.Errorf("status %d, reply %s", status, answer)
	}
	if failure.Err != "" {
		return errors.New(failure.Err)
	}
	if reply == nil {
		return nil
	}
	return json.Unmarshal(answer, reply)
}

// Post sends a raw body.
func (h *Host) Post(method string, body []byte) (status int, answer []byte, err error) {
	c := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket())
		},
	}}
	r, err := c.Post("http://plugin/"+method, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer r.Body.Close()
	answer, err = io.ReadAll(r.Body)
	return r.StatusCode, answer, err
}

// Network is a Docker network on one host.
type Network struct {
	Host *Host
	// ID is the engine's id, Pool the IPAM driver's.
	ID, Pool string
	Subnet   string
}

// CreateNetwork does what an engine does for `docker network create -d clocker
// --ipam-driver clocker`, with the network of the fleet n, or by hand if n is
// nil.
func (h *Host) CreateNetwork(n *record.Network, options map[string]string) *Network {
	h.t.Helper()
	net, err := h.TryCreateNetwork(n, options)
	if err != nil {
		h.t.Fatalf("%s: create network: %v", h.ID, err)
	}
	return net
}

// TryCreateNetwork is [Host.CreateNetwork], and returns what the plugin
// refused.
func (h *Host) TryCreateNetwork(n *record.Network, options map[string]string) (*Network, error) {
	generic := map[string]string{}
	for k, v := range options {
		generic[k] = v
	}
	pool := ipam.RequestPoolRequest{AddressSpace: "clocker-local", Options: map[string]string{}}
	all := map[string]any{"com.docker.network.generic": generic, "com.docker.network.enable_ipv6": false}
	if n != nil {
		generic["clocker.network"], pool.Options["clocker.network"], pool.Pool = n.ID, n.ID, n.Subnet
		if n.Internal {
			all["com.docker.network.internal"] = true
		}
	}
	if err := h.call("NetworkDriver.GwAllocCheck", map[string]any{"Options": all}, nil); err != nil {
		return nil, err
	}
	var got ipam.RequestPoolResponse
	if err := h.call("IpamDriver.RequestPool", pool, &got); err != nil {
		return nil, err
	}
	net := &Network{Host: h, ID: newID(), Pool: got.PoolID, Subnet: got.Pool}
	var gateway ipam.RequestAddressResponse
	err := h.call("IpamDriver.RequestAddress", ipam.RequestAddressRequest{
		PoolID: got.PoolID, Options: map[string]string{"RequestAddressType": "com.docker.network.gateway"},
	}, &gateway)
	if err == nil {
		err = h.call("NetworkDriver.CreateNetwork", network.CreateNetworkRequest{
			NetworkID: net.ID, Options: all,
			IPv4Data: []*network.IPAMData{{AddressSpace: "clocker-local", Pool: got.Pool, Gateway: gateway.Address}},
		}, nil)
	}
	if err != nil {
		return nil, errors.Join(err, h.call("IpamDriver.ReleasePool", ipam.ReleasePoolRequest{PoolID: got.PoolID}, nil))
	}
	return net, nil
}

// Delete does what an engine does for `docker network rm`.
func (n *Network) Delete() {
	n.Host.t.Helper()
	n.Host.Call("IpamDriver.ReleasePool", ipam.ReleasePoolRequest{PoolID: n.Pool}, nil)
	n.Host.Call("NetworkDriver.DeleteNetwork", network.DeleteNetworkRequest{NetworkID: n.ID}, nil)
}

// Port is a port to publish, as engines write it.
type Port struct {
	Proto    uint8
	Port     uint16
	HostIP   string
	HostPort uint16
}

// Container is a namespace on a Docker network.
type Container struct {
	*Namespace
	Network  *Network
	Endpoint string
	// Address has no mask.
	Address string
	Join    network.JoinResponse
	link    string
	sandbox string
}

// Run makes a container on the network, with ports to publish.
func (n *Network) Run(ports ...Port) *Container {
	n.Host.t.Helper()
	c, err := n.TryRun(ports...)
	if err != nil {
		n.Host.t.Fatalf("%s: run container: %v", n.Host.ID, err)
	}
	return c
}

// TryRun is [Network.Run], and returns what the plugin refused.
func (n *Network) TryRun(ports ...Port) (*Container, error) {
	h := n.Host
	c := &Container{Network: n, Endpoint: newID(), sandbox: "/var/run/docker/netns/" + newID()[:12]}
	var a ipam.RequestAddressResponse
	if err := h.call("IpamDriver.RequestAddress", ipam.RequestAddressRequest{PoolID: n.Pool}, &a); err != nil {
		return nil, err
	}
	c.Address, _, _ = strings.Cut(a.Address, "/")
	options := map[string]any{"com.docker.network.portmap": ports}
	var e network.CreateEndpointResponse
	err := h.call("NetworkDriver.CreateEndpoint", network.CreateEndpointRequest{
		NetworkID: n.ID, EndpointID: c.Endpoint, Interface: &network.EndpointInterface{Address: a.Address}, Options: options,
	}, &e)
	if err == nil {
		err = h.call("NetworkDriver.Join", network.JoinRequest{
			NetworkID: n.ID, EndpointID: c.Endpoint, SandboxKey: c.sandbox, Options: options,
		}, &c.Join)
	}
	if err == nil && c.Join.Gateway != "" {
		err = h.call("NetworkDriver.ProgramExternalConnectivity", network.ProgramExternalConnectivityRequest{
			NetworkID: n.ID, EndpointID: c.Endpoint, Options: options,
		}, nil)
	}
	if err != nil {
		c.release()
		return nil, err
	}
	c.Namespace = NewNamespace(h.t)
	err = c.move(a.Address, e.Interface.MacAddress)
	return c, err
}

// move puts the link into the container and sets it up in libnetwork's order.
func (c *Container) move(address, mac string) error {
	src := c.Join.InterfaceName.SrcName
	outer, err := c.Network.Host.Handle.LinkByName(src)
	if err != nil {
		return err
	}
	if err := c.Network.Host.Handle.LinkSetNsFd(outer, int(c.ns)); err != nil {
		return err
	}
	l, err := c.Handle.LinkByName(src)
	if err != nil {
		return err
	}
	if got := l.Attrs().HardwareAddr.String(); got != mac {
		return fmt.Errorf("the link's hardware address is %s, the reply's %s", got, mac)
	}
	c.link = c.Join.InterfaceName.DstPrefix + "0"
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	steps := []error{c.Handle.AddrAdd(l, a), c.Handle.LinkSetName(l, c.link), c.Handle.LinkSetUp(l)}
	for _, kind := range []int{1, 0} {
		for _, r := range c.Join.StaticRoutes {
			if r.RouteType == kind {
				steps = append(steps, c.route(l, r.Destination, r.NextHop))
			}
		}
	}
	if c.Join.Gateway != "" {
		steps = append(steps, c.Handle.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(c.Join.Gateway)}))
	}
	return errors.Join(steps...)
}

func (c *Container) route(l netlink.Link, destination, hop string) error {
	_, dst, err := net.ParseCIDR(destination)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst}
	if hop == "" {
		r.Scope = netlink.SCOPE_LINK
	} else {
		r.Gw = net.ParseIP(hop)
	}
	return c.Handle.RouteAdd(r)
}

// Stop does what an engine does when a container stops.
func (c *Container) Stop() {
	h := c.Network.Host
	h.t.Helper()
	if c.Join.Gateway != "" {
		h.Call("NetworkDriver.RevokeExternalConnectivity", network.RevokeExternalConnectivityRequest{NetworkID: c.Network.ID, EndpointID: c.Endpoint}, nil)
	}
	h.Call("NetworkDriver.Leave", network.LeaveRequest{NetworkID: c.Network.ID, EndpointID: c.Endpoint}, nil)
	l := must(c.Handle.LinkByName(c.link))(h.t)
	check(h.t, c.Handle.LinkSetDown(l))
	check(h.t, c.Handle.LinkSetName(l, c.Join.InterfaceName.SrcName))
	check(h.t, c.Handle.LinkSetNsFd(l, int(h.ns)))
	c.release()
}

// release says goodbye; as an engine, it does not care for the answers.
func (c *Container) release() {
	h := c.Network.Host
	_ = h.call("NetworkDriver.DeleteEndpoint", network.DeleteEndpointRequest{NetworkID: c.Network.ID, EndpointID: c.Endpoint}, nil)
	_ = h.call("IpamDriver.ReleaseAddress", ipam.ReleaseAddressRequest{PoolID: c.Network.Pool, Address: c.Address}, nil)
}

// newID is an id as engines make them: 64 hexadecimal digits.
func newID() string {
	return strings.ReplaceAll(uuid.NewString()+uuid.NewString(), "-", "")
}
