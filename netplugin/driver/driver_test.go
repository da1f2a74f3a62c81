package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/go-plugins-helpers/network"
	"gotest.tools/v3/assert"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// edge stands for everything below the driver: kernel and addresses. It only
// keeps what it is told.
type edge struct {
	fleet     map[string]record.Network
	owned     map[netip.Addr]bool
	here      map[string]segment.Network
	attached  map[string]segment.Endpoint
	gone      []segment.Endpoint
	filtered  map[string]policy.Endpoint
	released  []string
	told      addresses.Live
	failLinks error
	onLoad    func()
	machines  map[string][]netip.Addr
	topology  *topology.Topology
}

func newEdge() *edge {
	return &edge{
		fleet: map[string]record.Network{}, owned: map[netip.Addr]bool{}, here: map[string]segment.Network{},
		attached: map[string]segment.Endpoint{}, filtered: map[string]policy.Endpoint{}, onLoad: func() {}, machines: map[string][]netip.Addr{}, topology: topology.New(),
	}
}

func (e *edge) Network(id string) (record.Network, bool) { n, ok := e.fleet[id]; return n, ok }

func (e *edge) BySubnet(p netip.Prefix) (record.Network, bool) {
	for _, n := range e.fleet {
		if n.Subnet == p.String() || n.Subnet6 == p.String() {
			return n, true
		}
	}
	return record.Network{}, false
}

func (e *edge) CreateForeign(r registry.Request) (record.Network, error) {
	n := record.Network{
		ID: "foreign", Subnet: r.Subnet.String(), Gateway: r.Gateway.String(), Segment: r.Segment, Egress: r.Egress, Foreign: "h1", ByHand: true, MTU: 1500,
	}
	e.fleet[n.ID] = n
	return n, nil
}

func (e *edge) JoinFamilies(id, half string) (record.Network, error) {
	n := e.fleet[id]
	n.Subnet6, n.Gateway6 = e.fleet[half].Subnet6, e.fleet[half].Gateway6
	e.fleet[id] = n
	delete(e.fleet, half)
	return n, nil
}

func (e *edge) RequestPool(r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	return &ipam.RequestPoolResponse{PoolID: r.Options["clocker.network"] + " " + r.Pool, Pool: r.Pool}, nil
}

func (e *edge) RequestAddress(r *ipam.RequestAddressRequest) (*ipam.RequestAddressResponse, error) {
	p := netip.MustParsePrefix(strings.Fields(r.PoolID)[1])
	return &ipam.RequestAddressResponse{Address: netip.PrefixFrom(p.Addr().Next().Next(), p.Bits()).String()}, nil
}

func (e *edge) ReleaseAddress(r *ipam.ReleaseAddressRequest) error {
	e.released = append(e.released, r.Address)
	return nil
}

func (e *edge) ReleasePool(r *ipam.ReleasePoolRequest) error {
	e.released = append(e.released, r.PoolID)
	return nil
}

func (e *edge) SetMachine(network string, addrs []netip.Addr) error {
	e.machines[network] = addrs
	return nil
}

func (e *edge) ReleaseNetwork(id string) error {
	e.released = append(e.released, id)
	return nil
}

func (e *edge) Change(id string, f func(*record.Network) error) (record.Network, error) {
	n := e.fleet[id]
	err := f(&n)
	e.fleet[id] = n
	return n, err
}

func (e *edge) Reserve(string, ...netip.Addr) error         { return nil }
func (e *edge) Owner(_ string, a netip.Addr) bool           { return e.owned[a] }
func (e *edge) Annotate(string, netip.Addr, addresses.Note) {}
func (e *edge) AddNetwork(n segment.Network) error          { e.here[n.ID] = n; return nil }
func (e *edge) RemoveNetwork(id string)                     { delete(e.here, id) }
func (e *edge) Detach(x segment.Endpoint)                   { delete(e.attached, x.ID) }
func (e *edge) Gone() ([]segment.Endpoint, error)           { return e.gone, nil }
func (e *edge) Attach(x segment.Endpoint) error             { e.attached[x.ID] = x; return e.failLinks }
func (e *edge) Run(ctx context.Context, _ <-chan struct{}) error {
	<-ctx.Done()
	return ctx.Err()
}
func (e *edge) Read(f func(*topology.Topology, topology.Knowledge)) {
	f(e.topology, topology.Followed)
}

