package lb

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/golden"
)

func TestRender(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	s := NewState()
	s.Fleet = []netip.Prefix{prefix("10.208.0.0/12"), prefix("fd00:7::/48")}
	s.Networks["aaaa"] = Network{
		From:     []netip.Prefix{prefix("10.208.0.0/20"), prefix("fd00:7::/64")},
		Gateways: []netip.Addr{addr("10.208.0.1"), addr("fd00:7::1")},
	}
	s.Services[addr("10.208.0.64")] = Service{Network: "aaaa", Replicas: []netip.Addr{addr("10.208.0.5"), addr("10.208.1.5")}}
	s.Services[addr("10.208.0.65")] = Service{Network: "aaaa"}
	s.Services[addr("fd00:7::40")] = Service{Network: "aaaa", Replicas: []netip.Addr{addr("fd00:7::5")}}
	s.Ports[Socket{"tcp", 8080}] = Port{Network: "aaaa", Target: 80, Replicas: []netip.Addr{addr("10.208.0.5")}, Replicas6: []netip.Addr{addr("fd00:7::5")}}
	s.Ports[Socket{"udp", 53}] = Port{Address: addr("192.0.2.1"), Network: "aaaa", Target: 5353}
	s.Local[addr("10.208.0.5")] = true
	golden.Assert(t, Render(s).String(), "table.nft")
}
