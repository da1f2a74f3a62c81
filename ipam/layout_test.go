package ipam

import (
	"fmt"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

func percent(n int) string { return fmt.Sprintf("full=%d%%", n) }

func layout(t testing.TB, subnet string) *Layout {
	t.Helper()
	p := netip.MustParsePrefix(subnet)
	l, err := NewLayout(p, BlockBits(p), FirstAddress(p), netip.Prefix{}, nil, false)
	assert.NilError(t, err)
	return l
}

func TestBlockBits(t *testing.T) {
	for subnet, want := range map[int]int{8: 26, 16: 26, 20: 26, 22: 26, 23: 27, 24: 28, 25: 29, 26: 30, 27: 31, 28: 32, 29: 32} {
		assert.Equal(t, BlockBits(netip.PrefixFrom(netip.MustParseAddr("10.0.0.0"), subnet)), want, "/%d", subnet)
	}
}

// Every address of a subnet is in exactly one block, the one Index says.
func TestEveryAddressIsInOneBlock(t *testing.T) {
	for bits := 20; bits <= MaxSubnetBits; bits++ {
		l := layout(t, netip.PrefixFrom(netip.MustParseAddr("10.32.0.0"), bits).String())
		seen := 0
		for i := range l.Count() {
			b := l.Block(i)
			for a := b.Addr(); b.Contains(a); a = a.Next() {
				got, err := l.Index(a)
				assert.NilError(t, err)
				assert.Equal(t, got, i)
				seen++
			}
		}
		assert.Equal(t, seen, 1<<(32-bits))
	}
	_, err := layout(t, "10.32.0.0/24").Index(netip.MustParseAddr("10.32.1.0"))
	assert.ErrorIs(t, err, ErrOutside)
}

func TestCandidates(t *testing.T) {
	l := layout(t, "10.32.0.0/24")
	taken := NewBitmap(l.Count())
	all := l.Candidates("h1", taken, 100)
	assert.Equal(t, len(all), 16)
	assert.Equal(t, l.Candidates("h1", taken, 1)[0], all[0])
	taken.Set(all[0])
	assert.Equal(t, l.Candidates("h1", taken, 1)[0], all[1])
	for i := range l.Count() {
		taken.Set(i)
	}
	assert.Equal(t, len(l.Candidates("h1", taken, 1)), 0)

	starts := map[int]bool{}
	for h := range 200 {
		starts[l.Candidates(fmt.Sprint("host-", h), NewBitmap(l.Count()), 1)[0]] = true
	}
	assert.Equal(t, len(starts), 16, "hosts start at few places: %v", starts)
}

func TestBlocksWithoutUsableAddressAreNoCandidates(t *testing.T) {
	l := layout(t, "10.32.0.0/29") // blocks of one address
	got := map[string]bool{}
	for _, i := range l.Candidates("h", NewBitmap(l.Count()), 10) {
		got[l.Block(i).Addr().String()] = true
	}
	assert.DeepEqual(t, got, map[string]bool{
		"10.32.0.2": true, "10.32.0.3": true, "10.32.0.4": true, "10.32.0.5": true, "10.32.0.6": true,
	})
}

func TestCandidatesStayInRangeAndHalf(t *testing.T) {
	subnet := netip.MustParsePrefix("10.32.0.0/24")
	rng := netip.MustParsePrefix("10.32.0.72/29")
	l, err := NewLayout(subnet, 28, FirstAddress(subnet), rng, nil, false)
	assert.NilError(t, err)
	got := l.Candidates("h", NewBitmap(l.Count()), 100)
	assert.Equal(t, len(got), 1)
	assert.Equal(t, l.Block(got[0]).String(), "10.32.0.64/28")
	s := NewShare(l, 0)
	s.AddBlock(got[0], start)
	assert.Equal(t, s.Free(), 8)

	l, err = NewLayout(subnet, 28, FirstAddress(subnet), netip.Prefix{}, nil, true)
	assert.NilError(t, err)
	for _, i := range l.Candidates("h", NewBitmap(l.Count()), 100) {
		assert.Assert(t, !LowerHalf(subnet).Overlaps(l.Block(i)), "block %s", l.Block(i))
	}
	assert.Equal(t, len(l.Candidates("h", NewBitmap(l.Count()), 100)), 8)

	l, err = NewLayout(subnet, 28, FirstAddress(subnet), netip.MustParsePrefix("10.32.0.0/25"), nil, true)
	assert.NilError(t, err)
	assert.Equal(t, len(l.Candidates("h", NewBitmap(l.Count()), 100)), 0)
}

func TestLayoutRefuses(t *testing.T) {
	subnet := netip.MustParsePrefix("10.32.0.0/24")
	gw := FirstAddress(subnet)
	_, err := NewLayout(subnet, 23, gw, netip.Prefix{}, nil, false)
	assert.ErrorContains(t, err, "do not fit")
	_, err = NewLayout(subnet, 28, gw, netip.MustParsePrefix("10.32.1.0/28"), nil, false)
	assert.ErrorContains(t, err, "not in the subnet")
	_, err = NewLayout(subnet, 28, gw, netip.MustParsePrefix("10.32.0.0/23"), nil, false)
	assert.ErrorContains(t, err, "not in the subnet")
	_, err = NewLayout(subnet, 28, gw, netip.Prefix{}, []netip.Addr{netip.MustParseAddr("10.0.0.1")}, false)
	assert.ErrorContains(t, err, "not in the subnet")
	_, err = NewLayout(subnet, 28, subnet.Addr(), netip.Prefix{}, nil, false)
	assert.ErrorContains(t, err, "itself")
	_, err = NewLayout(netip.MustParsePrefix("10.32.0.0/30"), 32, gw, netip.Prefix{}, nil, false)
	assert.ErrorContains(t, err, "from /8 to /29")
}

// In an IPv6 subnet, blocks are cut from the first 2^20 addresses of the range.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		subnet, rng string
		upper       bool
		count       int
		first, last string
	}{
		{"fd12::/64", "", false, 1 << 14, "fd12::/122", "fd12::f:ffc0/122"},
		{"fd12::/64", "fd12::1:0:0:0/80", false, 1 << 14, "fd12::1:0:0:0/122", "fd12::1:0:f:ffc0/122"},
		{"fd12::/64", "fd12::100/126", false, 1, "fd12::100/122", "fd12::100/122"},
		{"fd12::/64", "", true, 1 << 14, "fd12::8000:0:0:0/122", "fd12::8000:0:f:ffc0/122"},
		{"fd12::/112", "", false, 1 << 10, "fd12::/122", "fd12::ffc0/122"},
		{"fd12::/112", "", true, 1 << 9, "fd12::8000/122", "fd12::ffc0/122"},
		{"fd12::/120", "", false, 16, "fd12::/124", "fd12::f0/124"},
		{"10.1.0.0/16", "", false, 1 << 10, "10.1.0.0/26", "10.1.255.192/26"},
	} {
		subnet, rng := netip.MustParsePrefix(c.subnet), netip.Prefix{}
		if c.rng != "" {
			rng = netip.MustParsePrefix(c.rng)
		}
		l, err := NewLayout(subnet, BlockBits(subnet), FirstAddress(subnet), rng, nil, c.upper)
		assert.NilError(t, err)
		assert.Equal(t, l.Count(), c.count, "%v", c)
		assert.Equal(t, l.Block(0).String(), c.first)
		assert.Equal(t, l.Block(c.count-1).String(), c.last)
		for _, i := range []int{0, c.count / 2, c.count - 1} {
			got, err := l.Index(LastAddress(l.Block(i)))
			assert.NilError(t, err)
			assert.Equal(t, got, i)
		}
		assert.Equal(t, len(l.Candidates("h", NewBitmap(l.Count()), 1<<20)), c.count, "%v", c)
	}
	l := layout(t, "fd12::/64")
	_, err := l.Index(addr("fd12::10:0"))
	assert.ErrorIs(t, err, ErrNoBlock)
	_, err = l.Index(addr("fd13::"))
	assert.ErrorIs(t, err, ErrOutside)
	_, reserved := l.Reserved(LastAddress(l.Subnet()))
	assert.Assert(t, !reserved, "IPv6 has no broadcast address")
	assert.ErrorIs(t, NewShare(l, 0).Take(addr("fd12::10:0"), "", start), ErrNotOwned)
}

// Together the candidates of a host are all claimable blocks, each once.
func TestCandidatesAreComplete(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		bits := rapid.IntRange(20, 29).Draw(r, "bits")
		subnet := netip.PrefixFrom(netip.MustParseAddr("10.32.0.0"), bits)
		l, err := NewLayout(subnet, BlockBits(subnet), FirstAddress(subnet), netip.Prefix{}, nil, rapid.Bool().Draw(r, "upper"))
		if err != nil {
			r.Fatal(err)
		}
		taken := NewBitmap(l.Count())
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, l.Count()-1), 0, l.Count()).Draw(r, "taken") {
			taken.Set(i)
		}
		want := 0
		for i := range l.Count() {
			if l.Claimable(i) && !taken.Has(i) {
				want++
			}
		}
		seen := map[int]bool{}
		for _, i := range l.Candidates(rapid.String().Draw(r, "host"), taken, l.Count()) {
			if seen[i] || taken.Has(i) || !l.Claimable(i) {
				r.Fatalf("block %d", i)
			}
			seen[i] = true
		}
		if len(seen) != want {
			r.Fatalf("%d candidates of %d", len(seen), want)
		}
	})
}
