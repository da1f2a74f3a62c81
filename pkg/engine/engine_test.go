package engine

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

func TestCreateOptions(t *testing.T) {
	r := ContainerRequest{
		Spec: record.ContainerSpec{
			Name: "shop-web-1", Image: "web:1", Hostname: "w", Command: []string{"serve"}, Entrypoint: []string{"/web"}, Env: []string{"A=1"},
			Ports: []model.Port{
				{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
				{HostIP: "10.0.0.1", HostPort: 8081, ContainerPort: 80, Protocol: "tcp"},
				{ContainerPort: 53, Protocol: "udp"},
			},
			Mounts: []model.Mount{
				{Type: model.MountBind, Source: "/a", Target: "/b", ReadOnly: true, CreateHostPath: true},
				{Type: model.MountBind, Source: "/c", Target: "/d"},
				{Type: model.MountVolume, Source: "v", Target: "/e"},
			},
			Restart:         model.Restart{Policy: "on-failure", MaxRetries: 3},
			Health:          &model.Healthcheck{Test: []string{"CMD", "true"}, Retries: 2, Interval: time.Second},
			Labels:          map[string]string{"mine": "1", LabelTask: "forged"},
			ExtraHosts:      []string{"db:10.1.0.2"},
			StopGracePeriod: 1500 * time.Millisecond,
		},
		Labels:   map[string]string{LabelTask: "t1"},
		Networks: []string{"front", "back"},
		DNS:      []netip.Addr{netip.MustParseAddr("169.254.53.53")},
	}
	o, err := createOptions(r, true)
	assert.NilError(t, err)
	assert.Equal(t, o.Name, "shop-web-1")
	assert.DeepEqual(t, o.Config.Labels, map[string]string{"mine": "1", LabelTask: "t1"})
	assert.Equal(t, *o.Config.StopTimeout, 2)
	assert.Equal(t, o.Config.Healthcheck.Retries, 2)
	// What the engine reads.
	b, err := json.Marshal(o.HostConfig)
	assert.NilError(t, err)
	var h struct {
		NetworkMode    string
		DNS            []string `json:"Dns"`
		DNSSearch      []string `json:"DnsSearch"`
		Binds          []string
		ExtraHosts     []string
		PortBindings   map[string][]map[string]string
		RestartPolicy  map[string]any
		Mounts         []map[string]any
		PublishAll     bool `json:"PublishAllPorts"`
		ReadonlyRootfs bool
	}
	assert.NilError(t, json.Unmarshal(b, &h))
	assert.Equal(t, h.NetworkMode, "front")
	assert.DeepEqual(t, h.DNS, []string{"169.254.53.53"})
	assert.DeepEqual(t, h.DNSSearch, []string{"."})
	assert.DeepEqual(t, h.Binds, []string{"/a:/b:ro"})
	assert.DeepEqual(t, h.ExtraHosts, []string{"db:10.1.0.2"})
	assert.DeepEqual(t, h.PortBindings, map[string][]map[string]string{
		"80/tcp": {{"HostIp": "", "HostPort": "8080"}, {"HostIp": "10.0.0.1", "HostPort": "8081"}},
		"53/udp": {{"HostIp": "", "HostPort": ""}},
	})
	assert.DeepEqual(t, h.RestartPolicy, map[string]any{"Name": "on-failure", "MaximumRetryCount": 3.0})
	assert.Equal(t, len(h.Mounts), 2)
	assert.Equal(t, len(o.NetworkingConfig.EndpointsConfig), 2)

	o, err = createOptions(r, false)
	assert.NilError(t, err)
	assert.Equal(t, len(o.NetworkingConfig.EndpointsConfig), 1, "older engines take one network at a time")
	r.Networks = nil
	o, err = createOptions(r, true)
	assert.NilError(t, err)
	assert.Equal(t, string(o.HostConfig.NetworkMode), "none")
	r.Spec.Ports[0].Protocol = ""
	_, err = createOptions(r, true)
	assert.ErrorContains(t, err, "unknown protocol")
}

func TestSmallConversions(t *testing.T) {
	assert.DeepEqual(t, healthcheck(&model.Healthcheck{Disable: true}).Test, []string{"NONE"})
	assert.Assert(t, healthcheck(nil) == nil)
	assert.Equal(t, restartPolicy(model.Restart{Policy: "always", MaxRetries: 9}).MaximumRetryCount, 0, "the engine refuses it there")
	assert.Assert(t, stopTimeout(0) == nil)
}

func TestFromInspect(t *testing.T) {
	port, _ := network.PortFrom(80, network.TCP)
	c := fromInspect(container.InspectResponse{
		ID: "x", Name: "/shop-web-1",
		State:  &container.State{Status: "running", StartedAt: "2026-01-02T12:00:00.5Z", Health: &container.Health{Status: "healthy"}},
		Config: &container.Config{Tty: true, Labels: map[string]string{LabelTask: "t1"}},
		HostConfig: &container.HostConfig{PortBindings: network.PortMap{port: {
			{HostIP: netip.MustParseAddr("10.0.0.1"), HostPort: "8080"}, {HostPort: ""}}}},
		NetworkSettings: &container.NetworkSettings{Networks: map[string]*network.EndpointSettings{
			"front": {IPAddress: netip.MustParseAddr("10.208.0.2")}, "back": {}, "odd": nil}},
	})
	want := Container{ID: "x", Name: "shop-web-1", Labels: map[string]string{LabelTask: "t1"}, State: Running, Health: "healthy", TTY: true,
		StartedAt: time.Date(2026, 1, 2, 12, 0, 0, 5e8, time.UTC), Joined: map[string]Joined{"front": {Address: "10.208.0.2"}, "back": {}},
		Ports: []model.Port{{HostIP: "10.0.0.1", HostPort: 8080, ContainerPort: 80, Protocol: "tcp", Mode: "host"}}}
	assert.DeepEqual(t, c, want)
	assert.Assert(t, c.Up())
	c = fromInspect(container.InspectResponse{State: &container.State{Status: "created", StartedAt: "0001-01-01T00:00:00Z", Health: &container.Health{Status: "none"}}})
	assert.Assert(t, c.StartedAt.IsZero() && c.Health == "" && !c.Up())
}

func TestNetworkOptions(t *testing.T) {
	o, err := networkOptions(record.Network{ID: "n1", Subnet: "10.208.0.0/20", Gateway: "10.208.0.1", Internal: true,
		Options: map[string]string{"clocker.egress": "plugin"}, Labels: map[string]string{"mine": "1"}}, map[string]string{LabelFleet: "f"})
	assert.NilError(t, err)
	assert.Equal(t, o.Driver, "clocker")
	assert.Equal(t, o.IPAM.Driver, "clocker")
	assert.DeepEqual(t, o.IPAM.Options, map[string]string{"clocker.network": "n1"})
	assert.DeepEqual(t, o.Options, map[string]string{"clocker.network": "n1", "clocker.egress": "plugin"})
	assert.DeepEqual(t, o.Labels, map[string]string{"mine": "1", LabelFleet: "f", LabelNetwork: "n1"})
	assert.Equal(t, o.IPAM.Config[0].Subnet.String()+" "+o.IPAM.Config[0].Gateway.String(), "10.208.0.0/20 10.208.0.1")
	assert.Assert(t, o.Internal)
	assert.Assert(t, o.EnableIPv4 == nil && o.EnableIPv6 == nil, "engines of any age understand it")
	_, err = networkOptions(record.Network{ID: "n1"}, nil)
	assert.ErrorContains(t, err, "network n1: it has no subnet")

	o, err = networkOptions(record.Network{ID: "n1", Subnet: "10.208.0.0/20", Subnet6: "fd12::/64", Gateway6: "fd12::1"}, nil)
	assert.NilError(t, err)
	assert.Assert(t, *o.EnableIPv6 && len(o.IPAM.Config) == 2)
	assert.Equal(t, o.IPAM.Config[1].Subnet.String()+" "+o.IPAM.Config[1].Gateway.String(), "fd12::/64 fd12::1")
	o, err = networkOptions(record.Network{ID: "n1", Subnet6: "fd12::/64"}, nil)
	assert.NilError(t, err)
	assert.Assert(t, *o.EnableIPv6 && !*o.EnableIPv4 && len(o.IPAM.Config) == 1)
	o, err = networkOptions(record.Network{ID: "n1", Subnet: "10.0.0.0/24", Driver: "macvlan", DriverOptions: map[string]string{"parent": "eth1"}}, nil)
	assert.NilError(t, err)
	assert.Equal(t, o.Driver+" "+o.IPAM.Driver, "macvlan clocker")
	assert.DeepEqual(t, o.Options, map[string]string{"parent": "eth1"})
}

func TestFixedAddresses(t *testing.T) {
	r := ContainerRequest{
		Spec: record.ContainerSpec{Name: "x", Image: "y", Networks: []record.NetworkJoin{
			{ID: "n1", Address: "10.208.0.20", Address6: "fd12::20", MAC: "02:42:00:00:00:01", GatewayPriority: 5}, {ID: "n2"}}},
		Networks: []string{"front", "back"}, DNSSearch: []string{"example.com"},
	}
	o, err := createOptions(r, true)
	assert.NilError(t, err)
	ep := o.NetworkingConfig.EndpointsConfig["front"]
	assert.Equal(t, ep.IPAMConfig.IPv4Address.String()+" "+ep.IPAMConfig.IPv6Address.String(), "10.208.0.20 fd12::20")
	assert.Equal(t, ep.MacAddress.String(), "02:42:00:00:00:01")
	assert.Equal(t, ep.GwPriority, 5)
	assert.Assert(t, o.NetworkingConfig.EndpointsConfig["back"].IPAMConfig == nil)
	assert.DeepEqual(t, o.HostConfig.DNSSearch, []string{"example.com"})
	r.Spec.Networks[1].Address = "ten"
	_, err = createOptions(r, true)
	assert.ErrorContains(t, err, "join network back")
}

// fakeAPI answers as an engine of some API version does.
func fakeAPI(t *testing.T, version string, routes map[string]func(w http.ResponseWriter, r *http.Request)) (e *Engine, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var log []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", version)
		path := strings.TrimPrefix(r.URL.Path, "/v"+version)
		if path == "/_ping" {
			return
		}
		mu.Lock()
		log = append(log, r.Method+" "+path)
		mu.Unlock()
		if f := routes[r.Method+" "+path]; f != nil {
			f(w, r)
			return
		}
		http.Error(w, `{"message":"no such thing"}`, http.StatusNotFound)
	}))
	t.Cleanup(s.Close)
	e, err := New(strings.Replace(s.URL, "http://", "tcp://", 1))
	assert.NilError(t, err)
	assert.NilError(t, e.Negotiate(t.Context()))
	return e, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(log)
	}
}

