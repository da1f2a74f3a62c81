package driver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// ledger notes who holds which address, over all hosts, and complains about
// one that is held twice.
type ledger struct {
	mu   sync.Mutex
	held map[string]string
}

func (l *ledger) take(t testing.TB, address, who string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if other, ok := l.held[address]; ok {
		t.Errorf("%s was given to %s while %s held it", address, who, other)
	}
	l.held[address] = who
}

func (l *ledger) drop(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, address)
}

// Five hosts ask for 30,000 addresses of one network, release some, and two
// of them stop dead in the middle, between the journal and etcd.
func TestNoAddressTwiceOverHosts(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/16")
	l := &ledger{held: map[string]string{}}
	const hosts, callers, each = 5, 8, 750
	var wg sync.WaitGroup
	for i := range hosts {
		id := fmt.Sprint("host", i)
		patient := func(c *Config) { c.Timeout = 5 * time.Second }
		h := f.host(id, patient)
		pool := h.join(n)
		wg.Go(func() {
			ask(t, l, h, pool, id, callers, each/2)
			if i < 2 {
				dir := h.crash()
				h = f.host(id, patient, at(dir))
			}
			ask(t, l, h, pool, id, callers, each/2)
		})
	}
	wg.Wait()
	if len(l.held) < hosts*callers*each*4/5 {
		t.Errorf("%d addresses are held", len(l.held))
	}
	for _, it := range f.owners(n) {
		assert.Assert(t, it != "")
	}
	f.wait(func() error {
		items, _, err := store.List[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(n.ID, ""))
		if err == nil && len(items) != len(l.held) {
			err = fmt.Errorf("etcd has %d endpoints of %d", len(items), len(l.held))
		}
		return err
	})
}

// ask requests addresses from several goroutines; one in six is released.
func ask(t testing.TB, l *ledger, h *host, pool, id string, callers, each int) {
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				var s string
				err := patiently(func() (err error) { s, err = h.request1(pool, "", ""); return err })
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				a := netip.MustParsePrefix(s).Addr().String()
				l.take(t, a, id)
				if rand.N(6) == 0 {
					l.drop(a)
					h.put(pool, a)
				}
			}
		})
	}
	wg.Wait()
}

// In a network that is nearly full, hosts take, give back and reclaim each
// other's blocks all the time while addresses come and go, also explicit
// ones, and hosts stop dead.
func TestNoAddressTwiceWhenScarce(t *testing.T) {
	t.Run("IPv4", func(t *testing.T) {
		f := newFleet(t)
		n := f.subnet("10.1.0.0/26")
		scarce(f, n, 61, netip.MustParseAddr("10.1.0.0"), func(h *host) string { return h.join(n) })
	})
	t.Run("IPv6", func(t *testing.T) {
		f := newFleet(t)
		n := f.network(registry.Request{NoIPv4: true, Subnet6: netip.MustParsePrefix("fd12::/120"), Range6: netip.MustParsePrefix("fd12::/122")})
		scarce(f, n, 62, netip.MustParseAddr("fd12::"), func(h *host) string { return h.join6(n) })
	})
	t.Run("names", func(t *testing.T) {
		f := newFleet(t)
		n := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.1.0.0/26"), Options: map[string]string{OptSticky: "1s"}})
		scarce(f, n, 61, netip.MustParseAddr("10.1.0.0"), func(h *host) string { return h.join(n) })
	})
}

