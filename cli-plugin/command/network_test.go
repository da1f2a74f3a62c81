package command

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/trace"
)

func networks() answers {
	front := api.Network{Network: record.Network{
		ID: "0123456789ab", Name: "front", Subnet: "10.208.0.0/20", Gateway: "10.208.0.1", Subnet6: "fd12:3456:789a::/64", Segment: "routed",
		Carrier: "auto", MTU: 1500, Labels: map[string]string{"tier": "1"}, CreatedAt: now.AddDate(0, 0, -1),
	}, Hosts: 2, Endpoints: 4}
	shop := api.Network{Network: record.Network{
		ID: "ba9876543210", Name: "shop_default", App: "shop", Subnet: "10.208.16.0/20", Segment: "bridged", Carrier: "vxlan", MTU: 1450, Internal: true,
	}, Hosts: 1, Endpoints: 1}
	lab := api.Network{Network: record.Network{ID: "feedfacecafe", Name: "lab", Subnet: "192.0.2.0/24", Driver: "macvlan", MTU: 1500}, Hosts: 2}
	detail := api.NetworkDetail{
		Network: front,
		On: []api.NetworkHost{
			{Name: "h1", Address: "10.88.0.11", Up: true, Present: true, Attached: true, MTU: 1500},
			{Name: "h2", Address: "10.88.0.12", Up: true, Present: true, MTU: 1500},
			{Name: "h3", Address: "10.88.0.13"},
			{Name: "h4", Address: "10.88.0.14", Up: true, Error: "make: network name front is taken on this engine"},
		},
		InUse: []api.NetworkEndpoint{
			{Address: "10.208.0.5", Host: "h1", Container: "shop-web-1", App: "shop", Service: "web", Healthy: true},
			{Address: "10.208.0.6", Host: "h1", Machine: true},
			{Address: "10.208.0.70", Host: "h2", Container: "shop-web-2", App: "shop", Service: "web"},
			{Address: "10.208.0.71", Host: "h2", Container: "probe"},
		},
		VIPs:   []api.NetworkService{{App: "shop", Service: "web", Addresses: []string{"10.208.15.192"}}},
		Rules:  []api.Rule{{ID: "r1", Rule: record.Rule{From: "ba9876543210", To: "0123456789ab", Protocol: "tcp", Port: 80}, FromName: "shop_default", ToName: "front"}},
		Blocks: []api.NetworkBlock{{CIDR: "10.208.0.0/26", Host: "h1", State: "owned"}, {CIDR: "10.208.0.64/26", Host: "h2", State: "owned"}, {CIDR: "10.208.15.192/26", State: "services"}},
	}
	return answers{
		"GET /v1/networks":                   []api.Network{front, lab, shop},
		"GET /v1/networks/front":             detail,
		"GET /v1/networks/none":              notThere("network none"),
		"DELETE /v1/networks/front":          &api.CallError{Status: 409, Body: api.Error{Message: "network front is in use:", Problems: []string{"on host h1: shop-web-1"}}},
		"DELETE /v1/networks/lab":            api.NetworkChange{Network: lab.Network, Behind: []api.HostBehind{{Host: "h3", Down: true, Reason: "does not answer; it follows when it is back"}}},
		"DELETE /v1/networks/none":           notThere("network none"),
		"PUT /v1/networks/front/hosts/h1":    api.Attachment{Network: "front", Host: "h1", Addresses: []string{"10.208.0.6"}},
		"PUT /v1/networks/front/hosts/h3":    api.Attachment{Network: "front", Host: "h3", Reason: "host h3 does not answer; it follows when it is back"},
		"DELETE /v1/networks/front/hosts/h1": struct{}{},
		"GET /v1/rules":                      detail.Rules,
		"DELETE /v1/rules/r1":                struct{}{},
		"DELETE /v1/rules/r9":                notThere("rule r9"),
		"GET /v1/pools":                      []api.Pool{{Pool: record.Pool{Name: "default", CIDR: "10.208.0.0/12", SubnetBits: 20}, Networks: 2, Subnets: 256, Free: 254}},
		"GET /v1/pools/default":              api.PoolDetail{Pool: api.Pool{Pool: record.Pool{Name: "default", CIDR: "10.208.0.0/12", SubnetBits: 20}}, Taken: []api.PoolNetwork{{ID: "0123456789ab", Name: "front", Subnet: "10.208.0.0/20", Size: 4096, Addresses: 4}}},
		"GET /v1/pools/default/check":        []finding.Finding{{Part: "pools", Subject: "default", Text: "10.208.0.0/12 meets the route to 10.210.0.0/16 of host h1", Hint: "subnets there are left out"}},
		"DELETE /v1/pools/default":           &api.CallError{Status: 409, Body: api.Error{Message: "pool default is in use"}},
	}
}