func answer(code int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(body))
	}
}

func TestNetworksAreJoinedAsTheEngineCan(t *testing.T) {
	create := map[string]func(http.ResponseWriter, *http.Request){
		"POST /containers/create":    answer(201, `{"Id":"c1"}`),
		"POST /networks/two/connect": answer(200, ``),
		"DELETE /containers/c1":      answer(204, ``),
	}
	r := ContainerRequest{Spec: record.ContainerSpec{Name: "n", Image: "i"}, Networks: []string{"one", "two"}}
	for version, want := range map[string][]string{
		"1.41": {"POST /containers/create", "POST /networks/two/connect"},
		"1.44": {"POST /containers/create"},
	} {
		e, asked := fakeAPI(t, version, create)
		id, err := e.Create(t.Context(), r)
		assert.NilError(t, err)
		assert.Equal(t, id, "c1")
		assert.DeepEqual(t, asked(), want)
	}
	// What was half made is taken back.
	delete(create, "POST /networks/two/connect")
	e, asked := fakeAPI(t, "1.41", create)
	_, err := e.Create(t.Context(), r)
	assert.ErrorIs(t, err, ErrNotFound)
	assert.DeepEqual(t, asked(), []string{"POST /containers/create", "POST /networks/two/connect", "DELETE /containers/c1"})
}

