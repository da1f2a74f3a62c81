package driver

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

func TestAddressesHaveTheMaskOfTheirSegment(t *testing.T) {
	f := newFleet(t)
	h := f.host("a")
	routed := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Segment: "routed"})
	bridged := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.2.0.0/24"), Segment: "bridged"})
	for n, bits := range map[*record.Network]int{&routed: 32, &bridged: 24} {
		got, err := h.request1(h.join(*n), "", "")
		assert.NilError(t, err)
		assert.Equal(t, netip.MustParsePrefix(got).Bits(), bits)
	}
}

func TestGatewayIsTheSameEverywhere(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	gateway := map[string]string{optType: typeGateway}
	for _, id := range []string{"a", "b"} {
		h := f.host(id)
		pool := h.join(n)
		for range 2 {
			for _, asked := range []string{"", "10.1.0.1"} {
				r, err := h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: asked, Options: gateway})
				assert.NilError(t, err)
				assert.Equal(t, r.Address, "10.1.0.1/24")
			}
		}
		_, err := h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: "10.1.0.9", Options: gateway})
		assert.ErrorContains(t, err, "the gateway of network")
		h.put(pool, "10.1.0.1")
		_, err = h.request1(pool, "10.1.0.1", "")
		assert.ErrorContains(t, err, "it is the network's gateway")
	}
}

func TestGatewayOfANetworkMadeByHand(t *testing.T) {
	f := newFleet(t)
	h := f.host("a")
	pool, _ := h.make("10.1.0.0/24")
	gateway := map[string]string{optType: typeGateway}
	r, err := h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: "10.1.0.254", Options: gateway})
	assert.NilError(t, err)
	assert.Equal(t, r.Address, "10.1.0.254/24")
	n, _ := h.BySubnet(netip.MustParsePrefix("10.1.0.0/24"))
	assert.Equal(t, n.Gateway, "10.1.0.254")
	assert.Equal(t, h.get(pool, "10.1.0.1", ""), "10.1.0.1")
	_, err = h.request1(pool, "10.1.0.254", "")
	assert.ErrorContains(t, err, "it is the network's gateway")
	_, err = h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: "10.1.0.2", Options: gateway})
	assert.ErrorIs(t, err, registry.ErrInUse)
	_, err = h.RequestAddress(&ipam.RequestAddressRequest{PoolID: pool, Address: "10.2.0.1", Options: gateway})
	assert.ErrorContains(t, err, "not in the subnet")

	other, _ := h.Network(n.ID)
	b := f.host("b")
	r, err = b.RequestAddress(&ipam.RequestAddressRequest{PoolID: b.join(other), Options: gateway})
	assert.NilError(t, err)
	assert.Equal(t, r.Address, "10.1.0.254/24")
}

func TestAuxiliaryAddresses(t *testing.T) {
	f := newFleet(t)
	a, b := f.host("a"), f.host("b")
	pool, _ := a.make("10.1.0.0/28")
	aux := a.get(pool, "10.1.0.9", "")
	n, _ := a.BySubnet(netip.MustParsePrefix("10.1.0.0/28"))
	assert.NilError(t, a.Reserve(n.ID, netip.MustParseAddr(aux)))
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr(aux)))
	for _, h := range []*host{a, b, f.host("a", at(a.crashed()))} {
		pool := h.join(n)
		assert.Equal(t, h.get(pool, aux, ""), aux)
		assert.Equal(t, h.get(pool, aux, ""), aux)
		_, err := h.request1(pool, aux, "web")
		assert.ErrorContains(t, err, "reserved by --aux-address")
		h.put(pool, aux)
	}
	for range 12 {
		assert.Assert(t, b.get(pool, "", "") != aux)
	}
	_, err := b.request1(pool, "", "")
	assert.ErrorContains(t, err, "no free address in the blocks of this host: every block of network")
}

func TestExplicitAddresses(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	live := map[netip.Addr]bool{}
	a := f.host("a", func(c *Config) { c.InUse = func(_ string, x netip.Addr) bool { return live[x] } })
	b := f.host("b")
	poolA, poolB := a.join(n), b.join(n)

	assert.Equal(t, a.get(poolA, "10.1.0.20", "web"), "10.1.0.20") // in a block that nobody has
	assert.Equal(t, a.get(poolA, "10.1.0.21", ""), "10.1.0.21")
	live[netip.MustParseAddr("10.1.0.20")] = true
	_, err := a.request1(poolA, "10.1.0.20", "db")
	assert.ErrorContains(t, err, "10.1.0.20: in use by web on host a")
	_, err = b.request1(poolB, "10.1.0.20", "")
	assert.ErrorContains(t, err, "10.1.0.20: in use by web on host a")
	_, err = b.request1(poolB, "10.2.0.1", "")
	assert.ErrorContains(t, err, "not in the subnet 10.1.0.0/24")
	_, err = b.request1(poolB, "10.1.0.255", "")
	assert.ErrorContains(t, err, "broadcast")
	_, err = b.request1(poolB, "fd00::1", "")
	assert.ErrorContains(t, err, "not in the subnet")
	_, err = b.request1(poolB, "x", "")
	assert.ErrorContains(t, err, `"x" is not an address`)

	// A holder that is no more, because the engine never said so.
	live[netip.MustParseAddr("10.1.0.20")] = false
	assert.Equal(t, a.get(poolA, "10.1.0.20", "db"), "10.1.0.20")
	f.waitEndpoints(n, map[string]record.Endpoint{
		"10.1.0.20": {Host: "a", Container: "db"}, "10.1.0.21": {Host: "a"},
	})
}

