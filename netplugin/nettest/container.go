package nettest

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

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
	// Address and Address6 have no mask; MAC is the hardware address.
	Address, Address6, MAC string
	Join                   network.JoinResponse
	link                   string
	sandbox                string
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
func (n *Network) TryRun(ports ...Port) (*Container, error) { return n.TryRunAt("", ports...) }

// TryRunAt is [Network.TryRun] with an IPv4 address asked for by name
// (docker run --ip), or any if it is empty.
func (n *Network) TryRunAt(address string, ports ...Port) (*Container, error) {
	h := n.Host
	c := &Container{Network: n, Endpoint: newID(), sandbox: "/var/run/docker/netns/" + newID()[:12]}
	var i network.EndpointInterface
	var err error
	if n.Pool != "" {
		i.Address, err = h.requestAddress(n.Pool, address)
	}
	if n.Pool6 != "" && err == nil {
		i.AddressIPv6, err = h.requestAddress(n.Pool6, "")
	}
	c.Address, _, _ = strings.Cut(i.Address, "/")
	c.Address6, _, _ = strings.Cut(i.AddressIPv6, "/")
	options := map[string]any{"com.docker.network.portmap": ports}
	var e network.CreateEndpointResponse
	if err == nil {
		err = h.call("NetworkDriver.CreateEndpoint", network.CreateEndpointRequest{
			NetworkID: n.ID, EndpointID: c.Endpoint, Interface: &i, Options: options,
		}, &e)
	}
	if err == nil {
		err = h.call("NetworkDriver.Join", network.JoinRequest{
			NetworkID: n.ID, EndpointID: c.Endpoint, SandboxKey: c.sandbox, Options: options,
		}, &c.Join)
	}
	if err == nil && (c.Join.Gateway != "" || c.Join.GatewayIPv6 != "") {
		err = h.call("NetworkDriver.ProgramExternalConnectivity", network.ProgramExternalConnectivityRequest{
			NetworkID: n.ID, EndpointID: c.Endpoint, Options: options,
		}, nil)
	}
	if err != nil {
		c.release()
		return nil, err
	}
	c.Namespace = NewNamespace(h.t)
	c.MAC = e.Interface.MacAddress
	err = c.move(i)
	return c, err
}

func (h *Host) requestAddress(pool, address string) (string, error) {
	var a ipam.RequestAddressResponse
	err := h.call("IpamDriver.RequestAddress", ipam.RequestAddressRequest{PoolID: pool, Address: address}, &a)
	return a.Address, err
}

// move puts the link into the container and sets it up in libnetwork's order.
func (c *Container) move(i network.EndpointInterface) error {
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
	if got := l.Attrs().HardwareAddr.String(); got != c.MAC {
		return fmt.Errorf("the link's hardware address is %s, the reply's %s", got, c.MAC)
	}
	c.link = c.Join.InterfaceName.DstPrefix + "0"
	var steps []error
	for _, text := range []string{i.Address, i.AddressIPv6} {
		if text == "" {
			continue
		}
		a, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		steps = append(steps, c.Handle.AddrAdd(l, a))
	}
	steps = append(steps, c.Handle.LinkSetName(l, c.link), c.Handle.LinkSetUp(l))
	for _, kind := range []int{1, 0} {
		for _, r := range c.Join.StaticRoutes {
			if r.RouteType == kind {
				steps = append(steps, c.route(l, r.Destination, r.NextHop))
			}
		}
	}
	for _, g := range []string{c.Join.Gateway, c.Join.GatewayIPv6} {
		if g != "" {
			steps = append(steps, c.Handle.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP(g)}))
		}
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
	if c.Join.Gateway != "" || c.Join.GatewayIPv6 != "" {
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
	for _, a := range [][2]string{{c.Network.Pool, c.Address}, {c.Network.Pool6, c.Address6}} {
		if a[1] != "" {
			_ = h.call("IpamDriver.ReleaseAddress", ipam.ReleaseAddressRequest{PoolID: a[0], Address: a[1]}, nil)
		}
	}
}
