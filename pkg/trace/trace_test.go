package trace

import (
	"net/netip"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	web1 = "10.208.0.5"
	db1  = "10.208.0.70"
	db2  = "10.208.0.71"
	vip  = "10.208.0.200"
)

// shop is a fleet of two hosts: web on h1, two replicas of db on h2, and a
// network of its own that one container is on.
func shop() Fleet {
	name := func(service, replica, a string) record.NameRecord {
		return record.NameRecord{App: "shop", Service: service, Replica: replica, Networks: map[string]record.NamedAddress{"n1": {Address: a}}}
	}
	return Fleet{
		Hosts: map[string]Host{
			"id1": {ID: "id1", Name: "h1", Address: "192.0.2.1", Up: true},
			"id2": {ID: "id2", Name: "h2", Address: "192.0.2.2", Up: true},
		},
		Networks: map[string]record.Network{
			"n1": {ID: "n1", Name: "shop_default", Subnet: "10.208.0.0/20"},
			"n2": {ID: "n2", Name: "lab", Subnet: "10.208.16.0/20"},
		},
		Endpoints: map[string]map[netip.Addr]record.Endpoint{
			"n1": {addr(web1): {Host: "id1"}, addr(db1): {Host: "id2"}, addr(db2): {Host: "id2"}},
			"n2": {addr("10.208.16.9"): {Host: "id1", Container: "probe"}},
		},
		Services: map[string]map[netip.Addr]record.Service{"n1": {addr(vip): {App: "shop", Service: "db", Address: vip}}},
		Names: map[string]map[string]record.NameRecord{
			"id1": {"t1": name("web", "shop-web-1", web1)},
			"id2": {"t2": name("db", "shop-db-1", db1), "t3": name("db", "shop-db-2", db2)},
		},
		Attached: map[string]map[string]record.Attached{},
		Blocks: map[string]map[netip.Prefix]record.Block{"n1": {
			netip.MustParsePrefix("10.208.0.0/26"): {Host: "id1"}, netip.MustParsePrefix("10.208.0.64/26"): {Host: "id2"},
		}},
		Tasks: []Task{
			{Name: "shop-web-1", App: "shop", Service: "web", Host: "id1", State: "running", Addresses: map[string]string{"n1": web1}},
			{Name: "shop-db-1", App: "shop", Service: "db", Host: "id2", State: "running", Health: "healthy", Addresses: map[string]string{"n1": db1}},
			{Name: "shop-db-2", App: "shop", Service: "db", Host: "id2", State: "running", Health: "healthy", Addresses: map[string]string{"n1": db2}},
		},
	}
}

// well answers as hosts do on which nothing is wrong.
func well(f Fleet, a Asked) Answer {
	q := a.Question
	v := &hostview.View{Host: a.Host, Route: &hostview.Route{Kind: "unicast", Link: "eth0", Gateway: "192.0.2.2", Destination: "10.208.0.64/26"}}
	for network, endpoints := range f.Endpoints {
		for at, e := range endpoints {
			if e.Host != a.Host {
				continue
			}
			x := &hostview.Endpoint{Network: network, Addresses: []netip.Addr{at}, Link: "ck" + e.Host}
			switch at {
			case q.From:
				v.From, v.Leave = x, &hostview.Verdict{Open: true, Reason: "both are in network shop_default"}
			case q.To:
				v.To, v.Enter = x, &hostview.Verdict{Open: true, Reason: "both are in network shop_default"}
			}
		}
	}
	if q.To == addr(vip) {
		v.Balanced, v.Backends = true, []netip.Addr{addr(db1), addr(db2)}
	}
	if v.From != nil && v.To == nil {
		v.Way = &hostview.Way{Host: "id2", Address: "192.0.2.2", Carrier: "direct", Link: "eth0"}
	}
	return Answer{View: v}
}

// follow asks all that must be asked; spoil makes an answer what it should not
// be.
func follow(f Fleet, q Query, spoil func(Asked, *Answer)) Result {
	p := Prepare(f, q)
	answers := map[Asked]Answer{}
	for _, a := range p.Questions() {
		answer := well(f, a)
		if spoil != nil {
			spoil(a, &answer)
		}
		answers[a] = answer
	}
	return Follow(f, p, answers)
}

func kinds(r Result) string {
	var out []string
	for _, h := range r.Hops {
		out = append(out, h.Kind+":"+h.State)
	}
	return strings.Join(out, " ")
}

func TestAWayWithNothingInIt(t *testing.T) {
	r := follow(shop(), Query{From: "shop-web-1", To: "db.shop", Port: 5432}, nil)
	assert.Assert(t, r.Broken() == nil)
	assert.Equal(t, kinds(r), "name:ok name:ok service:ok endpoint:ok rule:ok route:ok carrier:ok rule:ok endpoint:ok port:unknown")
	assert.DeepEqual(t, r.Same, []string{"shop-db-2"})
	assert.Equal(t, r.Protocol, "tcp")
}

