package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"gotest.tools/v3/assert"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/netplugin/driver"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/server"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// nowhere stands for the kernel: whatever it is told, it has nothing.
type nowhere struct{}

func (nowhere) Attach(segment.Endpoint) error              { return nil }
func (nowhere) Detach(segment.Endpoint)                    {}
func (nowhere) AddNetwork(segment.Network) error           { return nil }
func (nowhere) RemoveNetwork(string)                       {}
func (nowhere) Gone() ([]segment.Endpoint, error)          { return nil, nil }
func (nowhere) PutNetwork(policy.Network) error            { return nil }
func (nowhere) PutEndpoint(policy.Endpoint) error          { return nil }
func (nowhere) RemoveEndpoint(string) error                { return nil }
func (nowhere) SetFleet(policy.Fleet) error                { return nil }
func (nowhere) Load() error                                { return nil }
func (nowhere) Run(context.Context, <-chan struct{}) error { return nil }
func (nowhere) Adopt([]segment.Network, []segment.Endpoint) ([]segment.Endpoint, error) {
	return nil, nil
}

// filter is the filter's side of nowhere, whose RemoveNetwork has an error.
type filter struct{ nowhere }

func (filter) RemoveNetwork(string) error { return nil }

// known is a topology with one network of both families.
type known struct{ t *topology.Topology }

func (k known) Read(f func(*topology.Topology, topology.Knowledge)) { f(k.t, topology.Followed) }

func (k known) Network(_ context.Context, id string) (record.Network, error) {
	if n, ok := k.t.Networks[id]; ok {
		return n, nil
	}
	return record.Network{}, store.ErrNotFound
}

// panics counts the calls that panicked: the server answers those with an
// error and a line in its log.
type panics struct {
	slog.Handler
	last *atomic.Pointer[string]
}

func (p panics) Enabled(context.Context, slog.Level) bool { return true }

func (p panics) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "call panicked" {
		text := ""
		r.Attrs(func(a slog.Attr) bool { text += a.String() + " "; return true })
		p.last.Store(&text)
	}
	return nil
}

func (p panics) WithAttrs([]slog.Attr) slog.Handler { return p }
func (p panics) WithGroup(string) slog.Handler      { return p }

// plugin serves the real drivers, with an etcd that never answers.
func plugin(f testing.TB) (call func(t testing.TB, method string, body []byte) (int, []byte), panicked func() string) {
	f.Helper()
	dir := f.TempDir()
	last := &atomic.Pointer[string]{}
	log := slog.New(panics{last: last})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:1"}, DialTimeout: time.Millisecond, Logger: zap.NewNop()})
	assert.NilError(f, err)
	f.Cleanup(func() { client.Close() })
	pools, err := addresses.Open(addresses.Config{Host: "h1", Store: store.New(client, "fuzz"), Dir: dir, Log: log, Timeout: time.Millisecond})
	assert.NilError(f, err)
	f.Cleanup(func() { _ = pools.Close() })
	top := topology.New()
	top.Networks["red"] = record.Network{
		ID: "red", Name: "red", Subnet: "10.208.0.0/20", Gateway: "10.208.0.1", Subnet6: "fd12:3456:789a:1::/64", Gateway6: "fd12:3456:789a:1::1",
		Segment: "routed", Carrier: "direct", Egress: "plugin", MTU: 1500,
	}
	top.Underlays["h1"] = record.Underlay{Host: "h1", Address: "10.0.0.1", MTU: 1500}
	d, err := driver.New(driver.Config{
		Host: "h1", Name: "h1", StateDir: filepath.Join(dir, "docker"), Boot: "one", AddressSpace: addresses.LocalSpace, Addresses: pools,
		Segments: map[string]segment.Segment{"routed": nowhere{}}, Filter: filter{}, Topology: known{top}, Now: time.Now, Log: log,
	})
	assert.NilError(f, err)
	s := server.New(log, ipam.AddressSpacesResponse{LocalDefaultAddressSpace: addresses.LocalSpace, GlobalDefaultAddressSpace: addresses.GlobalSpace})
	s.Use(server.Drivers{Network: d, IPAM: pools})
	socket := filepath.Join(dir, "s")
	l, err := server.Listen(socket)
	assert.NilError(f, err)
	f.Cleanup(func() { l.Close() })
	go func() { _ = s.Serve(l) }()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	f.Cleanup(c.CloseIdleConnections)
	call = func(t testing.TB, method string, body []byte) (int, []byte) {
		t.Helper()
		r, err := c.Post("http://plugin/"+method, "application/json", bytes.NewReader(body))
		assert.NilError(t, err)
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		assert.NilError(t, err)
		return r.StatusCode, b
	}
	return call, func() string {
		if p := last.Swap(nil); p != nil {
			return *p
		}
		return ""
	}
}

