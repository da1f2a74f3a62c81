package driver

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// join6 makes the host use a network's IPv6 half and returns the pool.
func (h *host) join6(n record.Network) string {
	h.f.Helper()
	return h.pool(&ipam.RequestPoolRequest{AddressSpace: LocalSpace, Pool: n.Subnet6, V6: true, Options: map[string]string{OptNetwork: n.ID}}).PoolID
}

// make6 makes the IPv6 pool of a network made by hand.
func (h *host) make6(subnet string) (pool, got string) {
	h.f.Helper()
	r := h.pool(&ipam.RequestPoolRequest{AddressSpace: LocalSpace, Pool: subnet, V6: true})
	return r.PoolID, r.Pool
}

func (h *host) gateway(pool, asked string) string {
	h.f.Helper()
	r, err := h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: asked, Options: map[string]string{optType: typeGateway}})
	assert.NilError(h.f, err)
	return r.Address
}

func newDualFleet(t testing.TB) *fleet {
	t.Helper()
	f := newFleet(t)
	assert.NilError(t, registry.EnsurePool(t.Context(), f.st, record.Pool{Name: registry.DefaultPool6, CIDR: "fd12:3456:789a::/48", SubnetBits: 64}))
	return f
}

func TestNetworkOfBothFamilies(t *testing.T) {
	f := newDualFleet(t)
	n := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.1.0.0/24"), IPv6: true})
	assert.Equal(t, n.Subnet6, "fd12:3456:789a::/64")
	a, b := f.host("a"), f.host("b")
	p4, p6 := a.join(n), a.join6(n)
	assert.Equal(t, p6, LocalSpace+"/"+n.ID+"/"+n.Subnet6)
	assert.Equal(t, a.gateway(p6, ""), "fd12:3456:789a::1/64")
	four, six := a.get(p4, "", "web"), a.get(p6, "", "web")
	assert.Assert(t, netip.MustParsePrefix(n.Subnet).Contains(netip.MustParseAddr(four)))
	assert.Assert(t, netip.MustParsePrefix("fd12:3456:789a::/108").Contains(netip.MustParseAddr(six)), "%s", six)
	f.waitEndpoints(n, map[string]record.Endpoint{four: {Host: "a", Container: "web"}, six: {Host: "a", Container: "web"}})
	for _, x := range []string{four, six} {
		assert.Assert(t, a.Owner(n.ID, netip.MustParseAddr(x)) && !b.Owner(n.ID, netip.MustParseAddr(x)))
	}
	// An address of the other family, or in none of the subnets.
	_, err := a.request1(p6, "10.1.0.9", "")
	assert.ErrorContains(t, err, "not in the subnet")
	_, err = a.request1(p4, "fd12:3456:789a::9", "")
	assert.ErrorContains(t, err, "not in the subnet")
	// The same after a restart.
	again := f.host("a", at(a.crashed()))
	assert.Assert(t, again.Owner(n.ID, netip.MustParseAddr(six)))
	again.put(p6, six)
	assert.Equal(t, again.get(p6, "", "web"), six)
	again.stop()

	// One half is left: what is held in the other stays.
	a.leave(p4)
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr(four)) && a.Owner(n.ID, netip.MustParseAddr(six)))
	a.leave(p6)
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr(six)))
	f.wait(func() error {
		us, err := registry.Uses(t.Context(), f.st, n.ID)
		if err == nil && len(us) > 0 {
			err = fmt.Errorf("uses: %v", us)
		}
		return err
	})
}

