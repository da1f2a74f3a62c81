package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

var now = time.Unix(1_700_000_000, 0).UTC()

func newStore(t testing.TB, pool record.Pool) *store.Store {
	t.Helper()
	st := store.New(storetest.Start(t), "test")
	assert.NilError(t, EnsurePool(t.Context(), st, pool))
	return st
}

func standard() record.Pool {
	return record.Pool{Name: "default", CIDR: "10.208.0.0/12", SubnetBits: 20}
}

func TestCreateTakesTheNextSubnetWithDefaults(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	a, err := Create(ctx, st, now, Request{Name: "a_default", App: "a", Labels: map[string]string{"k": "v"}})
	assert.NilError(t, err)
	assert.Equal(t, len(a.ID), 12)
	want := record.Network{
		ID: a.ID, Name: "a_default", App: "a", Subnet: "10.208.0.0/20", Gateway: "10.208.0.1", BlockBits: 26, Pool: "default", VNI: a.VNI,
		Segment: "routed", Carrier: "auto", Egress: "plugin", MTU: 1500, Labels: map[string]string{"k": "v"}, CreatedAt: now,
	}
	assert.DeepEqual(t, a, want)
	got, err := Get(ctx, st, a.ID)
	assert.NilError(t, err)
	assert.DeepEqual(t, got, want)
	b, err := Create(ctx, st, now, Request{})
	assert.NilError(t, err)
	assert.Equal(t, b.Subnet, "10.208.16.0/20")
	again, err := Create(ctx, st, now.Add(time.Hour), Request{Name: "a_default", App: "a"})
	assert.NilError(t, err)
	assert.DeepEqual(t, again, want)
	ns, err := List(ctx, st)
	assert.NilError(t, err)
	assert.Equal(t, len(ns), 2)
	byName, err := ByName(ctx, st, "a_default")
	assert.NilError(t, err)
	assert.Equal(t, byName.ID, a.ID)
	bySubnet, err := BySubnet(ctx, st, netip.MustParsePrefix("10.208.16.0/20"))
	assert.NilError(t, err)
	assert.Equal(t, bySubnet.ID, b.ID)
	_, err = BySubnet(ctx, st, netip.MustParsePrefix("10.208.16.0/21"))
	assert.ErrorIs(t, err, store.ErrNotFound)
}

func TestCreateRefuses(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	_, err := Create(ctx, st, now, Request{Name: "web", App: "a", Subnet: netip.MustParsePrefix("10.1.0.0/24")})
	assert.NilError(t, err)
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for name, c := range map[string]struct {
		r    Request
		is   error
		text string
	}{
		"overlap":          {Request{Subnet: p("10.1.0.0/16")}, ErrOverlap, `subnet 10.1.0.0/16 overlaps network "web" (10.1.0.0/24)`},
		"route":            {Request{Subnet: p("10.2.0.0/16"), Avoid: []netip.Prefix{p("0.0.0.0/0"), p("10.2.3.0/24")}}, ErrOverlap, "overlaps the route to 10.2.3.0/24 of a host"},
		"name of an app":   {Request{Name: "web"}, ErrNameTaken, `network "web" (10.1.0.0/24) exists`},
		"other app":        {Request{Name: "web", App: "b"}, ErrNameTaken, "exists"},
		"other subnet":     {Request{Name: "web", App: "a", Subnet: p("10.3.0.0/24")}, ErrNameTaken, "another subnet than 10.3.0.0/24"},
		"odd name":         {Request{Name: "a b"}, nil, "only letters"},
		"IPv6":             {Request{Subnet: p("fd00::/64")}, nil, "is not IPv4"},
		"host bits":        {Request{Subnet: p("10.3.0.1/24")}, nil, "did you mean 10.3.0.0/24?"},
		"gateway outside":  {Request{Subnet: p("10.3.0.0/24"), Gateway: a("10.4.0.1")}, nil, "not in the subnet"},
		"gateway alone":    {Request{Gateway: a("10.4.0.1")}, nil, "needs a subnet"},
		"range outside":    {Request{Subnet: p("10.3.0.0/24"), Range: p("10.4.0.0/25")}, nil, "not in the subnet"},
		"no such pool":     {Request{Pool: "other"}, store.ErrNotFound, `pool "other" does not exist`},
		"pool of routes":   {Request{Avoid: []netip.Prefix{p("10.0.0.0/8")}}, ErrPoolExhausted, `no free subnet is left in pool "default"`},
		"cannot be a host": {Request{Subnet: p("169.254.0.0/16")}, nil, "special meaning"},
	} {
		_, err := Create(ctx, st, now, c.r)
		assert.ErrorContains(t, err, c.text, name)
		if c.is != nil {
			assert.ErrorIs(t, err, c.is, name)
		}
	}
	ns, err := List(ctx, st)
	assert.NilError(t, err)
	assert.Equal(t, len(ns), 1)
}