// methods are the calls of an interface.
func methods(all, prefix string) []string {
	var out []string
	for name := range strings.FieldsSeq(all) {
		out = append(out, prefix+name)
	}
	return out
}

// fuzz sends one call after the other. Whatever is in it, the answer is a
// reply that an engine understands, and nothing panics.
func fuzz(f *testing.F, methods []string) {
	call, panicked := plugin(f)
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		method := methods[int(which)%len(methods)]
		status, answer := call(t, method, body)
		if text := panicked(); text != "" {
			t.Fatalf("%s panicked: %s", method, text)
		}
		var reply struct{ Err, Error string }
		if err := json.Unmarshal(answer, &reply); err != nil {
			t.Fatalf("%s answered %q: %v", method, answer, err)
		}
		if failed := status != http.StatusOK; failed != (reply.Err != "") || reply.Err != reply.Error && failed {
			t.Fatalf("%s answered status %d and %s", method, status, answer)
		}
	})
}

func FuzzNetworkDriver(f *testing.F) {
	all := methods("GetCapabilities GwAllocCheck AllocateNetwork CreateNetwork CreateEndpoint EndpointOperInfo Join DeleteNetwork FreeNetwork DeleteEndpoint Leave DiscoverNew DiscoverDelete ProgramExternalConnectivity RevokeExternalConnectivity", "NetworkDriver.")
	for i, body := range []string{
		``, `{"Options":{"com.docker.network.generic":{"clocker.mtu":"1500"},"com.docker.network.enable_ipv6":true}}`, `{}`,
		`{"NetworkID":"n","Options":{"com.docker.network.generic":{"clocker.network":"red"}},"IPv4Data":[{"AddressSpace":"clocker-local","Pool":"10.208.0.0/20","Gateway":"10.208.0.1/20","AuxAddresses":{"a":"10.208.0.9/20"}}],"IPv6Data":[{"AddressSpace":"clocker-local","Pool":"fd12:3456:789a:1::/64"}]}`,
		`{"NetworkID":"n","EndpointID":"e","Interface":{"Address":"10.208.0.5/32","AddressIPv6":"fd12:3456:789a:1::5/128","MacAddress":"02:42:0a:d0:00:05"},"Options":{"com.docker.network.portmap":[{"Proto":6,"Port":80,"HostIP":"::1","HostPort":0}]}}`,
		`{"NetworkID":"n","EndpointID":"e"}`, `{"NetworkID":"n","EndpointID":"e","SandboxKey":"s","Options":{"com.docker.network.portmap":null}}`,
		`{"NetworkID":"n"}`, `{"NetworkID":"n"}`, `{"NetworkID":"n","EndpointID":"e"}`, `{"NetworkID":"n","EndpointID":"../../x"}`,
		`{"DiscoveryType":1,"DiscoveryData":{}}`, `{"DiscoveryType":1}`, `{"EndpointID":"e","Options":{"com.docker.network.portmap":[{}]}}`, `null`,
	} {
		f.Add(uint8(i), []byte(body))
	}
	// Of another network than the one that the fleet has.
	f.Add(uint8(3), []byte(`{"NetworkID":"../n","Options":{"com.docker.network.generic":7},"IPv4Data":[null]}`))
	f.Add(uint8(4), []byte(`{"NetworkID":"n","EndpointID":"","Interface":null}`))
	fuzz(f, all)
}

func FuzzIPAMDriver(f *testing.F) {
	all := methods("GetCapabilities GetDefaultAddressSpaces RequestPool RequestAddress ReleasePool ReleaseAddress", "IpamDriver.")
	for i, body := range []string{
		``, `{}`, `{"AddressSpace":"clocker-local","Pool":"10.208.0.0/20","SubPool":"10.208.0.0/24","Options":{"clocker.network":"red"},"V6":true}`,
		`{"PoolID":"clocker-local/red/10.208.0.0/20","Address":"10.208.0.5","Options":{"RequestAddressType":"com.docker.network.gateway"}}`,
		`{"PoolID":"clocker-local/red/10.208.0.0/20"}`, `{"PoolID":"clocker-local/red/fd12::/64","Address":"fd12::5"}`,
	} {
		f.Add(uint8(i), []byte(body))
	}
	fuzz(f, all)
}
