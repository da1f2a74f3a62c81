package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

type fixedTopology struct{ t *topology.Topology }

func (f fixedTopology) Read(do func(*topology.Topology, topology.Knowledge)) {
	do(f.t, topology.Followed)
}

type fixedFilter policy.State

func (f fixedFilter) State() policy.State { return policy.State(f) }

// part finds one thing, which it mends.
type part struct {
	fs  []finding.Finding
	err error
}

func (p part) Check(fix bool) ([]finding.Finding, error) {
	out := append([]finding.Finding(nil), p.fs...)
	for i := range out {
		out[i].Fixed = fix
	}
	return out, p.err
}

// wire is a carrier that leads to some hosts only.
type wire struct {
	carrier.Carrier
	link int
	to   map[string]bool
}

func (w wire) Hop(p carrier.Peer) (carrier.Hop, error) {
	if !w.to[p.Host] {
		return carrier.Hop{}, carrier.ErrUnreachable
	}
	return carrier.Hop{Link: w.link, MTU: 1400}, nil
}

// serve runs a server on a real socket and the kernel of this machine, of
// which only the loopback is asked for.
func serve(t *testing.T) (call func(method, path string, body, out any) int, socket string) {
	t.Helper()
	kernel, err := netlink.NewHandle()
	assert.NilError(t, err)
	t.Cleanup(kernel.Close)
	lo, err := kernel.LinkByName("lo")
	assert.NilError(t, err)
	top := topology.New()
	top.Networks["a"] = record.Network{ID: "a", Name: "net-a", Subnet: "10.208.0.0/20", Segment: "routed", Carrier: "auto", MTU: 1500}
	top.Blocks["a"] = map[netip.Prefix]record.Block{prefix("10.208.0.64/26"): {Host: "h2"}, prefix("10.208.0.0/26"): {Host: "h1"}, prefix("10.208.0.128/26"): {Host: "h3"}}
	top.Services["a"] = map[netip.Addr]record.Service{addr("10.208.0.200"): {App: "shop", Service: "db", Address: "10.208.0.200"}}
	top.Names["h2"] = map[string]record.NameRecord{"t": {App: "shop", Service: "db", Replica: "shop-db-1", Networks: map[string]record.NamedAddress{"a": {Address: "10.208.0.70"}}}}
	top.Underlays["h1"] = record.Underlay{Host: "h1", Address: "192.0.2.1", MTU: 1500}
	top.Underlays["h2"] = record.Underlay{Host: "h2", Address: "192.0.2.2"}
	top.Underlays["h3"] = record.Underlay{Host: "h3", Address: "192.0.2.3"}
	s := New(Config{
		Host: "h1", Version: "1", Topology: fixedTopology{top}, Kernel: kernel, Log: slog.New(slog.DiscardHandler),
		Filter: fixedFilter{
			Networks:  []policy.Network{{ID: "a", Subnet: prefix("10.208.0.0/20"), Gateway: addr("10.208.0.1"), Egress: true}},
			Endpoints: []policy.Endpoint{{Link: "lo", Network: "a", Address: addr("10.208.0.5")}, {Link: "ckgone", Network: "a", Address: addr("10.208.0.6")}},
		},
		Carriers: map[string]carrier.Carrier{
			"auto":  wire{link: lo.Attrs().Index, to: map[string]bool{"h2": true}},
			"vxlan": wire{link: lo.Attrs().Index, to: map[string]bool{"h2": true}},
		},
		Checkers: Checkers(part{fs: []finding.Finding{{Part: "routes", Subject: "x"}}}, "no checker", part{fs: []finding.Finding{{Part: "routes", Subject: "x"}}, err: errors.New("no netlink")}),
	})
	socket = filepath.Join(t.TempDir(), "control.sock")
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx, socket) })
	t.Cleanup(func() { cancel(); running.Wait() })
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	call = func(method, path string, body, out any) int {
		t.Helper()
		b, err := json.Marshal(body)
		assert.NilError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), method, "http://plugin"+path, bytes.NewReader(b))
		assert.NilError(t, err)
		res, err := client.Do(req)
		for end := time.Now().Add(60 * time.Second); err != nil && time.Now().Before(end); { // it opens its socket
			res, err = client.Do(req.Clone(t.Context()))
		}
		assert.NilError(t, err)
		defer func() { _ = res.Body.Close() }()
		answer, err := io.ReadAll(res.Body)
		assert.NilError(t, err)
		if res.StatusCode == http.StatusOK {
			assert.NilError(t, json.Unmarshal(answer, out))
		}
		return res.StatusCode
	}
	return call, socket
}

