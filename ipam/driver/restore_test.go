package driver

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
)

// cmpAddr lets assert.DeepEqual compare addresses.
var cmpAddr = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// describe is a driver's memory in a form that two can be compared in.
func describe(d *Driver) string {
	var lines []string
	for id, n := range d.networks {
		n.eachHeld(func(h ipam.Held) {
			lines = append(lines, fmt.Sprintf("%s held %s %q %d pinned %t", id, h.Addr, h.Name, h.Since.UnixMilli(), n.pins[h.Addr] != nil))
		})
		for _, f := range n.halves() {
			is := f.share.Blocks()
			slices.Sort(is)
			for _, i := range is {
				lines = append(lines, fmt.Sprintf("%s block %s withdrawn %t", id, f.grid.Block(i), f.share.Withdrawn(i)))
			}
			f.share.EachLent(func(h ipam.Held) { lines = append(lines, fmt.Sprintf("%s lent %s to %s", id, h.Addr, h.Name)) })
			order := []string{}
			f.share.EachUsed(func(h ipam.Held) { order = append(order, fmt.Sprintf("%s %q", h.Addr, h.Name)) })
			lines = append(lines, fmt.Sprintf("%s %s uses %d made %t free %d order %s", id, f.subnet, f.uses, n.made, f.share.Free(), strings.Join(order, " ")))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Whatever happened, a driver that reads the journal, written as it went or
// compacted, remembers what the first one knew.
func TestJournalSaysWhatMemoryKnows(t *testing.T) {
	base := t.TempDir()
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		now := time.UnixMilli(1_700_000_000_000)
		cfg := (&fleet{}).bare(filepath.Join(base, fmt.Sprint(run)), func() time.Time { return now })
		d, err := Open(cfg)
		if err != nil {
			r.Fatal(err)
		}
		for k := range 2 {
			rec := record.Network{
				ID: fmt.Sprint("net", k), Subnet: fmt.Sprintf("10.%d.0.0/26", k), Gateway: fmt.Sprintf("10.%d.0.1", k),
				BlockBits: 30, Segment: "routed",
				Subnet6: fmt.Sprintf("fd12:%d::/64", k), Gateway6: fmt.Sprintf("fd12:%d::1", k), Range6: fmt.Sprintf("fd12:%d::/122", k), BlockBits6: 126,
			}
			n, err := newNetwork(rec, cfg.Cooldown)
			if err != nil {
				r.Fatal(err)
			}
			d.networks[rec.ID] = n
			d.append(n.use())
		}
		pick := func(r *rapid.T) (*network, *family) {
			n := d.networks[rapid.SampledFrom([]string{"net0", "net1"}).Draw(r, "net")]
			return n, n.families[rapid.IntRange(0, 1).Draw(r, "family")]
		}
		address := func(r *rapid.T, f *family) netip.Addr {
			a := f.subnet.Addr()
			for range rapid.IntRange(0, 63).Draw(r, "address") {
				a = a.Next()
			}
			return a
		}
		r.Repeat(map[string]func(*rapid.T){
			"own": func(r *rapid.T) {
				n, f := pick(r)
				d.own(n, f, 1, []pinAt{{Pin: record.Pin{Host: "b"}, addr: address(r, f)}}, rapid.IntRange(0, 15).Draw(r, "block"))
			},
			"withdraw": func(r *rapid.T) {
				n, f := pick(r)
				if i := rapid.IntRange(0, 15).Draw(r, "block"); f.share.Owns(i) && !f.share.Withdrawn(i) {
					d.withdraw(n, f, i)
				}
			},
			"give": func(r *rapid.T) {
				n, f := pick(r)
				name := rapid.SampledFrom([]string{"", "a", "b"}).Draw(r, "name")
				f.growing = true // No etcd here.
				d.mu.Lock()
				a, ok := f.share.Allocate(name, d.cfg.Now(), true)
				if !ok {
					d.mu.Unlock()
					return
				}
				if _, err := d.give(n, f, a, name); err != nil {
					r.Fatal(err)
				}
			},
			"pin": func(r *rapid.T) {
				n, f := pick(r)
				a := address(r, f)
				if i, err := f.grid.Index(a); err == nil && f.share.Owns(i) {
					return
				}
				d.mu.Lock()
				if _, err := d.givePinned(n, f, a, &pin{name: "p", since: now}); err != nil {
					r.Fatal(err)
				}
			},
			"lend": func(r *rapid.T) {
				n, f := pick(r)
				a := address(r, f)
				if _, held := f.share.Holder(a); !held && f.share.Lend(a, "b", now) == nil {
					d.lend(n, f, a, "b")
				}
			},
			"return": func(r *rapid.T) {
				n, f := pick(r)
				d.unlend(n, f, address(r, f))
			},
			"release": func(r *rapid.T) {
				n, f := pick(r)
				d.append(d.release(n, address(r, f))...)
			},
			"uses": func(r *rapid.T) {
				n, f := pick(r)
				d.append(d.setUses(n, f, rapid.IntRange(0, 3).Draw(r, "uses"))...)
			},
			"compact": func(r *rapid.T) {
				if err := d.compact(); err != nil {
					r.Fatal(err)
				}
			},
			"wait": func(r *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(r, "s")) * time.Second) },
		})
		want, epoch := describe(d), d.epoch
		if err := d.Close(); err != nil {
			r.Fatal(err)
		}
		d, err = Open(cfg)
		if err != nil {
			r.Fatal(err)
		}
		if got := describe(d); got != want || d.epoch != epoch {
			r.Fatalf("epoch %d, want %d\nread:\n%s\nwant:\n%s", d.epoch, epoch, got, want)
		}
		if err := d.Close(); err != nil {
			r.Fatal(err)
		}
	})
}

// The journal stays short however long the driver lives.
func TestJournalIsCompacted(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	h := f.host("a")
	pool := h.join(n)
	kept := h.get(pool, "", "kept")
	pad := strings.Repeat("x", 64<<10)
	for range 100 { // 12.5 MiB
		h.put(pool, h.get(pool, "", pad))
	}
	f.wait(func() error {
		if size, _ := h.journal.Size(); size > compactAfter+1<<20 {
			return fmt.Errorf("%d bytes", size)
		}
		return nil
	})
	assert.Equal(t, f.host("a", at(h.crashed())).Owner(n.ID, netip.MustParseAddr(kept)), true)
}

func FuzzReplay(f *testing.F) {
	net := record.Network{ID: "n", Subnet: "10.1.0.0/24", Gateway: "10.1.0.1", BlockBits: 28}
	for _, r := range []entry{
		{Op: opEpoch, Host: "a", Epoch: 1}, {Op: opUse, Record: &net, Uses: 1}, {Op: opBlock, Network: "n", Block: 3},
		{Op: opAlloc, Network: "n", Addr: netip.MustParseAddr("10.1.0.50")}, {Op: opFree, Network: "n", Addr: netip.MustParseAddr("fd00::1")},
		{Op: opWithdraw, Network: "n", Block: -1}, {Op: opForget, Network: "n"}, {Op: "x", Network: "n"},
	} {
		f.Add(r.bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d := &Driver{cfg: Config{Host: "a"}, networks: map[string]*network{}}
		use, err := json.Marshal(entry{Op: opUse, Record: &net, Uses: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, payload := range [][]byte{use, entry{Op: opBlock, Network: "n", Block: 3}.bytes(), b, b} {
			_ = d.replay(payload)
		}
	})
}