func scarce(t *fleet, n record.Network, size int, first netip.Addr, join func(*host) string) {
	f := t
	l := &ledger{held: map[string]string{}}
	quick := func(c *Config) { c.Cooldown, c.IdleReturn = time.Millisecond, 2*time.Millisecond }
	var wg sync.WaitGroup
	for i := range 4 {
		id := fmt.Sprint("host", i)
		h := f.host(id, quick)
		pool := join(h)
		wg.Go(func() {
			var mine []string
			for round := range 400 {
				switch r := rand.N(20); {
				case r < 10:
					address, name := "", ""
					if r < 2 {
						a := first
						for range 2 + rand.N(60) {
							a = a.Next()
						}
						address = a.String()
					}
					if r%3 == 0 {
						name = fmt.Sprint("c", rand.N(20))
					}
					if s, err := h.request1(pool, address, name); err == nil {
						a := netip.MustParsePrefix(s).Addr().String()
						l.take(t, a, id)
						mine = append(mine, a)
					}
				case r < 19 && len(mine) > 0:
					k := rand.N(len(mine))
					l.drop(mine[k])
					h.put(pool, mine[k])
					mine[k] = mine[len(mine)-1]
					mine = mine[:len(mine)-1]
				case r == 19 && round%8 == 0:
					dir := h.crash()
					h = f.host(id, quick, at(dir))
				}
			}
			for _, a := range mine {
				l.drop(a)
				h.put(pool, a)
			}
			h.leave(pool)
		})
	}
	wg.Wait()
	// Nothing is lost for good: when all is released, all is free again.
	f.wait(func() error {
		if o := f.owners(n); len(o) > 0 {
			return fmt.Errorf("still owned: %v", o)
		}
		return nil
	})
	last := f.host("last")
	pool := join(last)
	for range size {
		last.get(pool, "", "")
	}
	_, err := last.request1(pool, "", "")
	assert.ErrorIs(t, err, ErrNoAddress)
}

// A crash after the journal has an address, before etcd has: the address
// stays held, and etcd learns of it.
func TestCrashBeforePublication(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	gone := h.get(pool, "", "gone")
	f.waitEndpoints(n, map[string]record.Endpoint{gone: {Host: "a", Container: "gone"}})
	f.server.Stop()
	h.put(pool, gone)
	kept := h.get(pool, "", "kept")
	dir := h.crash()
	f.server.Start()

	h = f.host("a", at(dir))
	assert.Assert(t, h.Owner(n.ID, netip.MustParseAddr(kept)))
	f.waitEndpoints(n, map[string]record.Endpoint{kept: {Host: "a", Container: "kept"}})
	assert.Assert(t, h.get(pool, "", "") != kept)
}

// Blocks that etcd says are ours, and the journal does not know, are used
// when they are of this journal's time, and left alone when they are not.
func TestBlocksUnknownToTheJournal(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	epoch := h.epoch
	h.stop()
	put := func(cidr string, epoch int64) {
		_, err := f.st.Txn().Put(f.st.Keys.Block(n.ID, cidr), record.Block{Host: "a", Epoch: epoch, State: record.BlockOwned}).Commit(t.Context())
		assert.NilError(t, err)
	}
	put("10.1.0.32/28", epoch)
	put("10.1.0.48/28", epoch-1)
	put("10.1.0.64/28", epoch+1)
	for i := range 16 {
		if cidr := fmt.Sprintf("10.1.0.%d/28", 16*i); i < 2 || i > 4 {
			_, err := f.st.Txn().Put(f.st.Keys.Block(n.ID, cidr), record.Block{Host: "b"}).Commit(t.Context())
			assert.NilError(t, err)
		}
	}
	h = f.host("a", at(h.dir))
	for range 16 {
		a := h.get(pool, "", "")
		assert.Assert(t, netip.MustParsePrefix("10.1.0.32/28").Contains(netip.MustParseAddr(a)), "%s", a)
	}
	_, err := h.request1(pool, "", "")
	assert.ErrorIs(t, err, ErrNoAddress)
}

