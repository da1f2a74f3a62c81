package policy

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/golden"
)

// example is a host with a network of each kind, two endpoints and published
// ports of each kind.
func example() State {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	return State{
		Fleet: Fleet{
			Prefixes: []netip.Prefix{prefix("172.18.0.0/16"), prefix("10.208.16.0/20"), prefix("10.208.0.0/12"), prefix("fd12:3456:789a::/48")},
			Open:     []netip.Prefix{prefix("10.208.48.0/20")},
			Hosts:    []netip.Addr{addr("10.0.0.1"), addr("10.0.0.2"), addr("2001:db8::1")},
			Reachable: []HostPort{
				{Host: addr("10.0.0.1"), Protocol: "tcp", Port: 80}, {Host: addr("2001:db8::1"), Protocol: "udp", Port: 53},
			},
			Openings: []Opening{
				{From: []netip.Prefix{prefix("10.208.0.0/20"), prefix("fd12:3456:789a:1::/64")}, To: []netip.Prefix{prefix("10.208.16.0/20")}, Protocol: "tcp", Port: 80},
				{From: []netip.Prefix{prefix("192.168.0.0/16")}, To: []netip.Prefix{prefix("10.208.0.0/20")}},
				{From: []netip.Prefix{prefix("2001:db8::/32")}, To: []netip.Prefix{prefix("fd12:3456:789a:1::/64")}, Protocol: "icmp"},
				{From: []netip.Prefix{prefix("2001:db8::/32")}, To: []netip.Prefix{prefix("fd12:3456:789a:1::/64")}, Port: 53},
			},
			Machines: []Machine{{Subnets: []netip.Prefix{prefix("10.208.16.0/20")}, Addresses: []netip.Addr{addr("10.208.16.9")}}},
		},
		Networks: []Network{
			{ID: "aaaa", Subnet: prefix("10.208.0.0/20"), Gateway: addr("10.208.0.1"), Subnet6: prefix("fd12:3456:789a:1::/64"), Gateway6: addr("fd12:3456:789a:1::1"), Egress: true, Egress6: true},
			{ID: "cccc", Subnet: prefix("10.208.16.0/20"), Gateway: addr("10.208.16.1")},
			{ID: "dddd", Subnet6: prefix("fd12:3456:789a:2::/64"), Gateway6: addr("fd12:3456:789a:2::1"), Egress: true, Egress6: true, Unfiltered: true},
			{ID: "eeee", Subnet: prefix("10.208.32.0/20"), Gateway: addr("10.208.32.1"), Subnet6: prefix("fd12:3456:789a:3::/64"), Gateway6: addr("fd12:3456:789a:3::1"), Egress6: true},
			{ID: "ffff", Subnet: prefix("10.208.64.0/20"), Gateway: addr("10.208.64.1"), Bridge: "ckn4711", Egress: true},
		},
		Endpoints: []Endpoint{
			{Link: "ck0000000000002", Network: "cccc", Address: addr("10.208.16.5")},
			{Link: "ck0000000000001", Network: "aaaa", Address: addr("10.208.0.5"), Address6: addr("fd12:3456:789a:1::5"), Ports: []Port{
				{Protocol: 6, HostPort: 8080, Port: 80},
				{Protocol: 17, HostIP: addr("127.0.0.1"), HostPort: 5353, Port: 53},
				{Protocol: 6, HostIP: addr("2001:db8::1"), HostPort: 8081, Port: 80},
				{Protocol: 6, HostIP: addr("0.0.0.0"), HostPort: 8082, Port: 80},
			}},
			{Link: "ck0000000000003", Network: "dddd", Address6: addr("fd12:3456:789a:2::5")},
		},
	}
}

func TestRender(t *testing.T) {
	golden.Assert(t, Render(example()).String(), "table.nft")
}
