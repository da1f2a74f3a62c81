package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// A transaction that got no answer, as from an etcd that was paused, may be
// carried out after others that came later: what is in etcd then must become
// again what the host has.
func TestLateWritesAreSetRight(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	text, err := h.request1(pool, "", "web")
	assert.NilError(t, err)
	held := netip.MustParsePrefix(text).Addr()
	other, err := h.request1(pool, "", "db")
	assert.NilError(t, err)
	free := netip.MustParsePrefix(other).Addr()
	h.put(pool, free.String())
	want := map[string]record.Endpoint{held.String(): {Host: "a", Container: "web"}}
	f.waitEndpoints(n, want)

	k := f.st.Keys
	_, err = f.st.Txn().Put(k.Endpoint(n.ID, free.String()), record.Endpoint{Host: "a", Container: "db"}).
		Delete(k.Endpoint(n.ID, held.String())).Commit(t.Context())
	assert.NilError(t, err)
	h.mu.Lock()
	h.unanswered = true // as after a transaction that got no answer
	h.mu.Unlock()
	f.waitEndpoints(n, want)
}

// A claim that got no answer, or whose host was restarted, may be carried out
// when the host has read etcd again, and also when the network is nothing to it
// any more: the block and the address go back all the same.
func TestLateClaimIsGivenBack(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a", func(c *Config) { c.Cooldown, c.IdleReturn = time.Millisecond, 2*time.Millisecond })
	left := func() {
		t.Helper()
		f.wait(func() error {
			if o, known := f.owners(n), len(h.Networks()); len(o) > 0 || known > 0 {
				return fmt.Errorf("still owned: %v, and %d networks known", o, known)
			}
			return nil
		})
	}
	pool := h.join(n)
	kept := h.get(pool, "", "web")
	claim := func(cidr string) {
		t.Helper()
		_, err := f.st.Txn().Put(f.st.Keys.Block(n.ID, cidr), record.Block{Host: "a", Epoch: h.epoch, State: record.BlockOwned}).Commit(t.Context())
		assert.NilError(t, err)
	}
	free := "10.1.0.48/28"
	if netip.MustParsePrefix(free).Contains(netip.MustParseAddr(kept)) {
		free = "10.1.0.64/28"
	}
	claim(free) // while the network is in use
	f.wait(func() error {
		if bs := h.Blocks()[n.ID]; len(bs) != 2 {
			return fmt.Errorf("the host knows of %v", bs)
		}
		return nil
	})
	h.leave(pool)
	left()
	claim(free) // when it is forgotten
	left()
	pins := f.st.Keys.Pin(n.ID, "10.1.0.50")
	_, err := f.st.Txn().Put(pins, record.Pin{Host: "a", Epoch: h.epoch}).Commit(t.Context())
	assert.NilError(t, err)
	f.wait(func() error {
		if _, err := store.Get[record.Pin](t.Context(), f.st, pins); !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("pin is still there: %w", err)
		}
		return nil
	})
	left()
}

// idle opens a driver that does nothing in etcd by itself.
func (f *fleet) idle(id string, change ...func(*Config)) *host {
	f.Helper()
	cfg := f.config(id)
	for _, c := range change {
		c(&cfg)
	}
	d, err := Open(cfg)
	assert.NilError(f, err)
	h := &host{Driver: d, f: f, dir: cfg.Dir, stop: sync.OnceFunc(func() { assert.NilError(f, d.Close()) })}
	f.Cleanup(h.stop)
	return h
}

// question makes another host ask for an address.
func (f *fleet) question(n record.Network, a, refused string) store.Item[record.Ask] {
	f.Helper()
	key := f.st.Keys.Ask("a", "question"+refused)
	_, err := f.st.Txn().Put(key, record.Ask{From: "b", Owner: "a", Network: n.ID, Address: a, Refused: refused}).Commit(f.Context())
	assert.NilError(f, err)
	it, err := store.Get[record.Ask](f.Context(), f.st, key)
	assert.NilError(f, err)
	return it
}

func (f *fleet) withdraw(it store.Item[record.Ask]) {
	f.Helper()
	_, err := f.st.Txn().Delete(it.Key).Commit(f.Context())
	assert.NilError(f, err)
}

// neighbour is a free address of the block of another.
func neighbour(a string) netip.Addr {
	addr := netip.MustParseAddr(a)
	if next := addr.Next(); next.As4()[3]%16 != 15 {
		return next
	}
	return addr.Prev()
}