func TestCreateAvoidsRoutesAndExhausts(t *testing.T) {
	st, ctx := newStore(t, record.Pool{Name: "default", CIDR: "10.208.0.0/18", SubnetBits: 20}), t.Context()
	r := Request{Avoid: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("10.208.16.4/30")}}
	var got []string
	for {
		n, err := Create(ctx, st, now, r)
		if errors.Is(err, ErrPoolExhausted) {
			break
		}
		assert.NilError(t, err)
		got = append(got, n.Subnet)
	}
	assert.DeepEqual(t, got, []string{"10.208.0.0/20", "10.208.32.0/20", "10.208.48.0/20"})
}

func TestCreateTakesTheLeastMTU(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	put := func(host string, mtu int, address, link string) {
		u := record.Underlay{Host: host, MTU: mtu, Address: address, Links: []string{link}}
		_, err := st.Txn().Put(st.Keys.Underlay(host), u).Commit(ctx)
		assert.NilError(t, err)
	}
	made := func(mtus map[string]int) {
		for carrier, want := range mtus {
			n, err := Create(ctx, st, now, Request{Carrier: carrier})
			assert.NilError(t, err)
			assert.Equal(t, n.MTU, want, carrier)
		}
	}
	put("a", 1500, "10.0.0.1", "10.0.0.0/24")
	put("b", 1400, "10.0.0.2", "10.0.0.0/24")
	put("c", 9000, "10.0.0.3", "10.0.0.0/24")
	made(map[string]int{"": 1400, "auto": 1400, "direct": 1400, "vxlan": 1350, "wireguard": 1328})
	put("d", 1500, "10.0.1.1", "10.0.1.0/24")
	made(map[string]int{"": 1350, "auto": 1350, "direct": 1400, "vxlan": 1350, "wireguard": 1328})
	n, err := Create(ctx, st, now, Request{MTU: 1280})
	assert.NilError(t, err)
	assert.Equal(t, n.MTU, 1280)
}