func (e *edge) Reconcile(l addresses.Live) (addresses.Report, error) {
	e.told = l
	return addresses.Report{}, nil
}

func (e *edge) Adopt(ns []segment.Network, es []segment.Endpoint) ([]segment.Endpoint, error) {
	for _, n := range ns {
		e.here[n.ID] = n
	}
	for _, x := range es {
		e.attached[x.ID] = x
	}
	return nil, nil
}

// rules is the filter's side of an edge.
type rules struct{ *edge }

func (r rules) PutNetwork(policy.Network) error     { return nil }
func (r rules) RemoveNetwork(string) error          { return nil }
func (r rules) SetFleet(policy.Fleet) error         { return nil }
func (r rules) Load() error                         { r.onLoad(); return nil }
func (r rules) PutEndpoint(x policy.Endpoint) error { r.filtered[x.Link] = x; return nil }
func (r rules) RemoveEndpoint(link string) error    { return nil }

// etcd is the topology's side of an edge.
type etcd struct{ *edge }

func (x etcd) Network(_ context.Context, id string) (record.Network, error) {
	if n, ok := x.fleet[id]; ok {
		return n, nil
	}
	return record.Network{}, fmt.Errorf("network %s: %w", id, store.ErrNotFound)
}

// bench is a driver on an edge.
type bench struct {
	*Driver
	*edge
	dir  string
	boot string
	now  time.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{edge: newEdge(), dir: t.TempDir(), boot: "one", now: time.Unix(1e9, 0)}
	b.fleet["red"] = record.Network{ID: "red", Name: "red", Subnet: "10.208.0.0/20", Gateway: "10.208.0.1", MTU: 1500, Segment: "routed", Egress: "plugin"}
	b.fleet["both"] = record.Network{
		ID: "both", Name: "both", Subnet: "10.209.0.0/20", Gateway: "10.209.0.1", Subnet6: "fd12:0:0:1::/64", Gateway6: "fd12:0:0:1::1",
		MTU: 1500, Segment: "routed", Egress: "engine",
	}
	b.fleet["six"] = record.Network{ID: "six", Name: "six", Subnet6: "fd12:0:0:2::/64", Gateway6: "fd12:0:0:2::1", MTU: 1500, Segment: "routed", Egress: "plugin"}
	b.start(t)
	return b
}

// start makes the driver anew from what is on disk.
func (b *bench) start(t *testing.T) {
	t.Helper()
	var err error
	b.Driver, err = New(Config{
		Host: "h1", StateDir: b.dir, Boot: b.boot, AddressSpace: "ours", Addresses: b.edge, Segments: map[string]segment.Segment{"routed": b.edge},
		Filter: rules{b.edge}, Topology: etcd{b.edge}, Now: func() time.Time { return b.now }, Log: slog.New(slog.DiscardHandler),
	})
	assert.NilError(t, err)
}

func create(id, space, subnet, gateway string, generic map[string]any) *network.CreateNetworkRequest {
	return &network.CreateNetworkRequest{
		NetworkID: id, Options: map[string]any{keyGeneric: generic},
		IPv4Data: []*network.IPAMData{{AddressSpace: space, Pool: subnet, Gateway: gateway}},
	}
}

// create6 is [create] with a subnet of either family; empty ones are left out.
func create6(id, subnet, subnet6 string, generic map[string]any) *network.CreateNetworkRequest {
	r := &network.CreateNetworkRequest{NetworkID: id, Options: map[string]any{keyGeneric: generic, keyIPv6: true}}
	if subnet != "" {
		r.IPv4Data = []*network.IPAMData{{AddressSpace: "ours", Pool: subnet}}
	}
	r.IPv6Data = []*network.IPAMData{{AddressSpace: "ours", Pool: subnet6}}
	return r
}

func (b *bench) red(t *testing.T) {
	t.Helper()
	assert.NilError(t, b.CreateNetwork(create("dn", "ours", "10.208.0.0/20", "10.208.0.1/20", map[string]any{optNetwork: "red"})))
}

