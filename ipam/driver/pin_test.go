package driver

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// pins maps each pinned address of a network to its record.
func (f *fleet) pins(n record.Network) map[string]record.Pin {
	f.Helper()
	items, _, err := store.List[record.Pin](f.Context(), f.st, f.st.Keys.NetworkPins(n.ID))
	assert.NilError(f, err)
	m := map[string]record.Pin{}
	for _, it := range items {
		m[strings.TrimPrefix(it.Key, f.st.Keys.NetworkPins(n.ID))] = it.Value
	}
	return m
}

// block is an address of the first block that the host owns, and not used.
func (f *fleet) inBlockOf(h *host, n record.Network) string {
	f.Helper()
	return h.Blocks()[n.ID][0].Addr().Next().Next().Next().String()
}

// alive waits until a host is seen to be there.
func (f *fleet) alive(id string) {
	f.Helper()
	f.wait(func() error {
		_, err := store.Get[record.Live](f.Context(), f.st, f.st.Keys.Live(id))
		return err
	})
}

// In a block that nobody has, etcd decides; who claims the block later keeps
// away from it.
func TestPinInNoBlock(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/27") // blocks of two
	a, b := f.host("a"), f.host("b")
	pa, pb := a.join(n), b.join(n)
	assert.Equal(t, a.get(pa, "10.1.0.9", "web"), "10.1.0.9")
	assert.Equal(t, len(f.owners(n)), 0)
	_, err := b.request1(pb, "10.1.0.9", "")
	assert.ErrorContains(t, err, "in use by web on host a")
	seen := map[string]bool{}
	for range 28 {
		seen[b.get(pb, "", "")] = true
	}
	assert.Assert(t, !seen["10.1.0.9"])
	_, err = b.request1(pb, "", "")
	assert.ErrorIs(t, err, ErrNoAddress)
	f.wait(func() error {
		items, _, err := store.List[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(n.ID, ""))
		if err == nil && len(items) != 29 {
			err = fmt.Errorf("%d endpoints", len(items))
		}
		return err
	})
	// Released, it is the block's owner's to give.
	a.put(pa, "10.1.0.9")
	f.wait(func() error {
		_, err := b.request1(pb, "10.1.0.9", "db")
		return err
	})
	assert.Equal(t, len(f.pins(n)), 0)
}

// In another host's block its owner answers.
func TestAskTheOwner(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	used := map[netip.Addr]bool{}
	a := f.host("a", func(c *Config) { c.InUse = func(_ string, x netip.Addr) bool { return used[x] } })
	b := f.host("b")
	pa, pb := a.join(n), b.join(n)
	first := a.get(pa, "", "web")
	used[netip.MustParseAddr(first)] = true
	f.alive("a")
	x := f.inBlockOf(a, n)
	assert.Equal(t, b.get(pb, x, "db"), x)
	assert.Assert(t, b.Owner(n.ID, netip.MustParseAddr(x)) && !a.Owner(n.ID, netip.MustParseAddr(x)))
	pin := f.pins(n)[x]
	assert.Equal(t, pin.Host+pin.Owner+pin.Container, "badb")
	f.waitEndpoints(n, map[string]record.Endpoint{first: {Host: "a", Container: "web"}, x: {Host: "b", Container: "db"}})
	_, err := b.request1(pb, first, "db")
	assert.ErrorContains(t, err, "only host a hands out: take address "+first+": in use by web on host a")
	_, err = a.request1(pa, x, "")
	assert.ErrorContains(t, err, "in use by db on host b")
	for range 12 {
		assert.Assert(t, a.get(pa, "", "") != x)
	}
	// Both sides remember it.
	a2, b2 := f.host("a", at(a.crashed())), f.host("b", at(b.crashed()))
	_, err = a2.request1(pa, x, "")
	assert.ErrorContains(t, err, "in use by db on host b")
	assert.Assert(t, b2.Owner(n.ID, netip.MustParseAddr(x)))
	a2.stop()
	b2.stop()
	// And the owner has it again afterwards.
	b.put(pb, x)
	f.wait(func() error {
		_, err := a.request1(pa, x, "again")
		return err
	})
	f.wait(func() error {
		asks, _, err := store.List[record.Ask](t.Context(), f.st, f.st.Keys.Asks())
		if err == nil && len(asks)+len(f.pins(n)) > 0 {
			err = fmt.Errorf("asks %v pins %v", asks, f.pins(n))
		}
		return err
	})
}

func TestAskAnOwnerThatIsNotThere(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	a, b := f.host("a"), f.host("b")
	pa, pb := a.join(n), b.join(n)
	a.get(pa, "", "web")
	f.alive("a")
	x := f.inBlockOf(a, n)
	a.stop()
	_, err := b.request1(pb, x, "")
	assert.ErrorContains(t, err, "only host a hands out, and its network plugin is not connected")

	// It seems to be there, but does not answer.
	_, err = f.st.Txn().Put(f.st.Keys.Live("a"), record.Live{Host: "a"}).Commit(t.Context())
	assert.NilError(t, err)
	_, err = b.request1(pb, x, "")
	assert.ErrorContains(t, err, "that host has not answered")
	asks, _, err := store.List[record.Ask](t.Context(), f.st, f.st.Keys.Asks())
	assert.NilError(t, err)
	assert.Equal(t, len(asks), 0)

	// It comes back: nothing of the question is left.
	a = f.host("a", at(a.dir))
	f.wait(func() error {
		_, err := a.request1(pa, x, "mine")
		return err
	})
	// An address of a host that was taken out, and of services.
	a.stop()
	assert.NilError(t, registry.RemoveHost(t.Context(), f.st, "a"))
	_, err = b.request1(pb, x, "")
	assert.ErrorContains(t, err, "host a, which was taken out of the fleet: it is free in about 1m0s")
	_, err = f.st.Txn().Put(f.st.Keys.Block(n.ID, "10.1.0.240/28"), record.Block{State: record.BlockServices}).Commit(t.Context())
	assert.NilError(t, err)
	_, err = b.request1(pb, "10.1.0.245", "")
	assert.ErrorContains(t, err, "in a block whose addresses go to services")
}