func TestNetworkListsAndTheirFormats(t *testing.T) {
	m := newMachine(t)
	m.serve(networks())
	for name, args := range map[string]string{
		"network-ls":             "network ls",
		"network-ls-filter":      "network ls --filter name=a --filter driver=macvlan --format {{.Name}}",
		"network-ls-label":       "network ls -q --filter label=tier=1",
		"network-ls-json":        "network ls --format json --filter app=shop",
		"network-inspect":        "network inspect front",
		"network-inspect-format": "network inspect --format {{.Subnet}} front",
		"network-topology":       "network inspect --topology front",
		"network-topology-dot":   "network inspect --topology --format dot front",
		"network-topology-json":  "network inspect --topology --format json front",
		"network-rule-ls":        "network rule ls",
		"pool-ls":                "pool ls",
		"pool-inspect":           "pool inspect default",
	} {
		t.Run(name, func(t *testing.T) {
			r := m.run(strings.Fields(args)...)
			assert.Equal(t, r.code, ExitOK, r.err)
			assert.Equal(t, r.err, "")
			golden.Assert(t, r.out, name+".golden")
		})
	}
}

func TestNetworkCreateSaysWhatTheFlagsSay(t *testing.T) {
	m := newMachine(t)
	var got api.NetworkRequest
	m.serve(answers{"POST /v1/networks": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(&got)
		writeJSON(w, api.NetworkChange{Network: record.Network{ID: "0123456789ab", Name: got.Name, Subnet: "10.40.0.0/16"}, Behind: []api.HostBehind{{Host: "h3", Down: true, Reason: "does not answer; it follows when it is back"}}})
	})})
	r := m.run(strings.Fields("network create -d clocker --subnet 10.40.0.0/16,fd00::/64 --ip-range 10.40.1.0/24 --gateway 10.40.0.254 --aux-address a=10.40.0.9 " +
		"--ipv6 --internal --attachable -o k=v --label l=1 --pool lab --size 24 --segment bridged --carrier vxlan --mtu 1400 --dns 192.0.2.53 --dns-search example.org front")...)
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Equal(t, r.out, "0123456789ab\n")
	assert.Assert(t, strings.Contains(r.err, "host h3 does not answer; it follows when it is back"), r.err)
	assert.DeepEqual(t, got, api.NetworkRequest{
		Name: "front", Driver: "clocker", Subnets: []string{"10.40.0.0/16", "fd00::/64"}, Ranges: []string{"10.40.1.0/24"}, Gateways: []string{"10.40.0.254"},
		Aux: map[string]string{"a": "10.40.0.9"}, IPv6: true, Internal: true, Options: map[string]string{"k": "v"}, Labels: map[string]string{"l": "1"},
		Pool: "lab", Size: 24, Segment: "bridged", Carrier: "vxlan", MTU: 1400, DNS: []string{"192.0.2.53"}, Search: []string{"example.org"},
	})
	r = m.run("network", "create", "--ipv4=false", "--ipv6", "six")
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Assert(t, got.NoIPv4 && got.IPv6)
	r = m.run("network", "create", "-o", "=v", "--label", "=x", "bad")
	assert.Equal(t, r.code, ExitInvalid)
	assert.Assert(t, strings.Contains(r.err, "option") && strings.Contains(r.err, "label"), r.err)
}

