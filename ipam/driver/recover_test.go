package driver

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Blocks of a lost journal are used again when what is in use in them was
// looked at for a while, and nothing in use is given out.
func TestBlocksOfALostJournalComeBack(t *testing.T) {
	f := newDualFleet(t)
	n := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.1.0.0/26"), Subnet6: netip.MustParsePrefix("fd99::/120")})
	h := f.host("a")
	p4, p6 := h.join(n), h.join6(n)
	web, db := h.get(p4, "", "web"), h.get(p4, "", "db")
	six := h.get(p6, "", "web")
	f.waitEndpoints(n, map[string]record.Endpoint{web: {Host: "a", Container: "web"}, db: {Host: "a", Container: "db"}, six: {Host: "a", Container: "web"}})
	// One address that etcd never heard of, but that is in use.
	unsaid := h.Blocks()[n.ID][0].Addr().Next().Next().Next()
	before := f.blocks(n)
	h.stop()
	f.clock.forward(time.Second)

	h = f.host("a")
	live := Live{
		Networks:  map[string]int{n.ID: 1},
		Addresses: map[string][]netip.Addr{n.ID: {netip.MustParseAddr(web), netip.MustParseAddr(six), unsaid}},
	}
	reconcile := func() {
		t.Helper()
		_, err := h.Reconcile(live)
		assert.NilError(t, err)
	}
	f.wait(func() error {
		reconcile()
		if fs, err := h.Check(false); err != nil || len(fs) < len(before) {
			return fmt.Errorf("%v %w", fs, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.rebuilding[n.ID].IsZero() {
			return fmt.Errorf("old blocks not seen")
		}
		return nil
	})
	for _, b := range h.Blocks()[n.ID] {
		_, old := before[b.String()]
		assert.Assert(t, !old, "block %s is in use too early", b)
	}
	f.clock.forward(61 * time.Second)
	reconcile()
	for _, x := range []string{web, db, six, unsaid.String()} {
		assert.Assert(t, h.Owner(n.ID, netip.MustParseAddr(x)), "%s of %v: blocks %v held %v", x, []any{web, db, six, unsaid}, h.Blocks(), h.Held())
	}
	for cidr, b := range f.blocks(n) {
		assert.Equal(t, b.Epoch, h.epoch, "block %s", cidr)
	}
	// What nobody uses is found out as always.
	f.clock.forward(time.Second)
	reconcile()
	f.clock.forward(61 * time.Second)
	reconcile()
	assert.Assert(t, !h.Owner(n.ID, netip.MustParseAddr(db)))
	seen := map[string]bool{web: true, unsaid.String(): true}
	for {
		x, err := h.request1(p4, "", "")
		if err != nil {
			break
		}
		x, _, _ = strings.Cut(x, "/")
		assert.Assert(t, !seen[x], "%s twice", x)
		seen[x] = true
	}
	assert.Equal(t, len(seen), 61)
	// All of that is in the journal.
	again := f.host("a", at(h.crashed()))
	assert.Assert(t, again.Owner(n.ID, unsaid))
}

// A host that was cut off, and taken out meanwhile, gives nothing out of its
// former blocks and says who is left in them.
func TestReturnAfterReclaim(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/26")
	a := f.host("a")
	pool := a.join(n)
	x := a.get(pool, "", "web")
	dir := a.crash()
	f.wait(func() error { return registry.Reclaim(t.Context(), f.st, "a") })
	for _, b := range f.blocks(n) {
		assert.Equal(t, b.State, record.BlockQuarantined)
	}
	// As when the quarantine is over and another host was there first.
	b := f.host("b")
	pb := b.join(n)
	for cidr := range f.blocks(n) {
		_, err := f.st.Txn().Delete(f.st.Keys.Block(n.ID, cidr)).Commit(t.Context())
		assert.NilError(t, err)
	}
	b.get(pb, x, "new")

	a = f.host("a", at(dir))
	var fs []finding.Finding
	f.wait(func() (err error) {
		fs, err = a.Check(false)
		if err == nil && (len(fs) != 1 || !strings.Contains(fs[0].Text, "is not this host's any more, but 1 of its addresses are in use: "+x+" web")) {
			err = fmt.Errorf("%v", fs)
		}
		return err
	})
	assert.Assert(t, fs[0].Hint != "")
	for range 10 {
		got := a.get(pool, "", "")
		assert.Assert(t, got != x)
	}
	f.wait(func() error {
		it, err := store.Get[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(n.ID, x))
		if err == nil && it.Value.Host != "b" {
			err = fmt.Errorf("endpoint of %s", it.Value.Host)
		}
		return err
	})
	a.put(pool, x)
	fs, err := a.Check(true)
	assert.NilError(t, err)
	assert.Equal(t, len(fs), 0, "%v", fs)
}

// etcd was restored from a copy that is older than what hosts have done
// since: nobody's address is given out again.
func TestRestoredEtcd(t *testing.T) {
	f := newFleet(t)
	kept := f.subnet("10.1.0.0/26")
	settle := func(c *Config) { c.Settle = time.Hour }
	a, b := f.host("a", settle), f.host("b", settle)
	pa := a.join(kept)
	first := a.get(pa, "", "first")
	f.waitEndpoints(kept, map[string]record.Endpoint{first: {Host: "a", Container: "first"}})
	f.server.Stop()
	restore := f.server.Save()
	f.server.Start()

	// After the copy: a network, blocks, pins.
	var later record.Network
	f.wait(func() (err error) {
		later, err = registry.Create(t.Context(), f.st, time.Now(), registry.Request{Subnet: netip.MustParsePrefix("10.2.0.0/26")})
		return err
	})
	var pb string
	f.wait(func() (err error) {
		if _, err = b.known(later.ID); err == nil {
			pb = b.join(later)
		}
		return err
	})
	held := map[string]bool{}
	for range 20 {
		held[b.get(pb, "", "late")] = true
	}
	held[b.get(pb, "10.2.0.60", "pinned")] = true
	more := a.get(pa, "", "more")
	f.wait(func() error {
		items, _, err := store.List[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(later.ID, ""))
		if err == nil && len(items) != len(held) {
			err = fmt.Errorf("%d endpoints", len(items))
		}
		return err
	})
	blocks := f.blocks(later)
	f.wait(func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.unseen {
			return fmt.Errorf("journal does not know how far etcd was")
		}
		return nil
	})
	f.server.Stop()
	restore()
	f.server.Start()

	f.wait(func() error {
		now := f.blocks(later)
		for cidr := range blocks {
			if now[cidr].Host != "b" {
				return fmt.Errorf("block %s is %+v", cidr, now[cidr])
			}
		}
		items, _, err := store.List[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(later.ID, ""))
		if err == nil && (len(items) != len(held) || f.pins(later)["10.2.0.60"].Host != "b") {
			err = fmt.Errorf("%d endpoints, pins %v", len(items), f.pins(later))
		}
		return err
	})
	assert.Assert(t, a.Owner(kept.ID, netip.MustParseAddr(more)))
	// Until the others have had time, nothing new is claimed.
	var err error
	for err == nil {
		var x string
		if x, err = b.request1(pb, "", ""); err == nil {
			x, _, _ = strings.Cut(x, "/")
			assert.Assert(t, !held[x], "%s twice", x)
			held[x] = true
		}
	}
	assert.ErrorContains(t, err, "etcd was restored from an older state")
	_, err = b.request1(pb, "10.2.0.61", "")
	assert.ErrorContains(t, err, "etcd was restored from an older state")
	fs, err := b.Check(false)
	assert.NilError(t, err)
	assert.Assert(t, len(fs) > 0 && strings.Contains(fs[0].Text, "restored from an older state"), "%v", fs)
	f.clock.forward(2 * time.Hour)
	f.wait(func() error {
		x, err := b.request1(pb, "", "")
		if err == nil {
			x, _, _ = strings.Cut(x, "/")
			assert.Assert(t, !held[x], "%s twice", x)
		}
		return err
	})
}

// A plugin that was down while etcd was put back notices all the same, and
// what is another host's by then is withdrawn.
func TestRestoredEtcdSeenFromTheJournal(t *testing.T) {
	f := newFleet(t)
	f.server.Stop()
	restore := f.server.Save()
	f.server.Start()
	n := f.subnet("10.1.0.0/26")
	a := f.host("a")
	pool := a.join(n)
	x := a.get(pool, "", "web")
	f.waitEndpoints(n, map[string]record.Endpoint{x: {Host: "a", Container: "web"}})
	f.wait(func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.unseen {
			return fmt.Errorf("journal does not know how far etcd was")
		}
		return nil
	})
	var cidr string
	for cidr = range f.blocks(n) {
		break
	}
	a.stop()
	f.server.Stop()
	restore()
	f.server.Start()
	_, err := f.st.Txn().Put(f.st.Keys.Network(n.ID), n).Put(f.st.Keys.Block(n.ID, cidr), record.Block{Host: "b", State: record.BlockOwned}).Commit(t.Context())
	assert.NilError(t, err)
	a = f.host("a", at(a.dir))
	f.wait(func() error {
		fs, err := a.Check(false)
		if err == nil && (len(fs) == 0 || !strings.Contains(fmt.Sprint(fs), "is not this host's any more")) {
			err = fmt.Errorf("%v", fs)
		}
		return err
	})
}