func TestErrorsAreToldApart(t *testing.T) {
	e, _ := fakeAPI(t, "1.51", map[string]func(http.ResponseWriter, *http.Request){
		"POST /containers/create": answer(409, `{"message":"Conflict. The container name \"/x\" is already in use"}`),
		"POST /containers/a/start": answer(400,
			`{"message":"failed to create task: exec: \"nope\": executable file not found in $PATH"}`),
		"POST /containers/b/start": answer(500, `{"message":"Bind for 0.0.0.0:80 failed: port is already allocated"}`),
		"POST /containers/c/start": answer(500, `{"message":"plugin clocker: context deadline exceeded"}`),
		"POST /networks/create":    answer(403, `{"message":"network with name x already exists"}`),
		"DELETE /containers/d":     answer(409, `{"message":"removal of container d is already in progress"}`),
		"POST /images/create":      answer(200, `{"errorDetail":{"message":"manifest for x:9 not found: manifest unknown"},"error":"manifest for x:9 not found: manifest unknown"}`),
	})
	ctx := t.Context()
	_, err := e.Create(ctx, ContainerRequest{Spec: record.ContainerSpec{Name: "x", Image: "i"}})
	assert.ErrorIs(t, err, ErrConflict)
	assert.Error(t, err, `create container x: Conflict. The container name "/x" is already in use`)
	assert.ErrorIs(t, e.Start(ctx, "a"), ErrCommand)
	assert.ErrorIs(t, e.Start(ctx, "b"), ErrPort)
	err = e.Start(ctx, "c")
	assert.Assert(t, err != nil && !errors.Is(err, ErrCommand) && !errors.Is(err, ErrPort) && !errors.Is(err, ErrInvalid), "%v", err)
	_, err = e.CreateNetwork(ctx, record.Network{Name: "x", Subnet: "10.0.0.0/24"}, nil)
	assert.ErrorIs(t, err, ErrConflict)
	assert.NilError(t, e.Remove(ctx, "d"))
	assert.NilError(t, e.Remove(ctx, "gone"))
	assert.NilError(t, e.RemoveNetwork(ctx, "gone"))
	_, err = e.EnsureImage(ctx, "x:9", "")
	assert.ErrorIs(t, err, ErrImage)
	assert.Error(t, err, "pull image x:9: manifest for x:9 not found: manifest unknown (check the name and tag, or load the image on the host)")

	away, err := New("tcp://127.0.0.1:1")
	assert.NilError(t, err)
	assert.ErrorIs(t, away.Negotiate(ctx), ErrAway)
	_, err = away.Container(ctx, "x")
	assert.ErrorIs(t, err, ErrAway)
}

func TestEventsComeInOrder(t *testing.T) {
	e, _ := fakeAPI(t, "1.51", map[string]func(http.ResponseWriter, *http.Request){
		"GET /events": answer(200, `{"Type":"container","Action":"start","Actor":{"ID":"a","Attributes":{"name":"n"}},"timeNano":5}
{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"a"},"timeNano":6}
`),
	})
	var got []string
	ready := 0
	err := e.Events(t.Context(), func() { ready++ }, func(ev Event) {
		got = append(got, ev.Type+" "+ev.Action+" "+ev.ID+" "+ev.Attributes["name"])
		assert.Equal(t, ev.At.UnixNano(), int64(4+len(got)))
	})
	assert.Assert(t, err != nil, "the stream ends")
	assert.Equal(t, ready, 1)
	assert.DeepEqual(t, got, []string{"container start a n", "container health_status: healthy a "})
}

func TestOurNetworksAreKnownByDriver(t *testing.T) {
	for driver, want := range map[string]bool{"clocker": true, "clocker:latest": true, "clocker-net:latest": true, "bridge": false, "clockerx": false} {
		n := Network{Driver: driver}
		assert.Equal(t, n.Ours(), want, driver)
	}
}