func TestAHostThatAnswersAndDoesNotFollowIsAFailure(t *testing.T) {
	m := newMachine(t)
	m.serve(answers{"POST /v1/networks": api.NetworkChange{Network: record.Network{ID: "x", Name: "front"}, Behind: []api.HostBehind{{Host: "h2", Reason: "make: full"}}}})
	r := m.run("network", "create", "front")
	assert.Equal(t, r.code, ExitFailed)
	assert.Assert(t, strings.Contains(r.err, "host h2: make: full"), r.err)
}

func TestNetworkVerbs(t *testing.T) {
	m := newMachine(t)
	m.serve(networks())
	for _, c := range []struct {
		args string
		code int
		out  string
		says []string
	}{
		{"network rm lab", ExitOK, "lab\n", []string{"host h3 does not answer"}},
		{"network rm front lab", ExitConflict, "lab\n", []string{"network front is in use:", "on host h1: shop-web-1"}},
		{"network rm none", ExitNotFound, "", []string{"network none"}},
		{"network rm -f none", ExitOK, "", nil},
		{"network inspect none", ExitNotFound, "[]\n", []string{"network none"}},
		{"network inspect --topology --format svg front", ExitInvalid, "", []string{`"json" or "dot"`}},
		{"network ls --filter colour=red", ExitInvalid, "", []string{"there are name, id"}},
		{"network attach front --host h1", ExitOK, "10.208.0.6\n", []string{"host h1 is on network front"}},
		{"network attach front --host h1,h3", ExitFailed, "10.208.0.6\n", []string{"host h3 does not answer"}},
		{"network attach front", ExitInvalid, "", []string{"--host"}},
		{"network detach front --host h1", ExitOK, "", []string{"no longer on network front"}},
		{"network rule rm r1", ExitOK, "r1\n", nil},
		{"network rule rm r9", ExitNotFound, "", []string{"rule r9"}},
		{"network rule add a b:0", ExitInvalid, "", []string{"is not a port"}},
		{"network rule add a b/sctp", ExitInvalid, "", []string{"is not tcp, udp or icmp"}},
		{"network prune", ExitOK, "lab\n", []string{"host h3"}},
		{"pool rm default", ExitConflict, "", []string{"pool default is in use"}},
		{"pool check", ExitFailed, "", nil},
	} {
		r := m.run(strings.Fields(c.args)...)
		assert.Equal(t, r.code, c.code, "%s: %s", c.args, r.err)
		if c.out != "" || len(c.says) > 0 && c.code != ExitOK {
			assert.Equal(t, r.out, c.out, c.args)
		}
		for _, s := range c.says {
			assert.Assert(t, strings.Contains(r.err, s), "%s: %s", c.args, r.err)
		}
	}
}

func TestTarget(t *testing.T) {
	for s, want := range map[string][3]string{
		"web.shop":         {"web.shop", "0", ""},
		"web.shop:80":      {"web.shop", "80", "tcp"},
		"web.shop:53/udp":  {"web.shop", "53", "udp"},
		"web/icmp":         {"web", "0", "icmp"},
		"host:h1":          {"host:h1", "0", ""},
		"host:h1:22":       {"host:h1", "22", "tcp"},
		"10.0.0.1:80/TCP":  {"10.0.0.1", "80", "tcp"},
		"fd00::5":          {"fd00::5", "0", ""},
		"[fd00::5]":        {"fd00::5", "0", ""},
		"[fd00::5]:53/udp": {"fd00::5", "53", "udp"},
		"[fd00::5":         {},
		"web:http":         {},
		"web:70000":        {},
		":80":              {},
		"web:80/icmp":      {},
		"web/sctp":         {},
		"":                 {},
	} {
		to, port, protocol, err := target(s)
		if want[0] == "" {
			assert.Assert(t, err != nil, s)
			continue
		}
		assert.NilError(t, err, s)
		assert.DeepEqual(t, [3]string{to, uintText(port), protocol}, want)
	}
}