func (b *bench) endpoint(id, address string) (*network.CreateEndpointResponse, error) {
	return b.CreateEndpoint(&network.CreateEndpointRequest{
		NetworkID: "dn", EndpointID: id, Interface: &network.EndpointInterface{Address: address},
	})
}

func TestCreateNetworkFindsOrRefuses(t *testing.T) {
	for _, c := range []struct {
		name    string
		request *network.CreateNetworkRequest
		want    string
	}{
		{"by id", create("x", "ours", "10.208.0.0/20", "10.208.0.1/20", map[string]any{optNetwork: "red"}), ""},
		{"by subnet", create("x", "ours", "10.208.0.0/20", "10.208.0.1/20", nil), ""},
		{"of the engine's own", create("x", "LocalDefault", "172.18.0.0/16", "172.18.0.1/16", nil), ""},
		{"unknown id", create("x", "ours", "10.208.0.0/20", "10.208.0.1/20", map[string]any{optNetwork: "none"}), "network none is not in the fleet"},
		{"unknown subnet", create("x", "ours", "10.211.0.0/20", "10.211.0.1/20", nil), "no network with the subnet 10.211.0.0/20"},
		{"another subnet", create("x", "ours", "10.209.0.0/20", "", map[string]any{optNetwork: "red"}), "has the subnet 10.208.0.0/20 in the fleet, not 10.209.0.0/20"},
		{"another egress", create("x", "ours", "10.208.0.0/20", "", map[string]any{optNetwork: "red", optEgress: "engine"}), "has clocker.egress=plugin in the fleet, not engine"},
		{"not with the engine's IPAM", create("x", "LocalDefault", "10.208.0.0/20", "", map[string]any{optNetwork: "red"}), "needs --ipam-driver clocker"},
		{"no pool", &network.CreateNetworkRequest{NetworkID: "x"}, "at least one subnet"},
		{"another subnet of IPv6", create6("x", "10.208.0.0/20", "fd12::/64", map[string]any{optNetwork: "red"}), "has the subnet 10.208.0.0/20 in the fleet, not 10.208.0.0/20 and fd12::/64"},
		{"of both families", create6("x", "10.209.0.0/20", "fd12:0:0:1::/64", map[string]any{optNetwork: "both"}), ""},
		{"of IPv6 only", create6("x", "", "fd12:0:0:2::/64", nil), ""},
		{"families mixed up", create6("x", "", "10.208.0.0/20", nil), "of the other address family"},
		{"two subnets", &network.CreateNetworkRequest{NetworkID: "x", IPv4Data: []*network.IPAMData{{}, {}}}, "one subnet of each family, not 2 of IPv4"},
		{"an empty one", &network.CreateNetworkRequest{NetworkID: "x", IPv4Data: []*network.IPAMData{nil}}, "left it empty"},
		{"gateway outside", create("x", "ours", "10.208.0.0/20", "10.209.0.1/20", nil), "gateway 10.209.0.1 is not in the subnet 10.208.0.0/20"},
		{"nonsense", create("x", "ours", "nonsense", "", nil), "read subnet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			err := b.CreateNetwork(c.request)
			if c.want != "" {
				assert.ErrorContains(t, err, c.want)
				assert.Equal(t, len(b.here), 0)
				return
			}
			assert.NilError(t, err)
			assert.NilError(t, b.CreateNetwork(c.request), "a repeated call")
			assert.Equal(t, len(b.here), 1)
		})
	}
}

// Options are known only at CreateNetwork, after the IPAM driver has made the
// network.
func TestOptionsOfANetworkMadeByHand(t *testing.T) {
	b := newBench(t)
	b.fleet["new"] = record.Network{ID: "new", Subnet: "10.210.0.0/20", Gateway: "10.210.0.1", Segment: "routed", Egress: "engine", MTU: 1500, ByHand: true}
	r := create("x", "ours", "10.210.0.0/20", "10.210.0.1/20", map[string]any{optEgress: "plugin", optMTU: "1400"})
	r.Options[keyInternal] = true
	assert.NilError(t, b.CreateNetwork(r))
	n := b.fleet["new"]
	assert.Equal(t, n.Egress, "plugin")
	assert.Equal(t, n.MTU, 1400)
	assert.Check(t, n.Internal)
}

