package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
	"clocker.io/clocker/pkg/trace"
)

// netHosts play the agents and plugins of hosts: each has every network of
// etcd on its engine at once, unless it lags.
type netHosts struct {
	t *testing.T
	c *Controller

	mu       sync.Mutex
	lags     map[string]bool                // host ids
	attached map[string][]string            // network name + "@" + host id → containers
	findings map[string][]finding.Finding   // by host id and path
	views    map[string]hostview.View       // by host id
	asked    map[string][]hostview.Question // by host id
}

func playNetHosts(t *testing.T, c *Controller) *netHosts {
	h := &netHosts{
		t: t, c: c, lags: map[string]bool{}, attached: map[string][]string{}, findings: map[string][]finding.Finding{},
		views: map[string]hostview.View{}, asked: map[string][]hostview.Question{},
	}
	c.calls = h
	return h
}

func (h *netHosts) Transport(host string) http.RoundTripper {
	m := http.NewServeMux()
	m.HandleFunc("GET "+hostview.AgentNetworks, func(w http.ResponseWriter, r *http.Request) {
		items, _, err := store.List[record.Network](r.Context(), h.c.store, h.c.store.Keys.Networks())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		out := []hostview.EngineNetwork{}
		for _, it := range items {
			if !h.lags[host] && it.Value.Name != "" {
				out = append(out, hostview.EngineNetwork{ID: it.Value.ID, Name: it.Value.Name, Containers: h.attached[it.Value.Name+"@"+host]})
			}
		}
		_ = json.NewEncoder(w).Encode(out)
	})
	for _, path := range []string{hostview.AgentCheck, hostview.AgentPlugin + hostview.PathCheck} {
		m.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var q hostview.CheckRequest
			_ = json.NewDecoder(r.Body).Decode(&q)
			h.mu.Lock()
			defer h.mu.Unlock()
			fs := slices.Clone(h.findings[host+path])
			for i := range fs {
				fs[i].Fixed = q.Fix && fs[i].Hint == ""
			}
			_ = json.NewEncoder(w).Encode(fs)
		})
	}
	m.HandleFunc("POST "+hostview.AgentPlugin+hostview.PathTrace, func(w http.ResponseWriter, r *http.Request) {
		var q hostview.Question
		_ = json.NewDecoder(r.Body).Decode(&q)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.asked[host] = append(h.asked[host], q)
		_ = json.NewEncoder(w).Encode(h.views[host])
	})
	return roundTrip(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		m.ServeHTTP(w, r)
		return w.Result(), nil
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// netFleet is a controller that leads, with hosts h1 and h2.
func netFleet(t *testing.T) (*Controller, *netHosts, *store.Store) {
	t.Helper()
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	a := playAgents(t, client, "h1", "h2")
	h := playNetHosts(t, c)
	c.awaitLead(t)
	await(t, func() bool { return c.isUp("h1") && c.isUp("h2") })
	return c, h, a.s
}

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func refusal(t *testing.T, err error, status int) string {
	t.Helper()
	var refused *api.CallError
	assert.Assert(t, errors.As(err, &refused), "%v", err)
	assert.Equal(t, refused.Status, status, refused.Error())
	return refused.Error()
}

func TestNetworkIsMadeOnEveryHost(t *testing.T) {
	c, _, s := netFleet(t)
	made, err := c.CreateNetwork(t.Context(), api.NetworkRequest{
		Name: "front", Subnets: []string{"10.40.0.0/16"}, Ranges: []string{"10.40.1.0/24"}, Gateways: []string{"10.40.0.254"},
		Aux: map[string]string{"printer": "10.40.0.9"}, Internal: true, DNS: []string{"192.0.2.53"}, Search: []string{"example.org"},
		Options: map[string]string{"clocker.mtu": "1400", "com.example": "x"}, Labels: map[string]string{"tier": "1"},
	})
	assert.NilError(t, err)
	assert.Equal(t, len(made.Behind), 0)
	it, err := store.Get[record.Network](t.Context(), s, s.Keys.Network(made.Network.ID))
	assert.NilError(t, err)
	n := it.Value
	assert.Equal(t, n.Name, "front")
	assert.Equal(t, n.Subnet+" "+n.Range+" "+n.Gateway, "10.40.0.0/16 10.40.1.0/24 10.40.0.254")
	assert.DeepEqual(t, n.Reserved, []string{"10.40.0.9"})
	assert.DeepEqual(t, n.DNS, []string{"192.0.2.53"})
	assert.DeepEqual(t, n.DNSSearch, []string{"example.org"})
	assert.Equal(t, n.MTU, 1400)
	assert.DeepEqual(t, n.Options, map[string]string{"com.example": "x"})
	assert.Assert(t, n.Internal && n.Carrier == "auto" && n.Egress == "plugin" && !n.ByHand)

	_, err = c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "front"})
	assert.Assert(t, strings.Contains(refusal(t, err, 409), "network front exists already"))
	_, err = c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "lab", Driver: "macvlan", Options: map[string]string{"parent": "eth1"}})
	assert.NilError(t, err)
	all, err := c.Networks(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, len(all), 2)
	assert.Equal(t, all[1].Driver, "macvlan")
	assert.DeepEqual(t, all[1].DriverOptions, map[string]string{"parent": "eth1"})
}