// Many at once never get overlapping subnets, and all get one.
func TestCreateConcurrently(t *testing.T) {
	st := newStore(t, standard())
	const n = 40
	var wg sync.WaitGroup
	var mu sync.Mutex
	subnets, ids := map[string]bool{}, map[string]bool{}
	for i := range n {
		wg.Go(func() {
			r := Request{}
			if i%4 == 0 {
				r = Request{Name: "shared", App: "app"}
			}
			got, err := Create(t.Context(), st, now, r)
			if err != nil {
				t.Errorf("create: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if r.Name != "" {
				ids[got.ID] = true
			} else if subnets[got.Subnet] {
				t.Errorf("subnet %s twice", got.Subnet)
			}
			subnets[got.Subnet] = true
		})
	}
	wg.Wait()
	assert.Equal(t, len(ids), 1)
	assert.Equal(t, len(subnets), n*3/4+1)
}

func TestCreateHoldsToTheCallersGuard(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	_, err := st.Client().Put(ctx, "/fence", "1")
	assert.NilError(t, err)
	gone := clientv3.Compare(clientv3.CreateRevision("/fence"), "=", 0)
	held := clientv3.Compare(clientv3.CreateRevision("/fence"), ">", 0)
	_, err = Create(ctx, st, now, Request{}, gone)
	assert.ErrorIs(t, err, store.ErrConflict)
	n, err := Create(ctx, st, now, Request{}, held)
	assert.NilError(t, err)
	assert.ErrorIs(t, Delete(ctx, st, n.ID, gone), store.ErrConflict)
	assert.NilError(t, Delete(ctx, st, n.ID, held))
}

func TestDeleteLeavesNothing(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	before := keys(t, st)
	n, err := Create(ctx, st, now, Request{UsedBy: "h1", ByHand: true})
	assert.NilError(t, err)
	other, err := Create(ctx, st, now, Request{})
	assert.NilError(t, err)
	for _, id := range []string{n.ID, other.ID} {
		_, err = st.Txn().Put(st.Keys.Block(id, "10.208.0.0/26"), record.Block{Host: "h1"}).
			Put(st.Keys.Endpoint(id, "10.208.0.2"), record.Endpoint{Host: "h1"}).Commit(ctx)
		assert.NilError(t, err)
	}
	assert.NilError(t, Delete(ctx, st, n.ID))
	assert.NilError(t, Delete(ctx, st, n.ID))
	_, err = Get(ctx, st, n.ID)
	assert.ErrorIs(t, err, store.ErrNotFound)
	_, err = store.Get[record.Block](ctx, st, st.Keys.Block(other.ID, "10.208.0.0/26"))
	assert.NilError(t, err)
	assert.NilError(t, Delete(ctx, st, other.ID))
	assert.DeepEqual(t, keys(t, st), before)
}

// keys lists every key of the fleet but the guard.
func keys(t testing.TB, st *store.Store) []string {
	t.Helper()
	r, err := st.Client().Get(t.Context(), st.Keys.Prefix(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	assert.NilError(t, err)
	var ks []string
	for _, kv := range r.Kvs {
		if string(kv.Key) != st.Keys.NetworkGuard() {
			ks = append(ks, string(kv.Key))
		}
	}
	return ks
}

func TestSetName(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	a, err := Create(ctx, st, now, Request{ByHand: true})
	assert.NilError(t, err)
	b, err := Create(ctx, st, now, Request{ByHand: true})
	assert.NilError(t, err)
	assert.NilError(t, SetName(ctx, st, a.ID, "net"))
	assert.NilError(t, SetName(ctx, st, a.ID, "net"))
	assert.ErrorIs(t, SetName(ctx, st, b.ID, "net"), ErrNameTaken)
	assert.ErrorIs(t, SetName(ctx, st, "000000000000", "other"), store.ErrNotFound)
	assert.ErrorContains(t, SetName(ctx, st, b.ID, ""), "not a network name")
	_, err = Create(ctx, st, now, Request{Name: "net"})
	assert.ErrorIs(t, err, ErrNameTaken)
	got, err := Get(ctx, st, a.ID)
	assert.NilError(t, err)
	assert.Equal(t, got.Name, "net")
}

func TestSetGatewayOnlyBeforeTheFirstBlock(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	n, err := Create(ctx, st, now, Request{})
	assert.NilError(t, err)
	n, err = SetGateway(ctx, st, n.ID, netip.MustParseAddr("10.208.15.254"))
	assert.NilError(t, err)
	assert.Equal(t, n.Gateway, "10.208.15.254")
	_, err = SetGateway(ctx, st, n.ID, netip.MustParseAddr("10.208.16.1"))
	assert.ErrorContains(t, err, "not in the subnet")
	_, err = st.Txn().Put(st.Keys.Block(n.ID, "10.208.0.0/26"), record.Block{Host: "h"}).Commit(ctx)
	assert.NilError(t, err)
	_, err = SetGateway(ctx, st, n.ID, netip.MustParseAddr("10.208.0.1"))
	assert.ErrorIs(t, err, ErrInUse)
}

func TestReserveConcurrently(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	n, err := Create(ctx, st, now, Request{})
	assert.NilError(t, err)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			_, err := Reserve(ctx, st, n.ID, netip.MustParseAddr(fmt.Sprintf("10.208.0.%d", 10+i%5)))
			if err != nil {
				t.Errorf("reserve: %v", err)
			}
		})
	}
	wg.Wait()
	got, err := Get(ctx, st, n.ID)
	assert.NilError(t, err)
	assert.Equal(t, len(got.Reserved), 5)
	_, err = Reserve(ctx, st, n.ID, netip.MustParseAddr("10.9.0.1"))
	assert.ErrorContains(t, err, "not in the subnet")
}