func TestCheckMends(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	web := h.get(pool, "", "web")
	want := map[string]record.Endpoint{web: {Host: "a", Container: "web"}}
	f.waitEndpoints(n, want)
	fs, err := h.Check(false)
	assert.NilError(t, err)
	assert.DeepEqual(t, fs, []finding.Finding(nil))
	ghost := f.inBlockOf(h, n)
	_, err = f.st.Txn().Delete(f.st.Keys.Endpoint(n.ID, web)).Put(f.st.Keys.Endpoint(n.ID, ghost), record.Endpoint{Host: "a"}).Commit(t.Context())
	assert.NilError(t, err)
	fs, err = h.Check(false)
	assert.NilError(t, err)
	assert.Equal(t, len(fs), 2, "%v", fs)
	fs, err = h.Check(true)
	assert.NilError(t, err)
	for _, x := range fs {
		assert.Assert(t, x.Fixed && x.Part == "addresses", "%v", x)
	}
	f.waitEndpoints(n, want)
	fs, err = h.Check(false)
	assert.NilError(t, err)
	assert.Equal(t, len(fs), 0)
	f.server.Stop()
	f.wait(func() error {
		fs, err := h.Check(false)
		if err == nil && len(fs) == 0 {
			return fmt.Errorf("nothing found")
		}
		return nil
	})
}