func TestAllThatIsWrongWithANetworkIsSaidAtOnce(t *testing.T) {
	c, _, s := netFleet(t)
	k := s.Keys
	_, err := s.Txn().Put(k.HostFacts("h2"), record.HostFacts{Routes: []string{"10.50.0.0/16", "0.0.0.0/0"}}).
		Put(k.Network("n9"), record.Network{ID: "n9", Name: "old", Subnet: "10.60.0.0/16", Gateway: "10.60.0.1", BlockBits: 26, Segment: "routed", Carrier: "auto"}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return len(c.hostRoutes()) == 1 })
	before := left(t, s)
	for _, x := range []struct {
		q    api.NetworkRequest
		says []string
	}{
		{api.NetworkRequest{Name: "-x", Subnets: []string{"10.50.3.0/24", "banana"}, Gateways: []string{"10.51.0.1"}, Segment: "flat", Carrier: "pigeon", MTU: 9000},
			[]string{`name "-x"`, `subnet "banana"`, "gateway 10.51.0.1 is not in subnet 10.50.3.0/24", `segment "flat"`, `carrier "pigeon"`, "MTU 9000 is too large: host h1", "meets the route to 10.50.0.0/16 of host h2"}},
		{api.NetworkRequest{Name: "x", Subnets: []string{"10.60.7.0/24"}}, []string{"overlaps network old (10.60.0.0/16)"}},
		{api.NetworkRequest{Name: "x", Subnets: []string{"10.70.0.1/24"}}, []string{"it is 10.70.0.0/24"}},
		{api.NetworkRequest{Name: "x", Subnets: []string{"10.70.0.0/24", "10.71.0.0/24"}}, []string{"both IPv4"}},
		{api.NetworkRequest{Name: "x", Subnets: []string{"10.70.0.0/30"}}, []string{"from /8 to /29"}},
		{api.NetworkRequest{Name: "x", NoIPv4: true}, []string{"needs --ipv6"}},
		{api.NetworkRequest{Name: "x", Ranges: []string{"10.1.0.0/24"}, Aux: map[string]string{"a": "b"}}, []string{"needs a subnet", "a=b is not an address"}},
		{api.NetworkRequest{Name: "x", Pool: "none", Size: 31}, []string{"no address pool none", "size /31"}},
		{api.NetworkRequest{Name: "x", Pool: "default", Subnets: []string{"10.70.0.0/24"}}, []string{"leave one of the two out"}},
		{api.NetworkRequest{Name: "x", Options: map[string]string{"clocker.mtu": "big", "clocker.colour": "red", "clocker.egress": "none"}}, []string{"clocker.mtu=big", "clocker.colour is not known", "clocker.egress=none"}},
		{api.NetworkRequest{Name: "x", DNS: []string{"dns.example"}}, []string{`DNS server "dns.example"`}},
		{api.NetworkRequest{Name: "x", Driver: "macvlan", Carrier: "vxlan"}, []string{"leave --segment and --carrier out"}},
	} {
		_, err := c.CreateNetwork(t.Context(), x.q)
		text := refusal(t, err, 400)
		for _, want := range x.says {
			assert.Assert(t, strings.Contains(text, want), "%+v:\n%s\nlacks %q", x.q, text, want)
		}
	}
	assert.DeepEqual(t, left(t, s), before)
}

