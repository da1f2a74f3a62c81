package driver

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

func TestNetworkMadeByHandLivesAsLongAsItIsUsed(t *testing.T) {
	f := newFleet(t)
	a, b := f.host("a"), f.host("b")
	pool, subnet := a.make("")
	assert.Equal(t, subnet, "10.208.0.0/20")
	n, ok := a.BySubnet(netip.MustParsePrefix(subnet))
	assert.Assert(t, ok)
	assert.Equal(t, pool, LocalSpace+"/"+n.ID+"/"+subnet)
	assert.Equal(t, n.Egress, "engine")
	assert.Equal(t, n.Name, "")

	mirror := b.join(n)
	us, err := registry.Uses(t.Context(), f.st, n.ID)
	assert.NilError(t, err)
	assert.Equal(t, len(us), 2)
	assert.Assert(t, us[0].Made && !us[1].Made)
	b.get(mirror, "", "")

	a.leave(pool)
	_, err = registry.Get(t.Context(), f.st, n.ID)
	assert.NilError(t, err)
	b.leave(mirror)
	assert.DeepEqual(t, f.keys(), []string(nil))
	b.leave(mirror)
	f.wait(func() error {
		if left := append(a.Networks(), b.Networks()...); len(left) > 0 {
			return fmt.Errorf("still known: %v", left)
		}
		return nil
	})
}

// An engine asks again and again while the pool meets a route of its host,
// and releases what it did not want afterwards.
func TestAutomaticPoolsAreNeverTheSameAndGoAgain(t *testing.T) {
	f := newFleet(t)
	h := f.host("a")
	seen := map[string]string{}
	for range 10 {
		pool, subnet := h.make("")
		assert.Assert(t, seen[subnet] == "", "%s twice", subnet)
		seen[subnet] = pool
	}
	for _, pool := range seen {
		h.leave(pool)
	}
	assert.DeepEqual(t, f.keys(), []string(nil))
}

func TestAutomaticPoolsAvoidRoutesAndEnd(t *testing.T) {
	f := newFleet(t)
	assert.NilError(t, registry.EnsurePool(t.Context(), f.st, record.Pool{Name: "small", CIDR: "10.9.0.0/22", SubnetBits: 24}))
	h := f.host("a", func(c *Config) {
		c.Routes = func() ([]netip.Prefix, error) {
			return []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.9.1.0/25")}, nil
		}
	})
	var got []string
	var last error
	for last == nil {
		var r *ipam.RequestPoolResponse
		r, last = h.RequestPool(&ipam.RequestPoolRequest{Options: map[string]string{OptPool: "small"}})
		if last == nil {
			got = append(got, r.Pool)
		}
	}
	assert.DeepEqual(t, got, []string{"10.9.0.0/24", "10.9.2.0/24", "10.9.3.0/24"})
	assert.ErrorIs(t, last, registry.ErrPoolExhausted)
	assert.ErrorContains(t, last, `no free subnet is left in pool "small"`)
	_, err := h.RequestPool(&ipam.RequestPoolRequest{Pool: "10.9.1.0/24"})
	assert.ErrorIs(t, err, registry.ErrRoute)
	assert.Error(t, err, "request pool: create network: subnet 10.9.1.0/24 overlaps the route to 10.9.1.0/25 of a host")
}

