package routed_test

import (
	"log/slog"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/segment/routed"
	"clocker.io/clocker/netplugin/topology"
)

// alone is the topology of a fleet of one.
type alone struct{}

func (alone) Read(f func(*topology.Topology, topology.Knowledge)) {
	f(topology.New(), topology.Unknown)
}

// An engine gives a network's subnet back before it deletes the network. When
// the next network gets that subnet in between, deleting the old one must not
// take the gateway that both have.
func TestGatewayStaysWhileAnotherNetworkHasIt(t *testing.T) {
	ns := nettest.NewNamespace(t)
	s := routed.New(routed.Config{Host: "h", Handle: ns.Handle, Topology: alone{}, Log: slog.New(slog.DiscardHandler)})
	network := func(id string) segment.Network {
		return segment.Network{ID: id, Subnet: netip.MustParsePrefix("10.208.0.0/20"), Gateway: netip.MustParseAddr("10.208.0.1"), MTU: 1500}
	}
	gateways := func() int {
		lo, err := ns.Handle.LinkByName("lo")
		assert.NilError(t, err)
		addrs, err := ns.Handle.AddrList(lo, netlink.FAMILY_V4)
		assert.NilError(t, err)
		n := 0
		for _, a := range addrs {
			if a.Label == routed.AddressLabel {
				n++
			}
		}
		return n
	}
	assert.NilError(t, s.AddNetwork(network("old")))
	assert.NilError(t, s.AddNetwork(network("new")))
	s.RemoveNetwork("old")
	assert.Equal(t, gateways(), 1)
	s.RemoveNetwork("new")
	assert.Equal(t, gateways(), 0)
}
