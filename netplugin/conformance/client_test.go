package conformance

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/docker/docker/libnetwork/driverapi"
	drivers "github.com/docker/docker/libnetwork/drivers/remote"
	"github.com/docker/docker/libnetwork/ipamapi"
	ipams "github.com/docker/docker/libnetwork/ipams/remote"
	"github.com/docker/docker/pkg/plugingetter"
	"github.com/docker/docker/pkg/plugins"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
)

// plugin makes commands that run the plugin.
var plugin func(args ...string) *exec.Cmd

func TestMain(m *testing.M) { os.Exit(nettest.Main(m, &plugin)) }

// engine is Docker's side of the plugin protocols, connected to the plugin of
// one host.
type engine struct {
	host    *nettest.Host
	drivers map[string]driverapi.Driver
	scopes  driverapi.Capability
	ipams   map[string]ipamapi.Ipam
}

func connect(t *testing.T, h *nettest.Host) *engine {
	t.Helper()
	e := &engine{host: h, drivers: map[string]driverapi.Driver{}, ipams: map[string]ipamapi.Ipam{}}
	assert.NilError(t, drivers.Register(e, store{h}))
	assert.NilError(t, ipams.Register(e, store{h}))
	assert.Assert(t, e.network() != nil, "the engine took no network driver")
	assert.Assert(t, e.ipam() != nil, "the engine took no IPAM driver")
	return e
}

func (e *engine) network() driverapi.Driver { return e.drivers["clocker"] }
func (e *engine) ipam() ipamapi.Ipam        { return e.ipams["clocker"] }

func (e *engine) RegisterDriver(name string, d driverapi.Driver, c driverapi.Capability) error {
	e.drivers[name], e.scopes = d, c
	return nil
}

func (e *engine) RegisterIpamDriver(name string, d ipamapi.Ipam) error {
	e.ipams[name] = d
	return nil
}

func (e *engine) RegisterIpamDriverWithCapabilities(name string, d ipamapi.Ipam, _ *ipamapi.Capability) error {
	return e.RegisterIpamDriver(name, d)
}

// store is the engine's store of plugins, with one managed plugin in it.
type store struct{ host *nettest.Host }

func (s store) Get(string, string, int) (plugingetter.CompatPlugin, error) { return managed(s), nil }
func (s store) GetAllByCap(string) ([]plugingetter.CompatPlugin, error) {
	return []plugingetter.CompatPlugin{managed(s)}, nil
}

func (s store) GetAllManagedPluginsByCap(string) []plugingetter.CompatPlugin {
	return []plugingetter.CompatPlugin{managed(s)}
}
func (store) Handle(string, func(string, *plugins.Client)) {}

type managed struct{ host *nettest.Host }

func (managed) Name() string               { return "clocker" }
func (managed) ScopedPath(p string) string { return p }
func (managed) IsV1() bool                 { return false }
func (m managed) Client() *plugins.Client {
	c, err := plugins.NewClientWithTimeout("unix://"+m.host.Socket(), nil, 30*time.Second)
	if err != nil {
		panic(err) // the address is a path that the test made
	}
	return c
}

// endpoint is what libnetwork keeps of an endpoint, as strict as it is there:
// what is set already may not be set again.
type endpoint struct {
	id            string
	mac           net.HardwareAddr
	address, six  *net.IPNet
	source, dst   string
	gateway, gw6  net.IP
	routes        []route
	withoutBridge bool
}

type route struct {
	to   net.IPNet
	kind int
	hop  net.IP
}

var errTwice = errors.New("it is set already")

func (e *endpoint) SetMacAddress(m net.HardwareAddr) error {
	if e.mac != nil {
		return errTwice
	}
	e.mac = m
	return nil
}

func (e *endpoint) SetIPAddress(a *net.IPNet) error {
	at := &e.address
	if a.IP.To4() == nil {
		at = &e.six
	}
	if *at != nil {
		return errTwice
	}
	*at = a
	return nil
}

func (e *endpoint) MacAddress() net.HardwareAddr  { return e.mac }
func (e *endpoint) Address() *net.IPNet           { return e.address }
func (e *endpoint) AddressIPv6() *net.IPNet       { return e.six }
func (e *endpoint) NetnsPath() string             { return "" }
func (e *endpoint) SetCreatedInContainer(bool)    {}
func (e *endpoint) SetGateway(g net.IP) error     { e.gateway = g; return nil }
func (e *endpoint) SetGatewayIPv6(g net.IP) error { e.gw6 = g; return nil }
func (e *endpoint) DisableGatewayService()        { e.withoutBridge = true }
func (e *endpoint) SetNames(src, dst, _ string) error {
	e.source, e.dst = src, dst
	return nil
}

func (e *endpoint) InterfaceName() driverapi.InterfaceNameInfo { return e }

func (e *endpoint) AddStaticRoute(to *net.IPNet, kind int, hop net.IP) error {
	e.routes = append(e.routes, route{*to, kind, hop})
	return nil
}

func (e *endpoint) AddTableEntry(string, string, []byte) error { return nil }