// With the journal gone nobody knows which addresses are held: none of the
// old blocks is given out again.
func TestLostJournal(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	held := map[string]bool{}
	for range 14 {
		held[h.get(pool, "", "")] = true
	}
	damaged := h.crash()
	f.clock.forward(time.Second)
	file := filepath.Join(damaged, "addresses.journal")
	b, err := os.ReadFile(file)
	assert.NilError(t, err)
	b[len(b)/2] ^= 1
	assert.NilError(t, os.WriteFile(file, b, 0o600))

	for _, dir := range []string{t.TempDir(), damaged} {
		h := f.host("a", at(dir))
		for range 10 {
			a := h.get(pool, "", "")
			assert.Assert(t, !held[a], "%s was held before the journal was lost", a)
			held[a] = true
		}
		h.stop()
		f.clock.forward(time.Second)
	}
	asides, err := filepath.Glob(file + ".aside-*")
	assert.NilError(t, err)
	assert.Equal(t, len(asides), 1)
}

func TestJournalOfAnotherHost(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	a := f.host("a")
	a.get(a.join(n), "", "web")
	b := f.host("b", at(a.crashed()))
	assert.Equal(t, len(b.Networks()), 0)
	assert.Equal(t, len(b.Held()), 0)
}

// A block that was taken from the host is not used any more, and what the
// host says of it does not reach etcd.
func TestBlockTakenAway(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	first := h.get(pool, "", "web")
	f.waitEndpoints(n, map[string]record.Endpoint{first: {Host: "a", Container: "web"}})
	for cidr := range f.owners(n) {
		key := f.st.Keys.NetworkBlocks(n.ID) + cidr
		_, err := f.st.Txn().Put(key, record.Block{Host: "b", State: record.BlockOwned}).Commit(t.Context())
		assert.NilError(t, err)
		_, err = f.st.Txn().Put(f.st.Keys.Endpoint(n.ID, first), record.Endpoint{Host: "b"}).Commit(t.Context())
		assert.NilError(t, err)
	}
	h.put(pool, first)
	f.wait(func() error {
		if b := h.Blocks()[n.ID]; len(b) > 0 {
			return fmt.Errorf("still has blocks %v", b)
		}
		return nil
	})
	f.waitEndpoints(n, map[string]record.Endpoint{first: {Host: "b"}})
	second := h.get(pool, "", "web")
	f.waitEndpoints(n, map[string]record.Endpoint{first: {Host: "b"}, second: {Host: "a", Container: "web"}})
}

func TestReconcile(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	leaked, used := netip.MustParseAddr(h.get(pool, "", "leaked")), netip.MustParseAddr(h.get(pool, "", "used"))
	foreign := netip.MustParseAddr("10.1.0.200")
	live := Live{Networks: map[string]int{n.ID: 1}, Addresses: map[string][]netip.Addr{n.ID: {used, foreign}}}
	look := func(live Live) Report {
		t.Helper()
		r, err := h.Reconcile(live)
		assert.NilError(t, err)
		return r
	}
	assert.DeepEqual(t, look(live), Report{Unknown: []Address{{n.ID, foreign}}}, cmpAddr)
	f.clock.forward(59 * time.Second)
	assert.Equal(t, len(look(live).Released), 0)
	// Given again meanwhile: its time starts anew.
	h.put(pool, leaked.String())
	assert.Equal(t, h.get(pool, "", "leaked"), leaked.String())
	f.clock.forward(2 * time.Second)
	assert.Equal(t, len(look(live).Released), 0)
	f.clock.forward(30 * time.Second)
	// Seen once: innocent.
	assert.Equal(t, len(look(Live{Addresses: map[string][]netip.Addr{n.ID: {used, leaked}}}).Released), 0)
	f.clock.forward(31 * time.Second)
	assert.Equal(t, len(look(live).Released), 0)
	f.clock.forward(60 * time.Second)
	assert.DeepEqual(t, look(live).Released, []Address{{n.ID, leaked}}, cmpAddr)
	assert.Assert(t, h.Owner(n.ID, used) && !h.Owner(n.ID, leaked))
	assert.Equal(t, len(look(Live{}).Released), 0)

	// A Docker network whose removal was never said.
	gone := Live{Networks: map[string]int{}}
	look(gone)
	f.clock.forward(60 * time.Second)
	look(gone)
	assert.Assert(t, !h.Owner(n.ID, used))
	f.wait(func() error {
		us, err := registry.Uses(t.Context(), f.st, n.ID)
		if err == nil && len(us) > 0 {
			err = fmt.Errorf("uses: %v", us)
		}
		return err
	})
	// And one that was there before the journal.
	look(live)
	f.wait(func() error {
		us, err := registry.Uses(t.Context(), f.st, n.ID)
		if err == nil && len(us) != 1 {
			err = fmt.Errorf("uses: %v", us)
		}
		return err
	})
}