func TestOnlyRootMayAsk(t *testing.T) {
	call, socket := serve(t)
	assert.Equal(t, call("GET", hostview.PathReport, nil, &hostview.Report{}), http.StatusOK)
	s, err := os.Stat(socket)
	assert.NilError(t, err)
	assert.Equal(t, s.Mode().Perm(), os.FileMode(0o600))
}

func TestReport(t *testing.T) {
	call, _ := serve(t)
	var r hostview.Report
	assert.Equal(t, call("GET", hostview.PathReport, nil, &r), http.StatusOK)
	assert.Equal(t, r.Host+" "+r.Version+" "+r.Knowledge+" "+r.Underlay.Address, "h1 1 followed 192.0.2.1")
	assert.DeepEqual(t, r.Networks, []hostview.Network{{ID: "a", Segment: "routed", Carrier: "auto", MTU: 1500}})
	assert.Equal(t, len(r.Blocks["a"]), 1)
	assert.Equal(t, r.Endpoints[0].Problem, "its link ckgone is gone")
	assert.Equal(t, r.Endpoints[1].Problem, "")
	assert.Equal(t, len(r.Ways), 2)
	assert.DeepEqual(t, r.Ways[0], hostview.Way{Host: "h2", Address: "192.0.2.2", Carrier: "vxlan", Link: "lo", MTU: 1400})
	assert.Equal(t, r.Ways[1].Problem, carrier.ErrUnreachable.Error())
}

func TestCheckAsksEveryPartOnce(t *testing.T) {
	call, _ := serve(t)
	var fs []finding.Finding
	assert.Equal(t, call("POST", hostview.PathCheck, hostview.CheckRequest{Fix: true}, &fs), http.StatusOK)
	assert.Equal(t, len(fs), 2)
	assert.DeepEqual(t, fs[0], finding.Finding{Part: "routes", Subject: "x", Fixed: true})
	assert.Equal(t, fs[1].Text, "cannot look: no netlink")
}

func TestView(t *testing.T) {
	call, _ := serve(t)
	ask := func(from, to string) hostview.View {
		t.Helper()
		var v hostview.View
		assert.Equal(t, call("POST", hostview.PathTrace, hostview.Question{From: addr(from), To: addr(to), Protocol: "tcp", Port: 80}, &v), http.StatusOK)
		return v
	}
	v := ask("10.208.0.5", "10.208.0.70")
	assert.Assert(t, v.From != nil && v.To == nil && v.Leave.Open && v.Enter == nil)
	assert.Equal(t, v.Way.Host, "h2")
	assert.Equal(t, v.Way.Problem, "")
	v = ask("10.208.0.5", "10.208.0.130")
	assert.Equal(t, v.Way.Problem, carrier.ErrUnreachable.Error())
	v = ask("10.208.0.5", "10.208.0.200")
	assert.Assert(t, v.Balanced)
	assert.Equal(t, v.Backends[0].String(), "10.208.0.70")
	v = ask("127.0.0.1", "10.208.0.5")
	assert.Assert(t, !v.Leave.Open && v.To != nil && v.Enter == nil)
	v = ask("10.208.0.5", "127.0.0.1")
	assert.Equal(t, v.Route.Kind, "local")
}

func TestQuestionsThatCannotBeRead(t *testing.T) {
	call, _ := serve(t)
	assert.Equal(t, call("POST", hostview.PathTrace, hostview.Question{}, nil), http.StatusBadRequest)
	assert.Equal(t, call("POST", hostview.PathTrace, "banana", nil), http.StatusBadRequest)
	assert.Equal(t, call("POST", hostview.PathCheck, []int{1}, nil), http.StatusBadRequest)
	assert.Equal(t, call("POST", hostview.PathReport, nil, nil), http.StatusMethodNotAllowed)
}