func TestEveryHopThatCanBreak(t *testing.T) {
	on := func(host string, f func(*hostview.View)) func(Asked, *Answer) {
		return func(a Asked, answer *Answer) {
			if a.Host == host && answer.View != nil {
				f(answer.View)
			}
		}
	}
	for name, c := range map[string]struct {
		from, to string
		fleet    func(*Fleet)
		spoil    func(Asked, *Answer)
		kind     string
		host     string
		says     []string
		hint     string
	}{
		"a name that nobody has": {to: "nobody", kind: HopName, says: []string{"nothing in this fleet is called nobody"}, hint: "docker clocker ps"},
		"a host that is none":    {to: "host:h9", kind: HopName, says: []string{"there is no host h9"}, hint: "host ls"},
		"no healthy replica": {to: "db.shop", kind: HopName, fleet: func(f *Fleet) {
			f.Tasks[1].Health, f.Tasks[2].State, f.Tasks[2].Error = "unhealthy", "failed", "exit code 1"
		}, says: []string{"no replica of db.shop can be reached", "shop-db-1 on host h2 is unhealthy", "shop-db-2 on host h2 is failed: exit code 1"}, hint: "docker clocker ps shop"},
		"a replica without a host": {to: "shop-db-1", kind: HopName, fleet: func(f *Fleet) {
			f.Tasks[1].Host, f.Tasks[1].Error = "", "no host has port 5432 free"
		}, says: []string{"no host has port 5432 free"}},
		"a service of two applications": {to: "db", kind: HopName, fleet: func(f *Fleet) {
			f.Tasks = append(f.Tasks, Task{Name: "x", App: "blog", Service: "db", Host: "id1"})
		}, says: []string{"several applications"}, hint: "db.blog or db.shop"},
		"an address that nothing has": {to: "10.208.0.99", kind: HopName, says: []string{"10.208.0.99 is in network shop_default, and nothing has that address"}},
		"a service address that the host does not know": {to: "db.shop", kind: HopService, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Balanced = false }), says: []string{vip}, hint: "doctor --fix --host h1"},
		"a service address that leads nowhere": {to: "db.shop", kind: HopService, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Backends = nil }), says: []string{"leads to no replica"}},
		"a service address that leaves a replica out": {to: "db.shop", kind: HopService, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Backends = v.Backends[:min(1, len(v.Backends))] }), says: []string{"not to " + db2}},
		"closed where it begins": {to: "shop-db-1", kind: HopRule, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Leave = &hostview.Verdict{Reason: "closed"} }), says: []string{"closed"}},
		"closed to another network": {from: "probe", to: "shop-db-1", kind: HopRule, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Leave = &hostview.Verdict{Reason: "closed to other networks"} }),
			says:  []string{"closed to other networks"}, hint: "docker clocker network rule add lab shop_default:5432/tcp"},
		"no route": {to: "shop-db-1", kind: HopRoute, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Route = &hostview.Route{Kind: "unreachable"} }), says: []string{"unreachable"}, hint: "doctor --fix"},
		"a block that nobody owns": {to: "shop-db-1", kind: HopRoute, host: "h1", fleet: func(f *Fleet) { f.Blocks = nil },
			spoil: on("id1", func(v *hostview.View) { v.Route = &hostview.Route{Kind: "unreachable"} }), says: []string{"no host owns the block"}},
		"a carrier that is down": {to: "shop-db-1", kind: HopCarrier, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Way.Problem = "no handshake for 3 minutes" }), says: []string{"carrier direct to host h2", "no handshake"}},
		"no carrier": {to: "shop-db-1", kind: HopCarrier, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.Way = nil }), says: []string{"no way to host h2"}},
		"a host that is away": {to: db1, kind: HopHost, host: "h2", fleet: func(f *Fleet) {
			h := f.Hosts["id2"]
			h.Up = false
			f.Hosts["id2"] = h
		}, spoil: func(a Asked, answer *Answer) {
			if a.Host == "id2" {
				*answer = Answer{Error: "not heard of"}
			}
		}, says: []string{"does not answer"}},
		"a replica on a host that is away": {to: "shop-db-1", kind: HopName, host: "h2", fleet: func(f *Fleet) {
			h := f.Hosts["id2"]
			h.Up = false
			f.Hosts["id2"] = h
		}, says: []string{"is on host h2, which does not answer"}},
		"a plugin that does not answer": {to: "shop-db-1", kind: HopHost, host: "h2", spoil: func(a Asked, answer *Answer) {
			if a.Host == "id2" {
				*answer = Answer{Error: "connection refused"}
			}
		}, says: []string{"network plugin does not answer: connection refused"}, hint: "docker plugin ls"},
		"a source that is gone": {to: "shop-db-1", kind: HopEndpoint, host: "h1",
			spoil: on("id1", func(v *hostview.View) { v.From = nil }), says: []string{"shop-web-1", web1}},
		"closed where it ends": {to: "shop-db-1", kind: HopRule, host: "h2",
			spoil: on("id2", func(v *hostview.View) { v.Enter = &hostview.Verdict{Reason: "not on it"} }), says: []string{"not on it"}},
		"an endpoint that is missing": {to: "shop-db-1", kind: HopEndpoint, host: "h2",
			spoil: on("id2", func(v *hostview.View) { v.To = nil }), says: []string{"shop-db-1", "no such endpoint"}},
		"a link that is down": {to: "shop-db-1", kind: HopEndpoint, host: "h2",
			spoil: on("id2", func(v *hostview.View) { v.To.Problem = "its link ck1 is down" }), says: []string{"its link ck1 is down"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := shop()
			if c.fleet != nil {
				c.fleet(&f)
			}
			if c.from == "" {
				c.from = "shop-web-1"
			}
			r := follow(f, Query{From: c.from, To: c.to, Port: 5432}, c.spoil)
			b := r.Broken()
			assert.Assert(t, b != nil, "%+v", r.Hops)
			assert.Equal(t, b.Kind, c.kind, b.Text)
			assert.Equal(t, b.Host, c.host, b.Text)
			for _, s := range c.says {
				assert.Assert(t, strings.Contains(b.Text, s), b.Text)
			}
			assert.Assert(t, strings.Contains(b.Hint, c.hint), b.Hint)
			assert.Equal(t, *b, r.Hops[len(r.Hops)-1], "nothing follows what is broken")
		})
	}
}