func TestRequestPoolRefuses(t *testing.T) {
	f := newFleet(t)
	h := f.host("a", func(c *Config) { c.Timeout = 0 })
	n := f.network(registry.Request{Name: "web", App: "x"})
	failing := f.host("b", func(c *Config) {
		c.Routes = func() ([]netip.Prefix, error) { return nil, errors.New("no netlink") }
	})
	before := f.keys()
	opt := func(id string) map[string]string { return map[string]string{OptNetwork: id} }
	for text, r := range map[string]*ipam.RequestPoolRequest{
		`pool "default6" does not exist`:                {V6: true},
		"has no IPv6 subnet":                            {V6: true, Options: opt(n.ID), Pool: "fd12::/64"},
		"say for how long":                              {Options: map[string]string{OptSticky: "yes"}},
		`unknown --ipam-opt "clocker.netwrk"`:           {Options: map[string]string{"clocker.netwrk": "x"}},
		`overlaps network "web" (10.208.0.0/20)`:        {Pool: "10.208.4.0/24"},
		"to join a network that exists":                 {Pool: "10.208.0.0/20"},
		"say --subnet 10.208.0.0/20":                    {Options: opt(n.ID)},
		`"web" (10.208.0.0/20) has another subnet than`: {Options: opt(n.ID), Pool: "10.208.16.0/20"},
		"has another address range than":                {Options: opt(n.ID), Pool: n.Subnet, SubPool: "10.208.1.0/24"},
		"network 0123456789ab: not found":               {Options: opt("0123456789ab"), Pool: n.Subnet},
		"is not IPv4":                                   {Pool: "fd00::/64"},
		"is not IPv6":                                   {Pool: "10.1.0.0/24", V6: true},
		"did you mean":                                  {Pool: "10.1.0.1/24"},
		`"10.1.0.0" is not a subnet`:                    {Pool: "10.1.0.0"},
		`"x" is not an --ip-range`:                      {Pool: "10.1.0.0/24", SubPool: "x"},
		"check range 10.2.0.0/25":                       {Pool: "10.1.0.0/24", SubPool: "10.2.0.0/25"},
		"needs a subnet":                                {SubPool: "10.2.0.0/25"},
		`unknown address space "a/b"`:                   {AddressSpace: "a/b"},
		`pool "none" does not exist`:                    {Options: map[string]string{OptPool: "none"}},
	} {
		_, err := h.RequestPool(r)
		assert.ErrorContains(t, err, text)
	}
	_, err := failing.RequestPool(&ipam.RequestPoolRequest{})
	assert.ErrorContains(t, err, "no netlink")
	assert.DeepEqual(t, f.keys(), before)
	assert.ErrorContains(t, h.ReleasePool(&ipam.ReleasePoolRequest{PoolID: "x"}), `unknown pool "x"`)
}

func TestRequestPoolOfASize(t *testing.T) {
	f := newFleet(t)
	h := f.host("a")
	_, subnet := h.make("0.0.0.0/24")
	assert.Equal(t, subnet, "10.208.0.0/24")
	_, err := h.RequestPool(&ipam.RequestPoolRequest{Pool: "0.0.0.0/30"})
	assert.ErrorContains(t, err, "from /8 to /29")
}

// A docker network that could not be made, and one made twice, leave the
// right number of uses.
func TestUsesAreCounted(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	assert.Equal(t, h.join(n), pool)
	a := h.get(pool, "", "web")
	h.leave(pool)
	assert.Assert(t, h.Owner(n.ID, netip.MustParseAddr(a)), "the first Docker network lost its address")
	h.leave(pool)
	assert.Assert(t, !h.Owner(n.ID, netip.MustParseAddr(a)))
	us, err := registry.Uses(t.Context(), f.st, n.ID)
	assert.NilError(t, err)
	assert.Equal(t, len(us), 0)
}

// When a host has left a network of the fleet, the network stays, and after a
// while nothing of the host is left in it.
func TestLeavingGivesBlocksBack(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	before := f.keys()
	h := f.host("a")
	pool := h.join(n)
	h.get(pool, "", "web")
	f.waitEndpoints(n, map[string]record.Endpoint{netipOnly(t, h, n): {Host: "a", Container: "web"}})
	h.leave(pool)
	f.clock.forward(31e9)
	f.wait(func() error {
		if ks := f.keys(); len(ks) != len(before) {
			return fmt.Errorf("left: %v", ks)
		}
		if ns := h.Networks(); len(ns) > 0 {
			return fmt.Errorf("still known: %v", ns)
		}
		return nil
	})
	// What the journal says is as empty.
	h.stop()
	again := f.host("a", at(h.crashed()))
	assert.Equal(t, len(again.Networks()), 0)
}

// netipOnly is the one address that the host holds.
func netipOnly(t *testing.T, h *host, n record.Network) string {
	t.Helper()
	held := h.Held()[n.ID]
	assert.Equal(t, len(held), 1)
	return held[0].Addr.String()
}