func TestReleaseIsIdempotent(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	a := h.get(pool, "", "web")
	h.put(pool, a)
	h.put(pool, a)
	h.put(pool, "10.1.0.77")
	h.put("clocker-local/nosuchnet/10.9.0.0/24", "10.9.0.1")
	assert.ErrorContains(t, h.ReleaseAddress(&ipam.ReleaseAddressRequest{PoolID: pool, Address: "x"}), "not an address")
	assert.ErrorContains(t, h.ReleaseAddress(&ipam.ReleaseAddressRequest{PoolID: "x", Address: a}), "unknown pool")
	f.waitEndpoints(n, map[string]record.Endpoint{})
}

func TestAddressStaysWithItsName(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	web, db := h.get(pool, "", "web"), h.get(pool, "", "db")
	h.put(pool, web)
	h.put(pool, db)
	assert.Equal(t, h.get(pool, "", "db"), db)
	again := f.host("a", at(h.crashed()))
	assert.Assert(t, again.get(pool, "", "other") != web)
	assert.Equal(t, again.get(pool, "", "web"), web)
}

func TestFullNetwork(t *testing.T) {
	f := newFleet(t)
	n := f.network(registry.Request{Name: "tiny", App: "x", Subnet: netip.MustParsePrefix("10.1.0.0/29")})
	a, b := f.host("a"), f.host("b")
	poolA, poolB := a.join(n), b.join(n)
	var got []string
	for range 3 {
		got = append(got, a.get(poolA, "", ""))
	}
	b.get(poolB, "", "")
	b.get(poolB, "", "")
	_, err := b.request1(poolB, "", "")
	assert.ErrorIs(t, err, ErrNoAddress)
	assert.ErrorContains(t, err, `every block of network "tiny" (10.1.0.0/29) is taken, 2 of 5 by this host`)
	// Released a moment ago is better than nothing.
	a.put(poolA, got[1])
	assert.Equal(t, a.get(poolA, "", ""), got[1])
	// After its rest an address of a small network goes to who needs it.
	a.put(poolA, got[1])
	f.clock.forward(31 * time.Second)
	f.wait(func() error {
		_, err := b.request1(poolB, "", "")
		return err
	})
}

func TestEtcdAway(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	first := h.get(pool, "", "c0")
	f.server.Stop()

	want := map[string]record.Endpoint{first: {Host: "a", Container: "c0"}}
	start := time.Now()
	var err error
	for i := 1; ; i++ {
		name := fmt.Sprint("c", i)
		var got string
		if got, err = h.request1(pool, "", name); err != nil {
			break
		}
		want[netip.MustParsePrefix(got).Addr().String()] = record.Endpoint{Host: "a", Container: name}
	}
	assert.ErrorContains(t, err, "no free address in the blocks of this host; etcd unreachable since 20")
	assert.Assert(t, len(want) >= 14, "only %d addresses", len(want))
	assert.Assert(t, time.Since(start) < 3*time.Second)
	start = time.Now()
	_, err = h.request1(pool, "", "")
	assert.ErrorContains(t, err, "etcd unreachable since 20")
	assert.Assert(t, time.Since(start) < time.Second)
	_, err = h.request1(pool, "10.1.0.200", "")
	assert.ErrorContains(t, err, "etcd unreachable since 20")

	f.server.Start()
	f.waitEndpoints(n, want)
	f.wait(func() error {
		_, err := h.request1(pool, "", "")
		return err
	})
}

// An engine keeps its pools where the plugin has lost everything.
func TestPoolUnknownToTheJournal(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := LocalSpace + "/" + n.ID + "/" + n.Subnet
	h.get(pool, "", "web")
	f.wait(func() error {
		us, err := registry.Uses(t.Context(), f.st, n.ID)
		if err == nil && len(us) != 1 {
			err = fmt.Errorf("uses: %v", us)
		}
		return err
	})
}

func TestAnnotate(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	a := h.get(pool, "", "web")
	h.Annotate(n.ID, netip.MustParseAddr(a), Note{MAC: "02:00:00:00:00:01", Endpoint: "e1"})
	h.Annotate(n.ID, netip.MustParseAddr("10.1.0.99"), Note{MAC: "02:00:00:00:00:02"})
	h.Annotate("nosuchnet", netip.MustParseAddr(a), Note{})
	want := map[string]record.Endpoint{a: {Host: "a", Container: "web", MAC: "02:00:00:00:00:01", Endpoint: "e1"}}
	f.waitEndpoints(n, want)
	// A restart does not forget it.
	dir := h.crash()
	h = f.host("a", at(dir))
	h.get(pool, "", "db")
	f.wait(func() error {
		if len(f.keys()) < 5 {
			return fmt.Errorf("keys: %v", f.keys())
		}
		return nil
	})
	it, err := store.Get[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(n.ID, a))
	assert.NilError(t, err)
	assert.Equal(t, it.Value.MAC, "02:00:00:00:00:01")
}