func TestHostsThatDoNotFollowAreNamed(t *testing.T) {
	c, h, s := netFleet(t)
	_, err := s.Txn().Delete(s.Keys.HostLease("h2")).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return !c.isUp("h2") })
	made, err := c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "front"})
	assert.NilError(t, err)
	assert.Equal(t, len(made.Behind), 1)
	assert.Assert(t, made.Behind[0].Host == "h2" && made.Behind[0].Down)

	h.mu.Lock()
	h.lags["h1"] = true
	h.mu.Unlock()
	_, err = s.Txn().Put(s.Keys.Event("e1"), record.Event{
		ID: "e1", At: c.now().AddDate(0, 0, 1), Type: "network", Action: "fail", Text: "make: the engine is full",
		Attrs: map[string]string{"host": "h1", "network": made.Network.ID},
	}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return c.networkProblem(made.Network.ID, "h1") != "" })
	behind := c.settle(t.Context(), made.Network, true)
	assert.Equal(t, behind[0].Reason, "make: the engine is full")
}

func TestNetworkInUseIsNotRemoved(t *testing.T) {
	c, h, s := netFleet(t)
	k := s.Keys
	made, err := c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "front"})
	assert.NilError(t, err)
	id := made.Network.ID
	other, err := c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "back"})
	assert.NilError(t, err)
	_, err = c.AddRule(t.Context(), api.RuleRequest{From: "front", To: "back", Protocol: "tcp", Port: 80})
	assert.NilError(t, err)
	h.mu.Lock()
	h.attached["front@h1"] = []string{"stopped-one"}
	h.mu.Unlock()
	_, err = s.Txn().Put(k.Endpoint(id, "10.208.0.9"), record.Endpoint{Host: "h2", Container: "busy"}).
		Put(k.Attached(id, "h1"), record.Attached{Host: "h1", Network: id}).Commit(t.Context())
	assert.NilError(t, err)
	_, err = c.RemoveNetwork(t.Context(), "front")
	text := refusal(t, err, 409)
	for _, want := range []string{"on host h1: stopped-one, the machine itself (docker clocker network detach front --host h1)", "on host h2: busy"} {
		assert.Assert(t, strings.Contains(text, want), text)
	}
	d, err := c.Network(t.Context(), "front")
	assert.NilError(t, err)
	assert.Equal(t, d.InUse[0].Container, "busy")
	assert.Assert(t, d.On[0].Attached && !d.On[1].Attached)
	assert.Equal(t, d.Rules[0].ToName, "back")

	h.mu.Lock()
	delete(h.attached, "front@h1")
	h.mu.Unlock()
	_, err = s.Txn().Delete(k.Endpoint(id, "10.208.0.9")).Commit(t.Context())
	assert.NilError(t, err)
	assert.NilError(t, c.DetachHost(t.Context(), "front", "h1"))
	_, err = c.RemoveNetwork(t.Context(), "front")
	assert.NilError(t, err)
	r, err := s.Client().Get(t.Context(), k.Net(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	assert.NilError(t, err)
	for _, kv := range r.Kvs {
		key := strings.TrimPrefix(string(kv.Key), k.Net())
		assert.Assert(t, !strings.Contains(key, id) && !strings.HasPrefix(key, "rules/"), "%s is left", key)
	}
	_, err = c.RemoveNetwork(t.Context(), "front")
	refusal(t, err, 404)
	_, err = c.Network(t.Context(), other.Network.ID)
	assert.NilError(t, err)
}

func TestNetworkOfAnApplicationIsTheApplications(t *testing.T) {
	c, _, _ := netFleet(t)
	_, problems, err := deploy(c, application("app", 1, 1))
	assert.NilError(t, err, problems)
	all, err := c.Networks(t.Context())
	assert.NilError(t, err)
	_, err = c.RemoveNetwork(t.Context(), all[0].Name)
	assert.Assert(t, strings.Contains(refusal(t, err, 409), "docker clocker rm app"))

	// What was opened to it goes with it.
	_, err = c.AddRule(t.Context(), api.RuleRequest{From: "192.0.2.0/24", To: all[0].Name})
	assert.NilError(t, err)
	assert.NilError(t, c.Remove(t.Context(), "app", func(api.Progress) error { return nil }))
	rules, err := c.Rules(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, len(rules), 0)
}

func TestRules(t *testing.T) {
	c, _, _ := netFleet(t)
	for _, n := range []string{"a", "b"} {
		_, err := c.CreateNetwork(t.Context(), api.NetworkRequest{Name: n})
		assert.NilError(t, err)
	}
	made, err := c.AddRule(t.Context(), api.RuleRequest{From: "a", To: "b", Protocol: "tcp", Port: 5432})
	assert.NilError(t, err)
	again, err := c.AddRule(t.Context(), api.RuleRequest{From: "a", To: "b", Protocol: "tcp", Port: 5432})
	assert.NilError(t, err)
	assert.Equal(t, again.ID, made.ID)
	_, err = c.AddRule(t.Context(), api.RuleRequest{From: "192.0.2.7/24", To: "b", Protocol: "icmp"})
	assert.NilError(t, err)
	rules, err := c.Rules(t.Context())
	assert.NilError(t, err)
	var got []string
	for _, r := range rules {
		got = append(got, fmt.Sprintf("%s>%s %s %d", r.FromName, r.ToName, r.Protocol, r.Port))
	}
	assert.DeepEqual(t, got, []string{"192.0.2.0/24>b icmp 0", "a>b tcp 5432"})
	toHost, err := c.AddRule(t.Context(), api.RuleRequest{From: "a", To: "host:h1", Protocol: "tcp", Port: 5000})
	assert.NilError(t, err)
	assert.Assert(t, strings.HasSuffix(toHost.To, "/32"), toHost.To)
	_, err = c.AddRule(t.Context(), api.RuleRequest{From: "192.0.2.0/24", To: "192.0.2.1"})
	assert.Assert(t, strings.Contains(refusal(t, err, 400), "one of the two"))
	_, err = c.AddRule(t.Context(), api.RuleRequest{From: "x", To: "y", Protocol: "sctp", Port: 3})
	text := refusal(t, err, 400)
	for _, want := range []string{"no network x", "no network y", `protocol "sctp"`} {
		assert.Assert(t, strings.Contains(text, want), text)
	}
	assert.NilError(t, c.RemoveRule(t.Context(), made.ID))
	refusal(t, c.RemoveRule(t.Context(), made.ID), 404)
}

func TestMachineIsAttached(t *testing.T) {
	c, _, s := netFleet(t)
	made, err := c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "a"})
	assert.NilError(t, err)
	k := s.Keys
	go s.Follow(t.Context(), k.Attachments(), c.log, func(ch store.Change) { //nolint:errcheck // ctx's error
		for range ch.Puts { // as the host's plugin does
			s.Txn().Put(k.Endpoint(made.Network.ID, "10.208.0.7"), record.Endpoint{Host: "h1", Machine: true}).Commit(t.Context()) //nolint:errcheck // told below
		}
		for range ch.Deletes {
			s.Txn().Delete(k.Endpoint(made.Network.ID, "10.208.0.7")).Commit(t.Context()) //nolint:errcheck // told below
		}
	})
	a, err := c.AttachHost(t.Context(), "a", "h1")
	assert.NilError(t, err)
	assert.DeepEqual(t, a, api.Attachment{Network: "a", Host: "h1", Addresses: []string{"10.208.0.7"}})
	again, err := c.AttachHost(t.Context(), "a", "h1")
	assert.NilError(t, err)
	assert.DeepEqual(t, again, a)
	assert.NilError(t, c.DetachHost(t.Context(), "a", "h1"))
	refusal(t, c.DetachHost(t.Context(), "a", "h1"), 404)
	_, err = c.AttachHost(t.Context(), "a", "h9")
	refusal(t, err, 404)
}