func TestUses(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	before := keys(t, st)
	n, err := Create(ctx, st, now, Request{ByHand: true, UsedBy: "h1"})
	assert.NilError(t, err)
	assert.NilError(t, Use(ctx, st, n.ID, "h2", false, now))
	assert.NilError(t, Use(ctx, st, n.ID, "h2", false, now))
	us, err := Uses(ctx, st, n.ID)
	assert.NilError(t, err)
	assert.DeepEqual(t, us, []record.NetworkUse{{Host: "h1", Made: true, Since: now}, {Host: "h2", Since: now}})
	gone, err := Unuse(ctx, st, n.ID, "h1")
	assert.NilError(t, err)
	assert.Assert(t, !gone)
	gone, err = Unuse(ctx, st, n.ID, "h2")
	assert.NilError(t, err)
	assert.Assert(t, gone)
	gone, err = Unuse(ctx, st, n.ID, "h2")
	assert.NilError(t, err)
	assert.Assert(t, gone)
	assert.ErrorIs(t, Use(ctx, st, n.ID, "h2", false, now), store.ErrNotFound)
	assert.DeepEqual(t, keys(t, st), before)

	fleet, err := Create(ctx, st, now, Request{Name: "kept", UsedBy: "h1"})
	assert.NilError(t, err)
	gone, err = Unuse(ctx, st, fleet.ID, "h1")
	assert.NilError(t, err)
	assert.Assert(t, !gone, "a network of the fleet went with its last use")
}

func TestClaimForeign(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	n, err := Create(ctx, st, now, Request{Subnet: netip.MustParsePrefix("172.20.0.0/16"), Foreign: "h1"})
	assert.NilError(t, err)
	assert.ErrorContains(t, ClaimForeign(ctx, st, n, "h2", now), `made on host "h1", not on "h2"`)
	assert.NilError(t, ClaimForeign(ctx, st, n, "h1", now))
	assert.NilError(t, ClaimForeign(ctx, st, n, "h1", now))
	b, err := store.Get[record.Block](ctx, st, st.Keys.Block(n.ID, "172.20.0.0/17"))
	assert.NilError(t, err)
	assert.DeepEqual(t, b.Value, record.Block{Host: "h1", State: record.BlockEngine, Since: now})
	ls, err := Layouts(n)
	assert.NilError(t, err)
	l := ls[0]
	assert.Assert(t, !l.Claimable(0) && !l.Claimable(511) && l.Claimable(512))
	assert.NilError(t, Delete(ctx, st, n.ID))
	assert.ErrorIs(t, ClaimForeign(ctx, st, n, "h1", now), store.ErrNotFound)
}

func TestEnsurePool(t *testing.T) {
	st, ctx := newStore(t, standard()), t.Context()
	assert.NilError(t, EnsurePool(ctx, st, standard()))
	for text, p := range map[string]record.Pool{
		"it exists as 10.208.0.0/12":      {Name: "default", CIDR: "10.209.0.0/16", SubnetBits: 24},
		"overlaps pool":                   {Name: "other", CIDR: "10.209.0.0/16", SubnetBits: 24},
		"not an address range":            {Name: "other", CIDR: "10.209.0.0", SubnetBits: 24},
		"do not fit":                      {Name: "other", CIDR: "10.9.0.0/16", SubnetBits: 12},
		"only letters":                    {Name: "a/b", CIDR: "10.9.0.0/16", SubnetBits: 20},
		"do not fit (from /32 to /120)":   {Name: "six", CIDR: "fd00::/16", SubnetBits: 20},
		"did you mean 172.16.0.0/12?":     {Name: "bits", CIDR: "172.16.0.1/12", SubnetBits: 20},
		"that range has a special meanin": {Name: "ll", CIDR: "169.254.0.0/16", SubnetBits: 20},
	} {
		assert.ErrorContains(t, EnsurePool(ctx, st, p), text)
	}
	assert.NilError(t, EnsurePool(ctx, st, record.Pool{Name: "other", CIDR: "10.9.0.0/16", SubnetBits: 24}))
	n, err := Create(ctx, st, now, Request{Pool: "other"})
	assert.NilError(t, err)
	assert.Equal(t, n.Subnet, "10.9.0.0/24")
	assert.Equal(t, n.BlockBits, 28)
}

func TestCreateEndsWithItsContext(t *testing.T) {
	s := storetest.StartServer(t)
	st := store.New(s.Client(), "test")
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := Create(ctx, st, now, Request{})
	assert.ErrorContains(t, err, "create network")
}
