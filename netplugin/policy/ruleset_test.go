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
		Fleet: []netip.Prefix{prefix("172.18.0.0/16"), prefix("10.208.16.0/20"), prefix("10.208.0.0/12")},
		Networks: []Network{
			{ID: "aaaa", Subnet: prefix("10.208.0.0/20"), Gateway: addr("10.208.0.1"), Egress: true},
			{ID: "cccc", Subnet: prefix("10.208.16.0/20"), Gateway: addr("10.208.16.1")},
		},
		Endpoints: []Endpoint{
			{Link: "ck0000000000002", Network: "cccc", Address: addr("10.208.16.5")},
			{Link: "ck0000000000001", Network: "aaaa", Address: addr("10.208.0.5"), Ports: []Port{
				{Protocol: 6, HostPort: 8080, Port: 80},
				{Protocol: 17, HostIP: addr("127.0.0.1"), HostPort: 5353, Port: 53},
			}},
		},
	}
}

func TestRender(t *testing.T) {
	golden.Assert(t, Render(example()).String(), "table.nft")
}
