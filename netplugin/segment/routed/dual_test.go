package routed_test

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/segment/routed"
)

// dual is a network of both families, and six one of IPv6 only.
var (
	dual = segment.Network{
		ID: "dual", Subnet: netip.MustParsePrefix("10.208.0.0/20"), Gateway: netip.MustParseAddr("10.208.0.1"),
		Subnet6: netip.MustParsePrefix("fd12:3456:789a:1::/64"), Gateway6: netip.MustParseAddr("fd12:3456:789a:1::1"), MTU: 1400,
	}
	six = segment.Network{ID: "six", Subnet6: netip.MustParsePrefix("fd12:3456:789a:2::/64"), Gateway6: netip.MustParseAddr("fd12:3456:789a:2::1"), MTU: 1500}
)

// join puts an endpoint into a container, with the ways that a container gets.
func join(t *testing.T, host *nettest.Namespace, e segment.Endpoint) *nettest.Namespace {
	t.Helper()
	c := nettest.NewNamespace(t)
	peer := segment.PeerName(e.ID)
	c.Take(host, peer)
	for _, args := range []string{"link set " + peer + " up"} {
		c.Run("ip", strings.Fields(args)...)
	}
	if e.Address.IsValid() {
		g := e.Network.Gateway.String()
		c.Run("ip", "addr", "add", e.Address.String(), "dev", peer)
		c.Run("ip", "route", "add", g, "dev", peer)
		c.Run("ip", "route", "add", "default", "via", g)
	}
	if e.Address6.IsValid() {
		g := e.Network.Gateway6.String()
		c.Run("ip", "addr", "add", e.Address6.String(), "dev", peer, "nodad")
		c.Run("ip", "-6", "route", "add", g, "dev", peer)
		c.Run("ip", "-6", "route", "add", "default", "via", g)
	}
	return c
}

func endpoint(id string, n segment.Network, a, a6 string) segment.Endpoint {
	e := segment.Endpoint{ID: strings.Repeat(id, 16), Network: n}
	if a != "" {
		e.Address = netip.MustParsePrefix(a)
	}
	if a6 != "" {
		e.Address6 = netip.MustParsePrefix(a6)
	}
	e.MAC = segment.MAC(e.Addresses()[0])
	return e
}

// Containers of one host reach their gateway and each other over both
// families.
func TestBothFamilies(t *testing.T) {
	ns := nettest.NewNamespace(t)
	var s *routed.Segment
	ns.Do(func() {
		assert.NilError(t, routed.Sysctl("/proc/sys/net").EnsureForwarding())
	})
	s = routed.New(routed.Config{Host: "h", Handle: ns.Handle, Sysctl: routed.Sysctl("/proc/sys/net"), Topology: alone{}, Log: slog.New(slog.DiscardHandler)})
	a, b := endpoint("a", dual, "10.208.0.5/32", "fd12:3456:789a:1::5/128"), endpoint("b", dual, "10.208.0.6/32", "fd12:3456:789a:1::6/128")
	x := endpoint("c", six, "", "fd12:3456:789a:2::5/128")
	ns.Do(func() {
		assert.NilError(t, s.AddNetwork(dual))
		assert.NilError(t, s.AddNetwork(six))
		for _, e := range []segment.Endpoint{a, b, x} {
			assert.NilError(t, s.Attach(e))
		}
	})
	ca, _, cx := join(t, ns, a), join(t, ns, b), join(t, ns, x)
	ca.Run("ping", "-c10", "-i0.2", "-W1", "10.208.0.1")
	ca.Run("ping", "-c10", "-i0.2", "-W1", "fd12:3456:789a:1::1")
	ca.Run("ping", "-c10", "-i0.2", "-W1", "fd12:3456:789a:1::6")
	cx.Run("ping", "-c10", "-i0.2", "-W1", "fd12:3456:789a:1::5") // no filter stands between here

	routes, err := routed.Routes(ns.Handle)
	assert.NilError(t, err)
	assert.Equal(t, len(routes), 5, "a route for each address, with a fleet that is not known yet")
	s.Detach(x)
	defer s.Settle(t)
	s.RemoveNetwork("six")
	lo, err := ns.Handle.LinkByName("lo")
	assert.NilError(t, err)
	addrs, err := ns.Handle.AddrList(lo, netlink.FAMILY_V6)
	assert.NilError(t, err)
	assert.Equal(t, len(addrs), 2, "::1 and the gateway of the other network")
}
