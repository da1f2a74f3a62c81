package control

import (
	"net/netip"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix     { return netip.MustParsePrefix(s) }
func prefixes(s string) []netip.Prefix { return []netip.Prefix{prefix(s)} }

// records are the networks of the host in the tests: a is closed and gets out
// here, b gets out by the engine, c is internal, d is not filtered.
var records = map[string]record.Network{
	"a": {ID: "a", Name: "net-a", Egress: "plugin"},
	"b": {ID: "b", Name: "net-b", Egress: "engine"},
	"c": {ID: "c", Name: "net-c", Egress: "plugin", Internal: true},
	"d": {ID: "d", Name: "net-d", Egress: "plugin", Unfiltered: true},
}

func hostState() policy.State {
	return policy.State{
		Fleet: policy.Fleet{
			Prefixes: prefixes("10.208.0.0/12"), Open: prefixes("10.208.48.0/20"),
			Hosts:     []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")},
			Reachable: []policy.HostPort{{Host: addr("192.0.2.2"), Protocol: "tcp", Port: 8080}},
			Openings: []policy.Opening{
				{From: prefixes("10.208.0.0/20"), To: prefixes("10.208.16.0/20"), Protocol: "tcp", Port: 5432},
				{From: prefixes("10.208.16.0/20"), To: prefixes("10.208.0.0/20")},
				{From: prefixes("198.51.100.0/24"), To: prefixes("10.208.0.0/20"), Protocol: "icmp"},
			},
			Machines: []policy.Machine{{Subnets: prefixes("10.208.0.0/20"), Addresses: []netip.Addr{addr("10.208.0.9")}}},
		},
		Networks: []policy.Network{
			{ID: "a", Subnet: prefix("10.208.0.0/20"), Gateway: addr("10.208.0.1"), Egress: true},
			{ID: "b", Subnet: prefix("10.208.16.0/20"), Gateway: addr("10.208.16.1")},
			{ID: "c", Subnet: prefix("10.208.32.0/20"), Gateway: addr("10.208.32.1")},
			{ID: "d", Subnet: prefix("10.208.48.0/20"), Gateway: addr("10.208.48.1"), Unfiltered: true},
		},
		Endpoints: []policy.Endpoint{
			{Link: "cka", Network: "a", Address: addr("10.208.0.5"), Ports: []policy.Port{{Protocol: 6, HostPort: 80, Port: 8080}}},
			{Link: "ckb", Network: "b", Address: addr("10.208.16.5")},
			{Link: "ckc", Network: "c", Address: addr("10.208.32.5")},
			{Link: "ckd", Network: "d", Address: addr("10.208.48.5")},
		},
	}
}

func TestVerdicts(t *testing.T) {
	const far, near = "10.208.0.70", "10.208.0.5"
	own := map[string]bool{"192.0.2.1": true, "10.208.0.9": true, "10.208.0.1": true, "169.254.53.53": true}
	for name, c := range map[string]struct {
		from, to, protocol string
		port               uint16
		leave, enter       string
	}{
		"own network, another host":   {from: near, to: far, leave: "open: both are in network net-a"},
		"from another host":           {from: far, to: near, enter: "open: both are in network net-a"},
		"another network":             {from: near, to: "10.208.32.5", leave: "closed: network net-a is closed to other networks", enter: "closed: network net-c is closed to 10.208.0.5"},
		"another network, opened":     {from: near, to: "10.208.16.5", port: 5432, leave: "open: a rule opens", enter: "open: a rule opens"},
		"opened for another port":     {from: near, to: "10.208.16.5", port: 80, leave: "closed: network net-a is closed", enter: "closed: network net-b is closed"},
		"opened, the engine gets out": {from: "10.208.16.5", to: near, port: 80, leave: "open: a rule opens", enter: "open: a rule opens"},
		"opened to outside":           {from: "198.51.100.7", to: near, protocol: "icmp", enter: "open: a rule opens"},
		"outside":                     {from: "198.51.100.7", to: near, port: 80, enter: "closed: network net-a is closed to 198.51.100.7"},
		"to outside":                  {from: near, to: "198.51.100.7", leave: "open: network net-a has its way out through this host"},
		"to outside by the engine":    {from: "10.208.16.5", to: "198.51.100.7", leave: "open: its way out is the engine's own docker_gwbridge"},
		"to outside from internal":    {from: "10.208.32.5", to: "198.51.100.7", leave: "closed: network net-c is internal"},
		"metadata":                    {from: near, to: "169.254.169.254", port: 80, leave: "closed: the metadata address"},
		"DNS":                         {from: near, to: "169.254.53.53", protocol: "udp", port: 53, leave: "open: containers may ask this host's DNS"},
		"DNS over the wrong port":     {from: near, to: "169.254.53.53", port: 80, leave: "closed: containers do not reach"},
		"gateway, ping":               {from: near, to: "10.208.32.1", protocol: "icmp", leave: "closed: network net-a is closed"},
		"own gateway, ping":           {from: near, to: "10.208.0.1", protocol: "icmp", leave: "open: both are in network"},
		"own host":                    {from: near, to: "192.0.2.1", port: 22, leave: "closed: containers do not reach the services of their own host"},
		"own host, published":         {from: near, to: "192.0.2.1", port: 80, leave: "open: port 80 of the host is published"},
		"own host by the engine":      {from: "10.208.16.5", to: "192.0.2.1", port: 22, leave: "open: its way out is the engine's"},
		"other host":                  {from: near, to: "192.0.2.2", port: 22, leave: "closed: 192.0.2.2 is a host of the fleet"},
		"other host, published":       {from: near, to: "192.0.2.2", port: 8080, leave: "open: network net-a has its way out"},
		"to a network without filter": {from: near, to: "10.208.48.5", port: 80, leave: "open: 10.208.48.5 is in a network that is not filtered", enter: "open: network net-d is not filtered"},
		"the host itself":             {from: "192.0.2.1", to: near, port: 80, leave: "closed: network net-a is closed to the host itself"},
		"the host itself, ping":       {from: "192.0.2.1", to: near, protocol: "icmp", leave: "open: the host may ping"},
		"the host on the network":     {from: "10.208.0.9", to: near, port: 80, leave: "open: the host is on network net-a itself"},
		"to the host on the network":  {from: far, to: "10.208.0.9", port: 22, enter: "open: the host is on the network itself"},
		"to the host from elsewhere":  {from: "198.51.100.7", to: "10.208.0.9", port: 22, enter: "closed: the host's place on the network is closed"},
		"neither is here":             {from: far, to: "10.208.0.71"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.protocol == "" {
				c.protocol = "tcp"
			}
			s := hostState()
			_, local := endpointOf(s, addr(c.from))
			p := packet{
				Question: hostview.Question{From: addr(c.from), To: addr(c.to), Protocol: c.protocol, Port: c.port},
				toHost:   own[c.to], fromHost: own[c.from] && !local,
				title:  func(id string) string { return records[id].Name },
				record: func(id string) record.Network { return records[id] },
			}
			same(t, "leave", p.leave(s), c.leave)
			same(t, "enter", p.enter(s), c.enter)
		})
	}
}

func same(t *testing.T, what string, v *hostview.Verdict, want string) {
	t.Helper()
	got := ""
	if v != nil {
		got = "closed: " + v.Reason
		if v.Open {
			got = "open: " + v.Reason
		}
	}
	assert.Assert(t, want == "" && got == "" || want != "" && strings.HasPrefix(got, want), "%s: got %q, want %q", what, got, want)
}
