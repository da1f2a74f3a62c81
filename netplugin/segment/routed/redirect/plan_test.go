package redirect

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

var prefix, addr = netip.MustParsePrefix, netip.MustParseAddr

// same compares lists of what has unexported fields.
func same[T comparable](t *testing.T, got, want []T) {
	t.Helper()
	assert.Assert(t, len(got) == len(want), "%v is not %v", got, want)
	for i := range got {
		assert.Assert(t, got[i] == want[i], "%v is not %v", got, want)
	}
}

func TestPlan(t *testing.T) {
	s := policy.State{
		Networks: []policy.Network{
			{ID: "plain", Subnet: prefix("10.208.0.0/20")},
			{ID: "balanced", Subnet: prefix("10.208.16.0/20")},
			{ID: "frames", Subnet: prefix("10.208.32.0/20"), Bridge: "ckb1"},
		},
		Endpoints: []policy.Endpoint{
			{Link: "ck1", Network: "plain", Address: addr("10.208.0.5")},
			{Link: "ck2", Network: "plain", Address: addr("10.208.0.6"), Ports: []policy.Port{{Protocol: 6, HostPort: 80, Port: 80}}},
			{Link: "ck3", Network: "plain", Address: addr("10.208.0.7")}, // about to publish
			{Link: "ck4", Network: "plain", Address: addr("10.208.0.8")}, // has no route yet
			{Link: "ck5", Network: "balanced", Address: addr("10.208.16.5")},
			{Link: "ck6", Network: "frames", Address: addr("10.208.32.5")},
		},
	}
	routes := []Route{
		{Dst: prefix("10.208.0.5/32"), Link: 5}, {Dst: prefix("10.208.0.6/32"), Link: 6}, {Dst: prefix("10.208.0.7/32"), Link: 7},
		{Dst: prefix("10.208.16.5/32"), Link: 8}, {Dst: prefix("10.208.32.5/32"), Link: 9},
		{Dst: prefix("10.208.1.0/26"), Link: 2, Gateway: addr("192.0.2.2"), Ethernet: true},
		{Dst: prefix("10.208.1.9/32"), Link: 2, Gateway: addr("192.0.2.3"), Ethernet: true},
		{Dst: prefix("10.208.2.0/26"), Link: 3, Gateway: addr("192.0.2.4"), Ethernet: false},           // no hardware addresses
		{Dst: prefix("10.208.3.0/26"), Link: 2, Gateway: addr("192.0.2.5"), Ethernet: true, MTU: 1400}, // may be too narrow
		{Dst: prefix("10.208.17.0/26"), Link: 2, Gateway: addr("192.0.2.2"), Ethernet: true},           // of a network left out
		{Dst: prefix("198.51.100.0/24"), Link: 2, Gateway: addr("192.0.2.9"), Ethernet: true},          // of none
	}
	ends, ways, entries := plan(s, map[string]bool{"balanced": true}, map[string]bool{"ck3": true}, routes)
	same(t, ends, []End{{"plain", addr("10.208.0.5"), 5}})
	same(t, ways, []Way{{"plain", prefix("10.208.1.0/26"), 2, addr("192.0.2.2")}, {"plain", prefix("10.208.1.9/32"), 2, addr("192.0.2.3")}})
	same(t, entries, []int{2})
	// Without an endpoint here nothing is redirected, nor looked at.
	s.Endpoints = nil
	_, ways, entries = plan(s, nil, nil, routes)
	assert.Check(t, cmp.Len(ways, 0))
	assert.Check(t, cmp.Len(entries, 0))
}

func TestTranslated(t *testing.T) {
	top := topology.New()
	top.Services["vip"] = map[netip.Addr]record.Service{addr("10.208.0.9"): {}}
	top.Published["tcp_80"] = record.Published{Network: "mesh"}
	got := translated(top)
	assert.Check(t, got["vip"] && got["mesh"] && !got["other"], "%v", got)
}
