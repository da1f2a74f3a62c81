package driver

import (
	"fmt"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

func fleetWorld() *topology.Topology {
	t := topology.New()
	t.Networks["red"] = record.Network{ID: "red", Subnet: "10.208.0.0/20", Subnet6: "fd12::/64"}
	t.Networks["blue"] = record.Network{ID: "blue", Subnet: "10.208.16.0/20"}
	t.Networks["wild"] = record.Network{ID: "wild", Subnet: "10.208.32.0/20", Unfiltered: true}
	t.Networks["inner"] = record.Network{ID: "inner", Subnet: "10.208.48.0/20", Unfiltered: true, Internal: true}
	t.Underlays["h1"] = record.Underlay{Host: "h1", Address: "10.0.0.1", Addresses: []string{"10.0.0.1", "2001:db8::1"}}
	t.Underlays["h2"] = record.Underlay{Host: "h2", Address: "10.0.0.2"}
	t.Published["tcp_80"] = record.Published{Protocol: "tcp", HostPort: 80}
	t.Published["tcp_81"] = record.Published{Protocol: "tcp", HostPort: 81, HostIP: "10.0.0.2"}
	t.Endpoints["red"] = map[netip.Addr]record.Endpoint{
		netip.MustParseAddr("10.208.0.5"): {Host: "h1", Ports: "udp/53,tcp/2001:db8::1/8080,nonsense"},
		netip.MustParseAddr("10.208.0.6"): {Host: "h2"},
	}
	t.Rules["a"] = record.Rule{From: "red", To: "blue", Protocol: "tcp", Port: 80}
	t.Rules["b"] = record.Rule{From: "192.0.2.0/24", To: "red"}
	t.Rules["c"] = record.Rule{From: "gone", To: "red"}
	return t
}

func TestFleetOf(t *testing.T) {
	f := fleetOf(fleetWorld(), []record.Network{{ID: "new", Subnet: "10.209.0.0/20"}}, nil)
	assert.Equal(t, fmt.Sprint(f.Hosts), "[10.0.0.1 10.0.0.2 2001:db8::1]")
	assert.Equal(t, fmt.Sprint(f.Open), "[10.208.32.0/20]", "an internal network stays closed")
	assert.Equal(t, len(f.Prefixes), 6)
	var ports []string
	for _, p := range f.Reachable {
		ports = append(ports, fmt.Sprintf("%s %s/%d", p.Host, p.Protocol, p.Port))
	}
	assert.DeepEqual(t, ports, []string{
		"10.0.0.1 tcp/80", "10.0.0.1 udp/53", "10.0.0.2 tcp/80", "10.0.0.2 tcp/81",
		"2001:db8::1 tcp/80", "2001:db8::1 tcp/8080", "2001:db8::1 udp/53",
	})
	assert.Equal(t, len(f.Openings), 2, "a rule about a network that is gone opens nothing")
	for range 20 {
		assert.DeepEqual(t, fmt.Sprint(fleetOf(fleetWorld(), []record.Network{{ID: "new", Subnet: "10.209.0.0/20"}}, nil).Openings), fmt.Sprint(f.Openings))
	}
}

func TestOpenTo(t *testing.T) {
	red := segment.Network{ID: "red", Subnet: netip.MustParsePrefix("10.208.0.0/20"), Subnet6: netip.MustParsePrefix("fd12::/64")}
	assert.Equal(t, fmt.Sprint(openTo(fleetWorld(), red)), "[10.208.16.0/20 192.0.2.0/24]")
}

func TestPortText(t *testing.T) {
	for _, p := range []policy.Port{
		{Protocol: 6, HostPort: 80, Port: 8080}, {Protocol: 17, HostPort: 53, HostIP: netip.MustParseAddr("2001:db8::1")}, {Protocol: 132, HostPort: 9},
	} {
		at, protocol, port, ok := readPort(portText(p))
		assert.Check(t, ok)
		assert.Equal(t, protocol, p.ProtocolName())
		assert.Equal(t, port, p.HostPort)
		if p.HostIP.IsValid() {
			assert.Equal(t, at, p.HostIP.String())
		}
	}
	for _, text := range []string{"", "tcp", "tcp/x", "icmp/1", "tcp/1/2/3", "tcp/99999"} {
		_, _, _, ok := readPort(text)
		assert.Check(t, !ok, text)
	}
}