// Of two networks that the engine asked for before it said that they are one,
// one is made.
func TestFamiliesAreJoined(t *testing.T) {
	b := newBench(t)
	b.fleet["new4"] = record.Network{ID: "new4", Subnet: "10.210.0.0/20", Gateway: "10.210.0.1", Segment: "routed", MTU: 1500, ByHand: true}
	b.fleet["new6"] = record.Network{ID: "new6", Subnet6: "fd12:0:0:9::/64", Gateway6: "fd12:0:0:9::1", Segment: "routed", MTU: 1500, ByHand: true}
	assert.NilError(t, b.CreateNetwork(create6("x", "10.210.0.0/20", "fd12:0:0:9::/64", nil)))
	assert.Equal(t, b.here["new4"].Gateway6.String(), "fd12:0:0:9::1")
	assert.Equal(t, b.fleet["new4"].Egress, "engine")
}

func TestCreateEndpointChecksTheAddress(t *testing.T) {
	b := newBench(t)
	b.red(t)
	b.owned[netip.MustParseAddr("10.208.0.5")] = true
	for address, want := range map[string]string{
		"10.208.0.6/32": "has not been allocated to this host", "10.208.0.1/32": "is not one for containers",
		"10.9.0.5/32": "is not one for containers", "": "read address",
	} {
		_, err := b.endpoint("e", address)
		assert.ErrorContains(t, err, want)
	}
	_, err := b.CreateEndpoint(&network.CreateEndpointRequest{NetworkID: "unknown", EndpointID: "e"})
	assert.ErrorContains(t, err, "does not know the network")
	reply, err := b.endpoint("e", "10.208.0.5/32")
	assert.NilError(t, err)
	assert.Equal(t, *reply.Interface, network.EndpointInterface{MacAddress: "02:42:0a:d0:00:05"}, "only what was open")
	again, err := b.endpoint("e", "10.208.0.5/32")
	assert.NilError(t, err)
	assert.DeepEqual(t, again, reply)

	foreign := create("fn", "LocalDefault", "172.18.0.0/16", "172.18.0.1/16", nil)
	assert.NilError(t, b.CreateNetwork(foreign))
	for address, want := range map[string]string{"172.18.0.2/16": "", "172.18.128.2/16": "172.18.0.0/17, the half of the subnet"} {
		_, err := b.CreateEndpoint(&network.CreateEndpointRequest{
			NetworkID: "fn", EndpointID: "f", Interface: &network.EndpointInterface{Address: address, MacAddress: "02:42:00:00:00:01"},
		})
		if want == "" {
			assert.NilError(t, err)
		} else {
			assert.ErrorContains(t, err, want)
		}
	}
}

func TestStaleEndpointGivesWay(t *testing.T) {
	b := newBench(t)
	b.red(t)
	b.owned[netip.MustParseAddr("10.208.0.5")] = true
	for _, id := range []string{"old", "new"} {
		_, err := b.endpoint(id, "10.208.0.5/32")
		assert.NilError(t, err)
	}
	_, old := b.attached["old"]
	assert.Check(t, !old)
	assert.Equal(t, len(b.endpoints), 1)
}

func TestFailedEndpointLeavesNothing(t *testing.T) {
	b := newBench(t)
	b.red(t)
	b.owned[netip.MustParseAddr("10.208.0.5")] = true
	b.failLinks = errors.New("no link today")
	_, err := b.endpoint("e", "10.208.0.5/32")
	assert.ErrorContains(t, err, "no link today")
	assert.Equal(t, len(b.attached), 0)
	left, err := os.ReadDir(filepath.Join(b.dir, "endpoints"))
	assert.NilError(t, err)
	assert.Equal(t, len(left), 0)
}