// The asker died between question and answer: nobody was told of the address,
// so it goes back.
func TestAskerDies(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	a, b := f.host("a"), f.host("b")
	pa, pb := a.join(n), b.join(n)
	a.get(pa, "", "web")
	f.alive("a")
	x := f.inBlockOf(a, n)
	dir := b.crashed() // Before it has the address.
	b.get(pb, x, "db")
	b.stop()
	_, err := f.st.Txn().Put(f.st.Keys.Ask("a", "late"), record.Ask{From: "b", Owner: "x", Network: n.ID, Address: x}).Commit(t.Context())
	assert.NilError(t, err)
	f.host("b", at(dir))
	f.wait(func() error {
		asks, _, err := store.List[record.Ask](t.Context(), f.st, f.st.Keys.Ask("a", ""))
		if pins := f.pins(n); err == nil && len(pins)+len(asks) > 0 {
			err = fmt.Errorf("pins %v asks %v", pins, asks)
		}
		return err
	})
	f.wait(func() error {
		_, err := a.request1(pa, x, "again")
		return err
	})
}

// The owner died after it had lent an address on its disk, before etcd knew.
func TestOwnerDiesInTheMiddle(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	a, b := f.host("a"), f.host("b")
	pa, pb := a.join(n), b.join(n)
	a.get(pa, "", "web")
	x := f.inBlockOf(a, n)
	addr := netip.MustParseAddr(x)
	nw := a.networks[n.ID]
	_, _, err := a.lendFor(nw, addr, record.Ask{From: "b", Owner: "a", Network: n.ID, Address: x})
	assert.NilError(t, err)
	dir := a.crash()
	// The question was withdrawn: the address is the owner's again.
	a = f.host("a", at(dir))
	f.wait(func() error {
		_, err := a.request1(pa, x, "mine")
		return err
	})
	a.put(pa, x)
	// It is still asked: the owner answers after its restart.
	_, _, err = a.lendFor(a.networks[n.ID], addr, record.Ask{From: "b", Owner: "a", Network: n.ID, Address: x})
	assert.NilError(t, err)
	dir = a.crash()
	done := make(chan string)
	go func() {
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
			if got, err := b.request1(pb, x, "db"); err == nil {
				done <- got
				return
			}
		}
		close(done)
	}()
	f.host("a", at(dir))
	assert.Equal(t, <-done, x+"/32")
}

// A journal that was lost had a pin: the address stays held until nobody was
// seen to use it.
func TestPinOfALostJournal(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	h.get(pool, "10.1.0.9", "web")
	h.stop()
	f.clock.forward(time.Second)
	h = f.host("a")
	addr := netip.MustParseAddr("10.1.0.9")
	f.wait(func() error {
		if !h.Owner(n.ID, addr) {
			return fmt.Errorf("not known")
		}
		return nil
	})
	live := Live{Networks: map[string]int{n.ID: 1}, Addresses: map[string][]netip.Addr{}}
	for range 2 {
		_, err := h.Reconcile(live)
		assert.NilError(t, err)
		f.clock.forward(61 * time.Second)
	}
	f.wait(func() error {
		if pins := f.pins(n); len(pins) > 0 {
			return fmt.Errorf("pins %v", pins)
		}
		return nil
	})
}

// An address stays with its container's name when that starts on another
// host, where the network says so.
func TestAddressMovesWithItsName(t *testing.T) {
	f := newFleet(t)
	n := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Options: map[string]string{OptSticky: "1h"}})
	a, b := f.host("a"), f.host("b")
	pa, pb := a.join(n), b.join(n)
	web := a.get(pa, "", "web")
	// At once on the same host, before etcd was told anything.
	a.put(pa, web)
	assert.Equal(t, a.get(pa, "", "web"), web)
	for _, next := range []struct {
		from, to *host
		pf, pt   string
	}{{a, b, pa, pb}, {b, a, pb, pa}, {a, a, pa, pa}, {a, b, pa, pb}} {
		next.from.put(next.pf, web)
		f.wait(func() error {
			it, err := store.Get[record.Pin](t.Context(), f.st, f.st.Keys.Pin(n.ID, web))
			next.to.mu.Lock()
			defer next.to.mu.Unlock()
			if kept := next.to.networks[n.ID].kept["web"]; err == nil && (!it.Value.Released || kept.revision != it.Revision) {
				err = fmt.Errorf("%+v is kept as %+v", it, kept)
			}
			return err
		})
		assert.Assert(t, next.to.get(next.pt, "", "db") != web)
		assert.Equal(t, next.to.get(next.pt, "", "web"), web)
		f.wait(func() error {
			it, err := store.Get[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(n.ID, web))
			if err == nil && it.Value.Host != next.to.cfg.Host {
				err = fmt.Errorf("endpoint of %s", it.Value.Host)
			}
			return err
		})
	}
	// When the wait is over, it is anybody's.
	b.put(pb, web)
	f.wait(func() error {
		if !f.pins(n)[web].Released {
			return fmt.Errorf("pins %v", f.pins(n))
		}
		_, err := f.st.Txn().Delete(f.st.Keys.Pin(n.ID, web)).Commit(t.Context())
		return err
	})
	f.wait(func() error {
		_, err := a.request1(pa, web, "other")
		return err
	})
}