// A network made with the engine's own IPAM: this host's engine has the lower
// half, the other hosts share the upper one.
func TestForeignNetwork(t *testing.T) {
	f := newFleet(t)
	a, b := f.host("a"), f.host("b")
	r := registry.Request{Subnet: netip.MustParsePrefix("172.20.0.0/24"), Gateway: netip.MustParseAddr("172.20.0.1")}
	n, err := a.CreateForeign(r)
	assert.NilError(t, err)
	again, err := a.CreateForeign(r)
	assert.NilError(t, err)
	assert.Equal(t, again.ID, n.ID)
	assert.Assert(t, n.ByHand && n.Foreign == "a")
	assert.DeepEqual(t, a.Blocks(), map[string][]netip.Prefix{n.ID: {netip.MustParsePrefix("172.20.0.0/25")}}, cmpAddr)
	assert.Assert(t, a.Owner(n.ID, netip.MustParseAddr("172.20.0.2")))
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr("172.20.0.1")))
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr("172.20.0.200")))

	pool := b.join(n)
	for range 127 {
		x := netip.MustParseAddr(b.get(pool, "", ""))
		assert.Assert(t, netip.MustParsePrefix("172.20.0.128/25").Contains(x), "%s", x)
	}
	_, err = b.request1(pool, "", "")
	assert.ErrorIs(t, err, ErrNoAddress)
	_, err = b.request1(pool, "172.20.0.9", "")
	assert.ErrorContains(t, err, "is in 172.20.0.0/25, whose addresses only the engine of host a hands out")

	// After a restart it is known as before.
	a2 := f.host("a", at(a.crashed()))
	assert.Assert(t, a2.Owner(n.ID, netip.MustParseAddr("172.20.0.2")))
	a2.stop()
	_, err = b.CreateForeign(r)
	assert.ErrorIs(t, err, registry.ErrOverlap)
	_, err = b.CreateForeign(registry.Request{})
	assert.ErrorContains(t, err, "no subnet")

	assert.NilError(t, a.ReleaseNetwork(n.ID))
	b.leave(pool)
	assert.DeepEqual(t, f.keys(), []string(nil))
}

func TestRemoveHost(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/22")
	a, b := f.host("a"), f.host("b")
	hand, _ := a.make("")
	a.get(hand, "", "")
	poolA, poolB := a.join(n), b.join(n)
	for range 200 {
		a.get(poolA, "", "")
	}
	kept := b.get(poolB, "", "kept")
	f.wait(func() error {
		if ks := f.keys(); len(ks) < 206 {
			return fmt.Errorf("%d keys", len(ks))
		}
		return nil
	})
	a.stop()
	assert.NilError(t, registry.RemoveHost(t.Context(), f.st, "a"))
	assert.NilError(t, registry.RemoveHost(t.Context(), f.st, "a"))
	f.waitEndpoints(n, map[string]record.Endpoint{kept: {Host: "b", Container: "kept"}})
	for _, b := range f.blocks(n) {
		assert.Assert(t, b.Host == "b" || b.State == record.BlockQuarantined, "%+v", b)
	}
	ns, err := registry.List(t.Context(), f.st)
	assert.NilError(t, err)
	assert.Equal(t, len(ns), 1)
}