// What a container gets of IPv6: on its own, beside IPv4 with the engine's way
// out, and where the engine takes the subnet to be on the link.
func TestJoinReplyIPv6(t *testing.T) {
	b := newBench(t)
	assert.NilError(t, b.CreateNetwork(create6("six", "", "fd12:0:0:2::/64", map[string]any{optNetwork: "six"})))
	assert.NilError(t, b.CreateNetwork(create6("both", "10.209.0.0/20", "fd12:0:0:1::/64", map[string]any{optNetwork: "both"})))
	for _, a := range []string{"fd12:0:0:2::5", "10.209.0.5", "fd12:0:0:1::5"} {
		b.owned[netip.MustParseAddr(a)] = true
	}
	ask := func(network1, id, a, a6 string) (*network.JoinResponse, error) {
		_, err := b.CreateEndpoint(&network.CreateEndpointRequest{
			NetworkID: network1, EndpointID: id, Interface: &network.EndpointInterface{Address: a, AddressIPv6: a6},
		})
		if err != nil {
			return nil, err
		}
		return b.Join(&network.JoinRequest{NetworkID: network1, EndpointID: id, SandboxKey: "s" + id})
	}
	_, err := ask("six", "x", "10.209.0.5/32", "")
	assert.ErrorContains(t, err, "is not one for containers of fd12:0:0:2::/64")
	_, err = ask("six", "x", "", "fd12:0:0:2::1/128")
	assert.ErrorContains(t, err, "is not one for containers")

	j, err := ask("six", "e1", "", "fd12:0:0:2::5/128")
	assert.NilError(t, err)
	assert.Equal(t, j.Gateway, "")
	assert.Equal(t, j.GatewayIPv6, "fd12:0:0:2::1")
	assert.DeepEqual(t, j.StaticRoutes, []*network.StaticRoute{
		{Destination: "fd12:0:0:2::1/128", RouteType: connected},
		{Destination: "fd12:0:0:2::/64", NextHop: "fd12:0:0:2::1"},
		{Destination: "fd00:c10c::53/128", NextHop: "fd12:0:0:2::1"},
	})
	j, err = ask("both", "e2", "10.209.0.5/32", "fd12:0:0:1::5/64")
	assert.NilError(t, err)
	assert.Equal(t, j.Gateway+j.GatewayIPv6, "", "else the engine leaves out docker_gwbridge")
	assert.DeepEqual(t, j.StaticRoutes, []*network.StaticRoute{
		{Destination: "10.209.0.1/32", RouteType: connected},
		{Destination: "10.209.0.0/20", NextHop: "10.209.0.1"},
		{Destination: "169.254.53.53/32", NextHop: "10.209.0.1"},
		{Destination: "fd12:0:0:1::1/128", RouteType: connected},
		{Destination: "fd12:0:0:1::/65", NextHop: "fd12:0:0:1::1"},
		{Destination: "fd12:0:0:1:8000::/65", NextHop: "fd12:0:0:1::1"},
		{Destination: "fd00:c10c::53/128", NextHop: "fd12:0:0:1::1"},
		{Destination: "2000::/3", NextHop: "fd12:0:0:1::1"},
		{Destination: "fc00::/7", NextHop: "fd12:0:0:1::1"},
	})
	assert.Check(t, b.InUse("both", netip.MustParseAddr("fd12:0:0:1::5")))
	assert.Equal(t, len(b.live(nil).Addresses["both"]), 2)
}

func TestJoinReply(t *testing.T) {
	b := newBench(t)
	b.red(t)
	for i, id := range []string{"e1", "e2"} {
		a := fmt.Sprintf("10.208.0.%d", 5+i)
		b.owned[netip.MustParseAddr(a)] = true
		_, err := b.endpoint(id, a+"/32")
		assert.NilError(t, err)
	}
	j, err := b.Join(&network.JoinRequest{NetworkID: "dn", EndpointID: "e1", SandboxKey: "s"})
	assert.NilError(t, err)
	assert.Equal(t, j.Gateway, "10.208.0.1")
	assert.DeepEqual(t, j.StaticRoutes, []*network.StaticRoute{
		{Destination: "10.208.0.1/32", RouteType: connected},
		{Destination: "10.208.0.0/20", NextHop: "10.208.0.1"},
		{Destination: "169.254.53.53/32", NextHop: "10.208.0.1"},
	})
	second, err := b.Join(&network.JoinRequest{NetworkID: "dn", EndpointID: "e2", SandboxKey: "s"})
	assert.NilError(t, err)
	assert.Equal(t, len(second.StaticRoutes), 2, "a container has one route to DNS")
	assert.NilError(t, b.Leave(&network.LeaveRequest{NetworkID: "dn", EndpointID: "e1"}))
	second, err = b.Join(&network.JoinRequest{NetworkID: "dn", EndpointID: "e2", SandboxKey: "s"})
	assert.NilError(t, err)
	assert.Equal(t, len(second.StaticRoutes), 3)
	_, err = b.Join(&network.JoinRequest{NetworkID: "dn", EndpointID: "unknown"})
	assert.ErrorContains(t, err, "not known")
}