func uintText(n uint16) string {
	b, _ := json.Marshal(n)
	return string(b)
}

func TestDoctor(t *testing.T) {
	route := api.Finding{Host: "h1", Finding: finding.Finding{Part: "routes", Subject: "10.208.0.64/26", Text: "the route is missing"}}
	away := api.Finding{Host: "h2", Finding: finding.Finding{Part: "host", Subject: "h2", Text: "the host does not answer", Hint: "start the host"}}
	mended := route
	mended.Fixed = true
	for name, c := range map[string]struct {
		args   string
		report api.DoctorReport
		code   int
		says   string
	}{
		"doctor-well":   {"doctor", api.DoctorReport{Hosts: []string{"h1", "h2"}}, ExitOK, "nothing is wrong on 2 hosts"},
		"doctor-ill":    {"doctor", api.DoctorReport{Hosts: []string{"h1", "h2"}, Findings: []api.Finding{route, away}}, ExitFailed, ""},
		"doctor-mended": {"doctor --fix", api.DoctorReport{Hosts: []string{"h1"}, Findings: []api.Finding{mended}}, ExitOK, "all of it has been mended"},
		"doctor-json":   {"doctor --format json", api.DoctorReport{Hosts: []string{"h1"}, Findings: []api.Finding{route}}, ExitFailed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			var q api.DoctorRequest
			m.serve(answers{"POST /v1/doctor": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = json.NewDecoder(r.Body).Decode(&q)
				writeJSON(w, c.report)
			})})
			r := m.run(strings.Fields(c.args)...)
			assert.Equal(t, r.code, c.code, r.err)
			assert.Assert(t, strings.Contains(r.err, c.says), r.err)
			assert.Equal(t, q.Fix, strings.Contains(c.args, "--fix"))
			golden.Assert(t, r.out, name+".golden")
		})
	}
}

func TestTrace(t *testing.T) {
	good := trace.Result{From: "shop-web-1", To: "db.shop", Protocol: "tcp", Port: 5432, Same: []string{"shop-db-2"}, Hops: []trace.Hop{
		{Kind: "name", State: "ok", Text: "shop-web-1 is a replica with 10.208.0.5 in network shop_default on host h1"},
		{Kind: "service", State: "ok", Host: "h1", Text: "service address 10.208.0.200 leads to 10.208.0.70, 10.208.0.71"},
		{Kind: "route", State: "ok", Host: "h1", Text: "route to 10.208.0.70 (10.208.0.64/26) by 10.88.0.12 on eth0"},
		{Kind: "port", State: "unknown", Text: "whether anything listens on tcp port 5432 is seen only in the container"},
	}}
	bad := good
	bad.Same, bad.Away = nil, []string{"shop-db-2 on host h3 is unhealthy"}
	bad.Hops = append(slices.Clone(good.Hops[:3]), trace.Hop{Kind: "rule", State: "broken", Host: "h2", Text: "network shop_default is closed to 10.208.0.5, which is not on it", Hint: "docker clocker network rule add lab shop_default:5432/tcp, or put both on one network"})
	for name, c := range map[string]struct {
		args   string
		result trace.Result
		code   int
	}{
		"trace-good": {"trace shop-web-1 db.shop:5432", good, ExitOK},
		"trace-bad":  {"trace shop-web-1 db.shop:5432/tcp", bad, ExitFailed},
		"trace-json": {"trace --format json shop-web-1 db.shop:5432", bad, ExitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			var q trace.Query
			m.serve(answers{"POST /v1/trace": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = json.NewDecoder(r.Body).Decode(&q)
				writeJSON(w, c.result)
			})})
			r := m.run(strings.Fields(c.args)...)
			assert.Equal(t, r.code, c.code, r.err)
			assert.Equal(t, r.err, "")
			assert.Equal(t, q, trace.Query{From: "shop-web-1", To: "db.shop", Protocol: "tcp", Port: 5432})
			golden.Assert(t, r.out, name+".golden")
		})
	}
}
