package registry

import (
	"net/netip"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

func publish(t *testing.T, st *store.Store, us ...record.Underlay) {
	t.Helper()
	for _, u := range us {
		_, err := st.Txn().Put(st.Keys.Underlay(u.Host), u).Commit(t.Context())
		assert.NilError(t, err)
	}
}

func TestPools(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	publish(t, st, record.Underlay{Host: "h1", Routes: []string{"0.0.0.0/0", "10.9.3.0/24"}})
	assert.NilError(t, AddPool(ctx, st, record.Pool{Name: "lab", CIDR: "10.8.0.0/16", SubnetBits: 24}))
	for text, p := range map[string]record.Pool{
		"name is taken: it exists as 10.8.0.0/16":                        {Name: "lab", CIDR: "10.8.0.0/16", SubnetBits: 24},
		`overlaps pool "lab"`:                                            {Name: "x", CIDR: "10.8.0.0/17", SubnetBits: 24},
		"range 10.9.0.0/16 overlaps the route to 10.9.3.0/24 of host h1": {Name: "x", CIDR: "10.9.0.0/16", SubnetBits: 24},
		"special meaning":                                                {Name: "x", CIDR: "169.254.0.0/16", SubnetBits: 24},
	} {
		assert.ErrorContains(t, AddPool(ctx, st, p), text)
	}
	n, err := Create(ctx, st, now, Request{Name: "web", App: "a", Pool: "lab"})
	assert.NilError(t, err)
	asked, err := Create(ctx, st, now, Request{Name: "db", App: "a", Subnet: netip.MustParsePrefix("10.8.128.0/23")})
	assert.NilError(t, err)
	assert.Equal(t, n.Pool+asked.Pool, "lab")
	_, err = st.Txn().Put(st.Keys.Block(n.ID, "10.8.0.0/28"), record.Block{Host: "h1", State: record.BlockOwned}).
		Put(st.Keys.Endpoint(n.ID, "10.8.0.2"), record.Endpoint{Host: "h1"}).
		Put(st.Keys.Endpoint(n.ID, "10.8.0.3"), record.Endpoint{Host: "h1"}).
		Put(st.Keys.Pin(n.ID, "10.8.0.99"), record.Pin{Host: "h1"}).Commit(ctx)
	assert.NilError(t, err)
	u, err := InspectPool(ctx, st, "lab")
	assert.NilError(t, err)
	assert.Equal(t, len(u.Networks), 2)
	for _, nu := range u.Networks {
		if nu.ID == n.ID {
			assert.DeepEqual(t, nu, NetworkUsage{ID: n.ID, Name: "web", Subnet: "10.8.0.0/24", Size: 256, Blocks: 1, Addresses: 2, Pins: 1})
		}
	}
	assert.Equal(t, u.Subnets, int64(256))
	assert.Equal(t, u.Free, int64(253))

	err = RemovePool(ctx, st, "lab")
	assert.ErrorIs(t, err, ErrInUse)
	assert.ErrorContains(t, err, `"web" (10.8.0.0/24)`)
	assert.ErrorContains(t, err, `"db" (10.8.128.0/23)`)
	assert.NilError(t, Delete(ctx, st, n.ID))
	assert.NilError(t, Delete(ctx, st, asked.ID))
	assert.NilError(t, RemovePool(ctx, st, "lab"))
	assert.ErrorIs(t, RemovePool(ctx, st, "lab"), store.ErrNotFound)
	_, err = InspectPool(ctx, st, "lab")
	assert.ErrorIs(t, err, store.ErrNotFound)
	ps, err := Pools(ctx, st)
	assert.NilError(t, err)
	assert.DeepEqual(t, ps, []record.Pool{standard()})
}

func TestDefaultPools(t *testing.T) {
	st, ctx := store.New(storetest.Start(t), "test"), t.Context()
	publish(t, st, record.Underlay{Host: "h1", Routes: []string{"10.210.0.0/16"}}, record.Underlay{Host: "h2", Routes: []string{"10.96.0.0/24", "default"}})
	assert.NilError(t, EnsureDefaults(ctx, st))
	ps, err := Pools(ctx, st)
	assert.NilError(t, err)
	assert.Equal(t, len(ps), 2)
	assert.DeepEqual(t, ps[0], record.Pool{Name: "default", CIDR: "10.160.0.0/12", SubnetBits: 20})
	six := netip.MustParsePrefix(ps[1].CIDR)
	assert.Assert(t, ps[1].Name == "default6" && six.Bits() == 48 && six.Addr().As16()[0] == 0xfd && ps[1].SubnetBits == 64)
	assert.NilError(t, EnsureDefaults(ctx, st))
	again, err := Pools(ctx, st)
	assert.NilError(t, err)
	assert.DeepEqual(t, again, ps)
}

func TestRoutesOfHostsAreKeptAwayFrom(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	publish(t, st, record.Underlay{Host: "h1", Routes: []string{"10.208.0.0/19", "fd12::/32"}})
	n, err := Create(ctx, st, now, Request{})
	assert.NilError(t, err)
	assert.Equal(t, n.Subnet, "10.208.32.0/20")
	_, err = Create(ctx, st, now, Request{Subnet: netip.MustParsePrefix("10.208.4.0/24"), Subnet6: netip.MustParsePrefix("fd12::/64")})
	assert.ErrorIs(t, err, ErrRoute)
	assert.ErrorContains(t, err, "subnet 10.208.4.0/24 overlaps the route to 10.208.0.0/19 of host h1")
	assert.ErrorContains(t, err, "subnet fd12::/64 overlaps the route to fd12::/32 of host h1")
}

func TestNetworksOfBothFamilies(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	assert.NilError(t, EnsureDefaults(ctx, st))
	both, err := Create(ctx, st, now, Request{Name: "both", App: "a", IPv6: true})
	assert.NilError(t, err)
	six, err := Create(ctx, st, now, Request{NoIPv4: true, SubnetBits6: 112})
	assert.NilError(t, err)
	p := netip.MustParsePrefix(both.Subnet6)
	assert.Equal(t, p.Bits(), 64)
	assert.Equal(t, both.Gateway6, p.Addr().Next().String())
	assert.Equal(t, both.BlockBits6, 122)
	assert.Equal(t, both.Pool+both.Pool6, "defaultdefault6")
	assert.Equal(t, six.Subnet+six.Gateway, "")
	assert.Assert(t, !netip.MustParsePrefix(six.Subnet6).Overlaps(p))
	assert.Assert(t, both.VNI != six.VNI)
	again, err := Create(ctx, st, now, Request{Name: "both", App: "a", IPv6: true})
	assert.NilError(t, err)
	assert.Equal(t, again.ID, both.ID)
	found, err := BySubnet(ctx, st, p)
	assert.NilError(t, err)
	assert.Equal(t, found.ID, both.ID)
	for text, r := range map[string]Request{
		"is not IPv6":                 {Subnet6: netip.MustParsePrefix("10.1.0.0/24")},
		"is not IPv4":                 {Subnet: netip.MustParsePrefix("fd13::/64")},
		"from /32 to /120":            {IPv6: true, SubnetBits6: 20},
		"needs a subnet, of IPv6":     {IPv6: true, Gateway6: netip.MustParseAddr("fd13::1")},
		"of the other address family": {IPv6: true, Pool6: "default"},
		"exists with another subnet":  {Name: "both", App: "a", Subnet6: netip.MustParsePrefix("fd13::/64")},
		"overlaps network":            {Subnet6: netip.PrefixFrom(p.Addr(), 60).Masked()},
		"not in the subnet fd13::/64": {Subnet6: netip.MustParsePrefix("fd13::/64"), Gateway6: netip.MustParseAddr("fd14::1")},
	} {
		_, err := Create(ctx, st, now, r)
		assert.ErrorContains(t, err, text)
	}
}

func TestJoin(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	assert.NilError(t, EnsureDefaults(ctx, st))
	a, err := Create(ctx, st, now, Request{ByHand: true, UsedBy: "h1"})
	assert.NilError(t, err)
	half, err := Create(ctx, st, now, Request{NoIPv4: true, ByHand: true, UsedBy: "h1"})
	assert.NilError(t, err)
	named, err := Create(ctx, st, now, Request{NoIPv4: true, Name: "six"})
	assert.NilError(t, err)
	_, err = Join(ctx, st, a.ID, named.ID)
	assert.ErrorContains(t, err, "is a network of its own")
	for range 2 {
		n, err := Join(ctx, st, a.ID, half.ID)
		assert.NilError(t, err)
		assert.Equal(t, n.Subnet+n.Subnet6, a.Subnet+half.Subnet6)
		assert.Equal(t, n.Pool6, "default6")
	}
	n, err := Get(ctx, st, half.ID)
	assert.NilError(t, err)
	assert.Equal(t, n.ID, a.ID)
	_, err = Join(ctx, st, a.ID, named.ID)
	assert.ErrorContains(t, err, "has an IPv6 subnet already")
	gone, err := Unuse(ctx, st, a.ID, "h1")
	assert.NilError(t, err)
	assert.Assert(t, gone)
}

func TestReclaim(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	n, err := Create(ctx, st, now, Request{})
	assert.NilError(t, err)
	k := st.Keys
	put := func(key string, v any) {
		t.Helper()
		_, err := st.Txn().Put(key, v).Commit(ctx)
		assert.NilError(t, err)
	}
	mine, other := k.Block(n.ID, "10.208.0.0/26"), k.Block(n.ID, "10.208.0.64/26")
	put(mine, record.Block{Host: "h1", Epoch: 7, State: record.BlockOwned})
	put(other, record.Block{Host: "h2", State: record.BlockOwned})
	put(k.Pin(n.ID, "10.208.0.70"), record.Pin{Host: "h1", Owner: "h2", Container: "web"})
	put(k.Endpoint(n.ID, "10.208.0.3"), record.Endpoint{Host: "h1"})
	put(k.Endpoint(n.ID, "10.208.0.80"), record.Endpoint{Host: "h2"})
	put(k.Ask("h2", "1"), record.Ask{From: "h1", Owner: "h2"})
	for _, key := range []string{k.HostLease("h1"), k.Live("h1")} {
		put(key, record.Live{Host: "h1"})
		assert.ErrorIs(t, Reclaim(ctx, st, "h1"), ErrAlive)
		_, err := st.Txn().Delete(key).Commit(ctx)
		assert.NilError(t, err)
	}
	before, err := store.Get[record.Block](ctx, st, mine)
	assert.NilError(t, err)
	assert.Equal(t, before.Value.State, record.BlockOwned)

	assert.NilError(t, Reclaim(ctx, st, "h1"))
	assert.NilError(t, Reclaim(ctx, st, "h1"))
	b, err := store.Get[record.Block](ctx, st, mine)
	assert.NilError(t, err)
	assert.DeepEqual(t, b.Value, record.Block{Host: "h1", Epoch: 7, State: record.BlockQuarantined})
	r, err := st.Client().Get(ctx, mine)
	assert.NilError(t, err)
	ttl, err := st.Client().TimeToLive(ctx, leaseOf(r))
	assert.NilError(t, err)
	assert.Assert(t, ttl.GrantedTTL == 60, "%d", ttl.GrantedTTL)
	pin, err := store.Get[record.Pin](ctx, st, k.Pin(n.ID, "10.208.0.70"))
	assert.NilError(t, err)
	assert.Assert(t, pin.Value.Released)
	_, err = store.Get[record.Endpoint](ctx, st, k.Endpoint(n.ID, "10.208.0.3"))
	assert.ErrorIs(t, err, store.ErrNotFound)
	_, err = store.Get[record.Endpoint](ctx, st, k.Endpoint(n.ID, "10.208.0.80"))
	assert.NilError(t, err)
	_, err = store.Get[record.Ask](ctx, st, k.Ask("h2", "1"))
	assert.ErrorIs(t, err, store.ErrNotFound)
	b, err = store.Get[record.Block](ctx, st, other)
	assert.NilError(t, err)
	assert.Equal(t, b.Value.State, record.BlockOwned)
}

func TestAuditReadsEtcd(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	n, err := Create(ctx, st, now, Request{Name: "web", App: "a"})
	assert.NilError(t, err)
	k := st.Keys
	_, err = st.Txn().Put(k.HostSpec("h1"), record.Host{ID: "h1", Name: "alpha"}).
		Put(k.Block(n.ID, "10.208.0.0/26"), record.Block{Host: "h1", State: record.BlockOwned}).
		Put(k.Endpoint(n.ID, "10.208.0.3"), record.Endpoint{Host: "h1"}).
		Put(k.Service(n.ID, "10.208.0.200"), record.Service{App: "a", Service: "web", Address: "10.208.0.200"}).
		Put(k.Block(n.ID, "10.208.0.192/26"), record.Block{State: record.BlockServices}).
		Put(k.Pin(n.ID, "10.208.1.3"), record.Pin{Host: "h1"}).
		Put(k.Endpoint(n.ID, "10.208.1.3"), record.Endpoint{Host: "h1"}).Commit(ctx)
	assert.NilError(t, err)
	got, err := Audit(ctx, st)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []finding.Finding(nil))
	_, err = st.Txn().Put(k.Endpoint(n.ID, "10.208.0.100"), record.Endpoint{Host: "h1"}).Commit(ctx)
	assert.NilError(t, err)
	got, err = Audit(ctx, st)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, []finding.Finding{{
		Part: "addresses", Subject: "address 10.208.0.100 of network web",
		Text: "address 10.208.0.100 of network web is in use by host alpha, but in no block and not pinned",
	}})
}

func leaseOf(r *clientv3.GetResponse) clientv3.LeaseID { return clientv3.LeaseID(r.Kvs[0].Lease) }