// Whatever is deleted or left, known or not, the engine is told success.
func TestGoodbyesSucceed(t *testing.T) {
	b := newBench(t)
	assert.NilError(t, b.DeleteNetwork(&network.DeleteNetworkRequest{NetworkID: "x"}))
	assert.NilError(t, b.DeleteEndpoint(&network.DeleteEndpointRequest{EndpointID: "x"}))
	assert.NilError(t, b.Leave(&network.LeaveRequest{EndpointID: "x"}))
	assert.NilError(t, b.RevokeExternalConnectivity(&network.RevokeExternalConnectivityRequest{EndpointID: "x"}))
	assert.NilError(t, b.FreeNetwork(nil))
	assert.NilError(t, b.DiscoverNew(nil))
	assert.NilError(t, b.DiscoverDelete(nil))
}

// A new run knows what the last one was told; a new boot knows the networks.
func TestRestart(t *testing.T) {
	b := newBench(t)
	b.red(t)
	b.owned[netip.MustParseAddr("10.208.0.5")] = true
	_, err := b.endpoint("e", "10.208.0.5/32")
	assert.NilError(t, err)

	old := b.edge
	b.edge = newEdge()
	loaded := 0
	b.onLoad = func() { loaded++; assert.Equal(t, len(b.filtered), 1, "the filter is loaded once it is whole") }
	b.start(t)
	assert.Equal(t, loaded, 1)
	assert.DeepEqual(t, b.attached["e"].MAC, old.attached["e"].MAC)
	assert.Equal(t, len(b.here), 1)

	b.edge, b.boot = newEdge(), "two"
	b.start(t)
	assert.Equal(t, len(b.here), 1)
	assert.Equal(t, len(b.attached), 0)
}

// A network's removal reaches etcd however often the plugin ends before.
func TestRemovalIsSettledLater(t *testing.T) {
	b := newBench(t)
	assert.NilError(t, b.CreateNetwork(create("fn", "LocalDefault", "172.18.0.0/16", "172.18.0.1/16", nil)))
	assert.NilError(t, b.DeleteNetwork(&network.DeleteNetworkRequest{NetworkID: "fn"}))
	assert.Equal(t, len(b.here), 0)
	assert.Equal(t, len(b.released), 0)
	b.start(t)
	assert.Equal(t, len(b.here), 0)
	b.settleRemoved()
	assert.DeepEqual(t, b.released, []string{"foreign"})
	b.start(t)
	assert.Equal(t, len(b.Driver.networks), 0)
}

// An endpoint whose link is missing for long is dropped, and its address is
// reported unused from the beginning.
func TestReconcile(t *testing.T) {
	b := newBench(t)
	b.red(t)
	a := netip.MustParseAddr("10.208.0.5")
	b.owned[a] = true
	_, err := b.endpoint("e", "10.208.0.5/32")
	assert.NilError(t, err)
	b.reconcile()
	assert.DeepEqual(t, b.told.Networks, map[string]int{"red": 1})
	assert.Equal(t, len(b.told.Addresses["red"]), 1)
	assert.Check(t, b.InUse("red", a))

	b.gone = []segment.Endpoint{b.attached["e"]}
	assert.Check(t, !b.InUse("red", a))
	b.reconcile()
	assert.Equal(t, len(b.told.Addresses["red"]), 0)
	assert.Equal(t, len(b.endpoints), 1, "it may come back")
	b.now = b.now.Add(goneFor)
	b.reconcile()
	assert.Equal(t, len(b.endpoints), 0)
}