func TestKnownNetworkWorksWithEtcdAway(t *testing.T) {
	f := newFleet(t)
	n, other := f.subnet("10.1.0.0/24"), f.subnet("10.2.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	h.get(pool, "", "web")
	f.server.Stop()

	restarted := f.host("a", at(h.crashed()))
	assert.Equal(t, restarted.join(n), pool)
	restarted.get(pool, "", "db")
	for _, r := range []*ipam.RequestPoolRequest{
		{Options: map[string]string{OptNetwork: other.ID}, Pool: other.Subnet},
		{Pool: "10.3.0.0/24"},
	} {
		_, err := restarted.RequestPool(r)
		assert.ErrorContains(t, err, "etcd unreachable since")
	}
	restarted.leave(pool)
	restarted.leave(pool)
	f.server.Start()
	f.wait(func() error {
		us, err := registry.Uses(t.Context(), f.st, n.ID)
		if err == nil && len(us) > 0 {
			err = fmt.Errorf("still used: %v", us)
		}
		return err
	})
}

// A crash after etcd has made a network, before the journal knows of it,
// leaves no network behind.
func TestNetworkMadeBeforeACrashGoes(t *testing.T) {
	f := newFleet(t)
	_, err := registry.Create(t.Context(), f.st, f.clock.now(), registry.Request{UsedBy: "a", ByHand: true})
	assert.NilError(t, err)
	f.host("a")
	f.wait(func() error {
		if ks := f.keys(); len(ks) > 0 {
			return fmt.Errorf("left: %v", ks)
		}
		return nil
	})
}

func TestRemovedNetworkIsRefusedAndForgotten(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/29")
	h := f.host("a")
	pool := h.join(n)
	first := h.get(pool, "", "web")
	assert.NilError(t, registry.Delete(t.Context(), f.st, n.ID))
	_, err := h.request1(pool, "", "")
	assert.ErrorContains(t, err, "not found")
	_, err = h.RequestPool(&ipam.RequestPoolRequest{Pool: n.Subnet, Options: map[string]string{OptNetwork: n.ID}})
	assert.ErrorIs(t, err, store.ErrNotFound)
	assert.Assert(t, h.Owner(n.ID, netip.MustParseAddr(first)), "what runs still has its address")
	h.put(pool, first)
	h.leave(pool)
	assert.Equal(t, len(h.Networks()), 0)
	assert.DeepEqual(t, f.keys(), []string(nil))
	_, err = h.request1(pool, "", "")
	assert.ErrorContains(t, err, "not found")
	h.put(pool, first)
}

// A watch's word that a network has gone is enough.
func TestObserveLooksAgain(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	h.join(n)
	assert.NilError(t, registry.SetName(t.Context(), f.st, n.ID, "named"))
	h.Observe(store.Change{Puts: []store.Raw{{Key: f.st.Keys.Network(n.ID)}}})
	f.wait(func() error {
		if got, _ := h.Network(n.ID); got.Name != "named" {
			return fmt.Errorf("name is %q", got.Name)
		}
		return nil
	})
	assert.NilError(t, registry.Delete(t.Context(), f.st, n.ID))
	h.Observe(store.Change{Reset: true})
	f.wait(func() error {
		if _, ok := h.BySubnet(netip.MustParsePrefix(n.Subnet)); ok {
			return errors.New("removed network is still found")
		}
		return nil
	})
}

func FuzzParsePoolID(f *testing.F) {
	for _, s := range []string{"clocker-local/0123456789ab/10.1.0.0/24", "a/b/c", "//", "a//10.0.0.0/8", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePoolID(s)
		if err == nil && p.String() != s {
			t.Fatalf("%q was read as %q", s, p)
		}
	})
}

// A network that is being made at this moment is no left-over, though etcd
// has it and memory not yet.
func TestNetworkInTheMakingStays(t *testing.T) {
	f := newFleet(t)
	h := f.host("a")
	id := registry.NewID()
	h.mu.Lock()
	h.making[id] = true
	h.mu.Unlock()
	n := f.network(registry.Request{ID: id, UsedBy: "a", ByHand: true})
	assert.NilError(t, h.discover(t.Context()))
	_, known := h.Network(n.ID)
	assert.Assert(t, !known)

	h.mu.Lock()
	delete(h.making, id)
	h.mu.Unlock()
	assert.NilError(t, h.discover(t.Context()))
	h.kick()
	f.wait(func() error {
		if ks := f.keys(); len(ks) > 0 {
			return fmt.Errorf("left: %v", ks)
		}
		return nil
	})
}