// An address that was lent for a question, on the disk, is free again when the
// question was withdrawn before etcd had the answer.
func TestQuestionWithdrawnBeforeItsAnswer(t *testing.T) {
	lent := func(h *host, n record.Network, a netip.Addr) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		_, lent := h.networks[n.ID].of(a).share.Lent(a)
		return lent
	}
	t.Run("etcd away", func(t *testing.T) {
		f := newFleet(t)
		n := f.subnet("10.1.0.0/24")
		h := f.idle("a")
		a := neighbour(h.get(h.join(n), "", "web"))
		assert.NilError(t, h.flush(t.Context()))
		it := f.question(n, a.String(), "")
		f.server.Stop()
		ctx, cancel := context.WithTimeout(t.Context(), h.cfg.Timeout)
		assert.Assert(t, absent(h.answer(ctx, it)))
		cancel()
		assert.Assert(t, lent(h, n, a))
		f.server.Start()
		f.withdraw(it)
		f.wait(func() error { return h.flush(t.Context()) })
		assert.Assert(t, !lent(h, n, a), "nobody has it, and nobody gets it")
	})
	t.Run("crash", func(t *testing.T) {
		f := newFleet(t)
		n := f.subnet("10.1.0.0/24")
		h := f.idle("a")
		a := neighbour(h.get(h.join(n), "", "web"))
		assert.NilError(t, h.flush(t.Context()))
		it := f.question(n, a.String(), "")
		_, _, err := h.lendFor(h.networks[n.ID], a, it.Value)
		assert.NilError(t, err)
		h = f.idle("a", at(h.crash()))
		assert.NilError(t, h.sync(t.Context()))
		assert.Assert(t, lent(h, n, a))
		f.withdraw(it)
		assert.NilError(t, h.flush(t.Context()))
		assert.Assert(t, !lent(h, n, a), "nobody has it, and nobody gets it")
	})
}

// A question that was refused, and that nobody has read since, neither keeps an
// address from going back nor stays for good.
func TestRefusedQuestionKeepsNothing(t *testing.T) {
	f := newFleet(t)
	n := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Options: map[string]string{OptSticky: "1s"}})
	h := f.host("a", func(c *Config) { c.Cooldown, c.IdleReturn = time.Millisecond, 2*time.Millisecond })
	pool := h.join(n)
	a := h.get(pool, "", "web")
	it := f.question(n, a, "in use by web on host a")
	h.put(pool, a)
	h.leave(pool)
	f.wait(func() error {
		if o := f.owners(n); len(o) > 0 {
			return fmt.Errorf("still owned: %v", o)
		}
		return nil
	})
	f.host("a", at(h.crash()))
	f.wait(func() error {
		f.clock.forward(time.Minute)
		if _, err := store.Get[record.Ask](t.Context(), f.st, it.Key); !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("question is still there: %w", err)
		}
		return nil
	})
}

// What the watch says of a pin while its network is read from etcd is not
// forgotten, though memory did not know of the pin yet.
func TestPinGoneWhileItIsRead(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.idle("a")
	a := neighbour(h.get(h.join(n), "", "web"))
	assert.NilError(t, h.flush(t.Context()))
	key := f.st.Keys.Pin(n.ID, a.String())
	_, err := f.st.Txn().Put(key, record.Pin{Host: "b"}).Commit(t.Context())
	assert.NilError(t, err)

	m := h.networks[n.ID]
	h.startLook(m)
	s, err := h.see(t.Context(), n.ID)
	assert.NilError(t, err)
	rev, err := f.st.Txn().Delete(key).Commit(t.Context())
	assert.NilError(t, err)
	h.Observe(store.Change{Revision: rev, Deletes: []string{key}})
	_, err = h.believe(t.Context(), m, s)
	assert.NilError(t, err)
	h.endLook(m, s.revision, nil)
	_, lent := m.of(a).share.Lent(a)
	assert.Assert(t, lent, "as it was read")
	assert.NilError(t, h.flush(t.Context()))
	_, lent = m.of(a).share.Lent(a)
	assert.Assert(t, !lent, "as it is")
}

// What changes all the time while a network is read keeps nobody from a block.
func TestClaimWhileChangesCome(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.idle("a")
	pool := h.join(n)
	ctx, cancel := context.WithCancel(t.Context())
	var changing sync.WaitGroup
	changing.Go(func() {
		for ctx.Err() == nil {
			h.Observe(store.Change{Reset: true})
		}
	})
	defer changing.Wait()
	defer cancel()
	for range 30 {
		h.get(pool, "", "")
	}
}