// `docker network create --ipv6` asks for both pools before it says that they
// are one network's; two of them at once must not be mixed up.
func TestFamiliesMadeByHandAreJoined(t *testing.T) {
	f := newDualFleet(t)
	h := f.host("a")
	type made struct{ p4, s4, p6, s6 string }
	var ms [2]made
	for i := range ms {
		ms[i].p4, ms[i].s4 = h.make("")
	}
	for i := range ms {
		ms[i].p6, ms[i].s6 = h.make6("")
		h.gateway(ms[i].p6, "")
	}
	aux := netip.MustParsePrefix(ms[0].s6).Addr().Next().Next()
	h.get(ms[0].p6, aux.String(), "")
	for _, m := range ms {
		four, ok4 := h.BySubnet(netip.MustParsePrefix(m.s4))
		six, ok6 := h.BySubnet(netip.MustParsePrefix(m.s6))
		assert.Assert(t, ok4 && ok6 && four.ID != six.ID)
		for range 2 {
			n, err := h.JoinFamilies(four.ID, six.ID)
			assert.NilError(t, err)
			assert.Equal(t, n.ID+n.Subnet+n.Subnet6, four.ID+m.s4+m.s6)
		}
		_, err := registry.BySubnet(t.Context(), f.st, netip.MustParsePrefix(m.s6))
		assert.NilError(t, err)
	}
	n, _ := h.BySubnet(netip.MustParsePrefix(ms[0].s6))
	assert.NilError(t, h.Reserve(n.ID, aux))
	// The engine goes on to name the half by the id that it was told.
	six := h.get(ms[0].p6, "", "web")
	assert.Assert(t, six != aux.String())
	f.waitEndpoints(n, map[string]record.Endpoint{six: {Host: "a", Container: "web"}})
	again := f.host("a", at(h.crashed()))
	assert.Assert(t, again.Owner(n.ID, netip.MustParseAddr(six)))
	again.put(ms[0].p6, six)
	again.stop()
	// Even where the journal was lost.
	lost := f.host("b")
	lost.get(ms[1].p6, "", "db")

	h.put(ms[0].p6, six)
	h.leave(ms[0].p4)
	h.leave(ms[0].p6)
	_, err := registry.Get(t.Context(), f.st, n.ID)
	assert.ErrorIs(t, err, store.ErrNotFound)
	_, err = h.JoinFamilies(n.ID, "none")
	assert.ErrorContains(t, err, "does not know both")
}

func TestIPv6OnlyNetwork(t *testing.T) {
	f := newDualFleet(t)
	h := f.host("a")
	pool, subnet := h.make6("")
	assert.Equal(t, subnet, "fd12:3456:789a::/64")
	assert.Equal(t, h.gateway(pool, "fd12:3456:789a::ffff"), "fd12:3456:789a::ffff/64")
	x := h.get(pool, "", "")
	n, _ := h.BySubnet(netip.MustParsePrefix(subnet))
	f.waitEndpoints(n, map[string]record.Endpoint{x: {Host: "a"}})
	// Beyond the blocks' window each address is pinned by itself.
	far := "fd12:3456:789a:0:aaaa:bbbb:cccc:dddd"
	assert.Equal(t, h.get(pool, far, "far"), far)
	_, err := h.request1(pool, far, "")
	assert.ErrorContains(t, err, "in use by far on host a")
	f.waitEndpoints(n, map[string]record.Endpoint{x: {Host: "a"}, far: {Host: "a", Container: "far"}})
	h.put(pool, far)
	f.waitEndpoints(n, map[string]record.Endpoint{x: {Host: "a"}})
	h.put(pool, x)
	h.leave(pool)
	f.wait(func() error {
		if ks := f.keys(); len(ks) > 0 {
			return fmt.Errorf("left: %v", ks)
		}
		return nil
	})
}

func TestIPv6PoolsAsAsked(t *testing.T) {
	f := newDualFleet(t)
	h := f.host("a")
	_, sized := h.make6("::/112")
	assert.Equal(t, sized, "fd12:3456:789a::/112")
	r, err := h.RequestPool(&ipam.RequestPoolRequest{V6: true, Pool: "fd99::/64", SubPool: "fd99::1:0:0:0/120"})
	assert.NilError(t, err)
	rng := netip.MustParsePrefix("fd99::1:0:0:0/120")
	for range 200 {
		x := netip.MustParseAddr(h.get(r.PoolID, "", ""))
		assert.Assert(t, rng.Contains(x), "%s", x)
	}
	for text, r := range map[string]*ipam.RequestPoolRequest{
		"from /32 to /120":  {V6: true, Pool: "fd98::/124"},
		"special meaning":   {V6: true, Pool: "fe80::/64"},
		"overlaps network":  {V6: true, Pool: "fd99::/48"},
		"check range fd97:": {V6: true, Pool: "fd98::/64", SubPool: "fd97::/80"},
	} {
		_, err := h.RequestPool(r)
		assert.ErrorContains(t, err, text)
	}
}
