package routed

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

var (
	pfx = netip.MustParsePrefix
	adr = netip.MustParseAddr
)

// world is a fleet of three hosts and two networks.
func world() *topology.Topology {
	t := topology.New()
	for host, a := range map[string]string{"h1": "10.0.0.1", "h2": "10.0.0.2", "h3": "10.0.0.3"} {
		t.Underlays[host] = record.Underlay{Host: host, Address: a, MTU: 1500}
	}
	t.Blocks["red"] = map[netip.Prefix]record.Block{
		pfx("10.208.0.0/26"):  {Host: "h1", State: record.BlockOwned},
		pfx("10.208.0.64/26"): {Host: "h2", State: record.BlockOwned},
	}
	t.Blocks["blue"] = map[netip.Prefix]record.Block{pfx("10.208.16.0/26"): {Host: "h3", State: record.BlockOwned}}
	return t
}

var red = segment.Network{ID: "red", Subnet: pfx("10.208.0.0/20"), Gateway: adr("10.208.0.1")}

func toHost(dst, host, via string) Route {
	return Route{Dst: pfx(dst), Target: ToHost, Host: host, Via: adr(via), Carrier: "direct"}
}

var nowhere = Route{Dst: red.Subnet, Target: Nowhere}

func TestPlan(t *testing.T) {
	local := segment.Endpoint{ID: "0123456789abcdef", Network: red, Address: pfx("10.208.0.5/32")}
	toLocal := Route{Dst: pfx("10.208.0.5/32"), Target: ToLink, Link: "ck0123456789abc", Source: red.Gateway}
	cases := []struct {
		name      string
		networks  []segment.Network
		endpoints []segment.Endpoint
		change    func(*topology.Topology)
		want      []Route
	}{
		{name: "a network that is not here has no routes", want: []Route{}},
		{
			name: "other hosts' blocks lead to them", networks: []segment.Network{red},
			want: []Route{nowhere, toHost("10.208.0.64/26", "h2", "10.0.0.2")},
		},
		{
			name: "local endpoints lead to their links", networks: []segment.Network{red}, endpoints: []segment.Endpoint{local},
			want: []Route{nowhere, toLocal, toHost("10.208.0.64/26", "h2", "10.0.0.2")},
		},
		{
			name: "an address in its host's own block needs no route", networks: []segment.Network{red},
			change: func(t *topology.Topology) {
				t.Endpoints["red"] = map[netip.Addr]record.Endpoint{adr("10.208.0.70"): {Host: "h2"}}
			},
			want: []Route{nowhere, toHost("10.208.0.64/26", "h2", "10.0.0.2")},
		},
		{
			name: "an address outside its host's blocks has one", networks: []segment.Network{red},
			change: func(t *topology.Topology) {
				t.Endpoints["red"] = map[netip.Addr]record.Endpoint{
					adr("10.208.0.70"): {Host: "h3"}, adr("10.208.0.9"): {Host: "h2"}, adr("10.208.9.9"): {Host: "h2"},
				}
			},
			want: []Route{
				nowhere, toHost("10.208.0.9/32", "h2", "10.0.0.2"), toHost("10.208.0.64/26", "h2", "10.0.0.2"),
				toHost("10.208.0.70/32", "h3", "10.0.0.3"), toHost("10.208.9.9/32", "h2", "10.0.0.2"),
			},
		},
		{
			name: "the local endpoint wins", networks: []segment.Network{red}, endpoints: []segment.Endpoint{local},
			change: func(t *topology.Topology) {
				t.Endpoints["red"] = map[netip.Addr]record.Endpoint{adr("10.208.0.5"): {Host: "h2"}}
			},
			want: []Route{nowhere, toLocal, toHost("10.208.0.64/26", "h2", "10.0.0.2")},
		},
		{
			name: "a host without an underlay is left out", networks: []segment.Network{red},
			change: func(t *topology.Topology) { delete(t.Underlays, "h2") },
			want:   []Route{nowhere},
		},
		{
			name: "a block of another's subnet is left out", networks: []segment.Network{red},
			change: func(t *topology.Topology) {
				t.Blocks["red"][pfx("192.168.0.0/26")] = record.Block{Host: "h2"}
			},
			want: []Route{nowhere, toHost("10.208.0.64/26", "h2", "10.0.0.2")},
		},
		{
			name: "the lower half of a foreign network", networks: []segment.Network{red},
			change: func(t *topology.Topology) {
				t.Blocks["red"] = map[netip.Prefix]record.Block{pfx("10.208.0.0/21"): {Host: "h3", State: record.BlockEngine}}
				t.Endpoints["red"] = map[netip.Addr]record.Endpoint{adr("10.208.0.7"): {Host: "h3"}}
			},
			want: []Route{nowhere, toHost("10.208.0.0/21", "h3", "10.0.0.3")},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := world()
			if c.change != nil {
				c.change(w)
			}
			assert.DeepEqual(t, plan(place{host: "h1", networks: c.networks, endpoints: c.endpoints}, w), sorted(c.want), compareRoutes)
		})
	}
}