func TestPools(t *testing.T) {
	c, _, s := netFleet(t)
	p, err := c.AddPool(t.Context(), record.Pool{Name: "lab", CIDR: "10.96.0.0/16"})
	assert.NilError(t, err)
	assert.Equal(t, p.SubnetBits, 20)
	assert.Equal(t, p.Free, int64(16))
	_, err = c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "a", Pool: "lab", Size: 24})
	assert.NilError(t, err)
	d, err := c.Pool(t.Context(), "lab")
	assert.NilError(t, err)
	assert.Equal(t, d.Taken[0].Subnet, "10.96.0.0/24")
	assert.Assert(t, strings.Contains(refusal(t, c.RemovePool(t.Context(), "lab"), 409), `"a"`))
	_, err = c.RemoveNetwork(t.Context(), "a")
	assert.NilError(t, err)

	_, err = s.Txn().Put(s.Keys.HostFacts("h2"), record.HostFacts{Routes: []string{"10.96.4.0/24", "10.97.0.0/16"}}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return len(c.hostRoutes()) == 2 })
	found, err := c.CheckPool(t.Context(), "lab")
	assert.NilError(t, err)
	assert.Equal(t, found[0].Text, "10.96.0.0/16 meets the route to 10.96.4.0/24 of host h2")
	_, err = c.AddPool(t.Context(), record.Pool{Name: "more", CIDR: "10.97.0.0/16"})
	assert.Assert(t, strings.Contains(refusal(t, err, 409), "10.97.0.0/16 of host h2"))
	_, err = c.AddPool(t.Context(), record.Pool{Name: "lab", CIDR: "10.98.0.0/16"})
	refusal(t, err, 409)
	_, err = c.AddPool(t.Context(), record.Pool{Name: "-", CIDR: "banana"})
	text := refusal(t, err, 400)
	assert.Assert(t, strings.Contains(text, `name "-"`) && strings.Contains(text, `"banana"`), text)
	assert.NilError(t, c.RemovePool(t.Context(), "lab"))
	refusal(t, c.RemovePool(t.Context(), "lab"), 404)
	_, err = c.CheckPool(t.Context(), "lab")
	refusal(t, err, 404)
}