func TestOfSeveralReplicasTheBrokenOneIsShown(t *testing.T) {
	r := follow(shop(), Query{From: "shop-web-1", To: "db.shop"}, func(a Asked, answer *Answer) {
		if a.Host == "id2" && a.Question.To == addr(db2) {
			answer.View.To = nil
		}
	})
	assert.Assert(t, r.Broken() != nil)
	assert.Assert(t, strings.Contains(r.Broken().Text, "shop-db-2"), r.Broken().Text)
	assert.DeepEqual(t, r.Same, []string{"shop-db-1"})
}

func TestMachinesAndOutside(t *testing.T) {
	f := shop()
	f.Attached["n1"] = map[string]record.Attached{"id1": {Host: "id1", Network: "n1"}}
	f.Endpoints["n1"][addr("10.208.0.9")] = record.Endpoint{Host: "id1", Machine: true}
	r := follow(f, Query{From: "host:h1", To: "shop-db-1"}, nil)
	assert.Assert(t, r.Broken() == nil, "%+v", r.Hops)
	assert.Assert(t, strings.Contains(r.Hops[0].Text, "10.208.0.9"), "a machine that is on the network comes from there: %s", r.Hops[0].Text)

	r = follow(shop(), Query{From: "host:h1", To: "shop-web-1", Port: 80}, func(a Asked, answer *Answer) {
		answer.View.Leave = &hostview.Verdict{Reason: "closed to the host itself"}
	})
	assert.Equal(t, r.Broken().Hint, "docker clocker network attach shop_default --host h1")

	r = follow(shop(), Query{From: "shop-web-1", To: "198.51.100.7", Port: 443}, nil)
	assert.Assert(t, r.Broken() == nil)
	assert.Equal(t, r.Hops[len(r.Hops)-1].State, StateUnknown)

	r = follow(shop(), Query{From: "198.51.100.7", To: "shop-web-1", Port: 80}, func(_ Asked, answer *Answer) {
		answer.View.Enter = &hostview.Verdict{Reason: "closed to 198.51.100.7"}
	})
	assert.Equal(t, r.Broken().Kind, HopRule)
	assert.Equal(t, r.Broken().Host, "h1")
}

func TestContainersAreFoundByName(t *testing.T) {
	f := shop()
	r := follow(f, Query{From: "probe", To: "host:h2"}, nil)
	assert.Assert(t, strings.Contains(r.Hops[0].Text, "10.208.16.9 in network lab on host h1"), r.Hops[0].Text)
	f.Endpoints["n2"][addr("10.208.16.11")] = record.Endpoint{Host: "id2"}
	f.Names["id2"]["guest"] = record.NameRecord{Replica: "other", Networks: map[string]record.NamedAddress{"n2": {Address: "10.208.16.11"}}}
	r = follow(f, Query{From: "other", To: "host:h1"}, nil)
	assert.Assert(t, strings.Contains(r.Hops[0].Text, "other is a container with 10.208.16.11"), r.Hops[0].Text)
	f.Endpoints["n2"][addr("10.208.16.10")] = record.Endpoint{Host: "id2", Container: "probe"}
	r = follow(f, Query{From: "probe", To: "host:h2"}, nil)
	assert.Assert(t, strings.Contains(r.Broken().Text, "hosts h1, h2"), r.Broken().Text)
}

func TestFamiliesMustMatch(t *testing.T) {
	f := shop()
	f.Endpoints["n2"] = map[netip.Addr]record.Endpoint{addr("fd00::5"): {Host: "id1", Container: "six"}}
	r := follow(f, Query{From: "six", To: "shop-db-1"}, nil)
	assert.Equal(t, r.Broken().Kind, HopName)
	assert.Assert(t, strings.Contains(r.Broken().Text, "no addresses of one family"), r.Broken().Text)
}
