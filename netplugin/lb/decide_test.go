package lb

import (
	"fmt"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// world is a fleet of two hosts with a service of so many replicas, half of
// them on each, and a port of every host.
func world(replicas int) *topology.Topology {
	t := topology.New()
	t.Networks["n"] = record.Network{ID: "n", Subnet: "10.208.0.0/16"}
	t.Networks["m"] = record.Network{ID: "m", Subnet: "10.209.0.0/16", Subnet6: "fd00::/64"}
	t.Services["n"] = map[netip.Addr]record.Service{netip.MustParseAddr("10.208.255.1"): {App: "a", Service: "web", Address: "10.208.255.1"}}
	t.Published["tcp_8080"] = record.Published{App: "a", Service: "web", Network: "n", Protocol: "tcp", HostPort: 8080, Port: 80}
	for i, h := range []string{"h1", "h2"} {
		t.Underlays[h] = record.Underlay{Host: h, Address: fmt.Sprintf("192.0.2.%d", i+1)}
		t.Names[h] = map[string]record.NameRecord{}
	}
	for i := range replicas {
		t.Names[fmt.Sprint("h", i%2+1)][fmt.Sprint(i)] = record.NameRecord{
			App: "a", Service: "web", Networks: map[string]record.NamedAddress{"n": {Address: replica(i).String()}},
		}
	}
	return t
}

func TestDecide(t *testing.T) {
	top := world(4)
	top.Names["h2"]["other"] = record.NameRecord{App: "a", Service: "db", Networks: map[string]record.NamedAddress{"n": {Address: "10.208.9.9"}}}
	top.Names["h2"]["elsewhere"] = record.NameRecord{App: "a", Service: "web", Networks: map[string]record.NamedAddress{"m": {Address: "10.209.9.9"}}}
	top.Rules["r"] = record.Rule{From: "m", To: "n"}
	s := Decide(top, "h1")
	assert.Equal(t, len(s.Services[netip.MustParseAddr("10.208.255.1")].Replicas), 4)
	assert.Equal(t, len(s.Local), 2)
	p := s.Ports[Socket{"tcp", 8080}]
	assert.Equal(t, len(p.Replicas), 4)
	assert.Equal(t, len(p.Here), 2)
	assert.Equal(t, p.Hosts[replica(1)], netip.MustParseAddr("192.0.2.2"))
	assert.Equal(t, fmt.Sprint(s.Networks["n"].From), "[10.208.0.0/16 10.209.0.0/16]")
	_, self := s.Hosts[netip.MustParseAddr("192.0.2.1")]
	assert.Assert(t, !self)
	// A port on an address that cannot be read is answered nowhere.
	top.Published["tcp_8080"] = record.Published{App: "a", Service: "web", Network: "n", Protocol: "tcp", HostIP: "nonsense", HostPort: 8080, Port: 80}
	assert.Equal(t, len(Decide(top, "h1").Ports), 0)
}

// BenchmarkChange is what one replica of a thousand costs, without the kernel.
func BenchmarkChange(b *testing.B) {
	top := world(1000)
	state := settle(NewState(), Decide(top, "h1"))
	for b.Loop() {
		gone := top.Names["h1"]["0"]
		delete(top.Names["h1"], "0")
		want := settle(state, Decide(top, "h1"))
		if c, whole := change(state, want); whole || len(c.Add)+len(c.Remove) > 20 {
			b.Fatalf("%d elements change", len(c.Add)+len(c.Remove))
		}
		top.Names["h1"]["0"] = gone
	}
}