func TestDoctorAsksEveryPart(t *testing.T) {
	c, h, s := netFleet(t)
	h.mu.Lock()
	h.findings["h1"+hostview.AgentPlugin+hostview.PathCheck] = []finding.Finding{{Part: "routes", Subject: "10.208.0.0/26", Text: "the route is missing"}}
	h.findings["h2"+hostview.AgentCheck] = []finding.Finding{{Part: "networks", Subject: "front", Text: "it is missing", Hint: "by hand"}}
	h.mu.Unlock()
	_, err := s.Txn().Put(s.Keys.Rule("r1"), record.Rule{From: "gone", To: "gone"}).Put(s.Keys.HostSpec("h3"), record.Host{ID: "h3", Name: "h3"}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return c.findHost("h3") != "" })
	show := func(r api.DoctorReport) string {
		var out []string
		for _, f := range r.Findings {
			out = append(out, fmt.Sprintf("%s %s %s %v", f.Host, f.Part, f.Subject, f.Fixed))
		}
		return strings.Join(out, "\n")
	}
	r, err := c.Doctor(t.Context(), api.DoctorRequest{})
	assert.NilError(t, err)
	assert.DeepEqual(t, r.Hosts, []string{"h1", "h2", "h3"})
	assert.Equal(t, show(r), " rules r1 false\nh1 routes 10.208.0.0/26 false\nh2 networks front false\nh3 host h3 false")
	r, err = c.Doctor(t.Context(), api.DoctorRequest{Fix: true})
	assert.NilError(t, err)
	assert.Equal(t, show(r), " rules r1 true\nh1 routes 10.208.0.0/26 true\nh2 networks front false\nh3 host h3 false")
	r, err = c.Doctor(t.Context(), api.DoctorRequest{Hosts: []string{"h2"}})
	assert.NilError(t, err)
	assert.Equal(t, show(r), "h2 networks front false")
	_, err = c.Doctor(t.Context(), api.DoctorRequest{Hosts: []string{"h9"}})
	refusal(t, err, 404)
}

func TestTraceAsksTheHostsOnTheWay(t *testing.T) {
	c, h, s := netFleet(t)
	k := s.Keys
	made, err := c.CreateNetwork(t.Context(), api.NetworkRequest{Name: "a"})
	assert.NilError(t, err)
	id := made.Network.ID
	_, err = s.Txn().Put(k.Endpoint(id, "10.208.0.5"), record.Endpoint{Host: "h1", Container: "left"}).
		Put(k.Endpoint(id, "10.208.0.70"), record.Endpoint{Host: "h2", Container: "right"}).Commit(t.Context())
	assert.NilError(t, err)
	from, to := netip.MustParseAddr("10.208.0.5"), netip.MustParseAddr("10.208.0.70")
	yes := &hostview.Verdict{Open: true, Reason: "both are in network a"}
	h.mu.Lock()
	h.views["h1"] = hostview.View{
		From: &hostview.Endpoint{Addresses: []netip.Addr{from}, Link: "ck1"}, Route: &hostview.Route{Kind: "unicast", Link: "eth0"},
		Way: &hostview.Way{Host: "h2", Carrier: "direct"}, Leave: yes,
	}
	h.views["h2"] = hostview.View{Enter: yes}
	h.mu.Unlock()
	r, err := c.Trace(t.Context(), trace.Query{From: "left", To: "right", Port: 80})
	assert.NilError(t, err)
	assert.Equal(t, r.Broken().Kind, trace.HopEndpoint)
	assert.Equal(t, r.Broken().Host, "h2")
	want := []hostview.Question{{From: from, To: to, Protocol: "tcp", Port: 80}}
	assert.DeepEqual(t, h.asked["h1"], want, cmpAddr)
	assert.DeepEqual(t, h.asked["h2"], want, cmpAddr)
	_, err = c.Trace(t.Context(), trace.Query{From: "left", Protocol: "sctp"})
	refusal(t, err, 400)
}
