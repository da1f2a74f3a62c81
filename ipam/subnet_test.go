package ipam

import (
	"errors"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func TestChooseSubnet(t *testing.T) {
	for _, c := range []struct {
		pool  string
		bits  int
		taken []netip.Prefix
		want  string // "" for ErrNoSubnet
	}{
		{"10.208.0.0/12", 20, nil, "10.208.0.0/20"},
		{"10.208.0.0/12", 20, prefixes("10.208.0.0/20"), "10.208.16.0/20"},
		{"10.208.0.0/12", 20, prefixes("10.208.16.0/20"), "10.208.0.0/20"},
		{"10.208.0.0/12", 20, prefixes("10.208.3.7/32"), "10.208.16.0/20"},
		{"10.208.0.0/12", 20, prefixes("10.208.32.0/20", "10.208.0.0/19"), "10.208.48.0/20"},
		{"10.208.0.0/12", 20, prefixes("10.0.0.0/8"), ""},
		{"10.208.0.0/12", 20, prefixes("0.0.0.0/0"), ""},
		{"10.208.0.0/12", 20, prefixes("192.168.0.0/16", "fd00::/8"), "10.208.0.0/20"},
		{"10.208.0.0/12", 20, prefixes("10.208.0.0/13", "10.208.0.0/16", "10.216.0.0/14"), "10.220.0.0/20"},
		{"10.208.0.0/12", 12, nil, "10.208.0.0/12"},
		{"10.208.0.0/20", 12, nil, ""},
		{"255.0.0.0/8", 9, prefixes("255.0.0.0/9"), "255.128.0.0/9"},
		{"255.0.0.0/8", 9, prefixes("255.0.0.0/9", "255.128.0.0/9"), ""},
		{"fd12::/48", 64, nil, "fd12::/64"},
		{"fd12::/48", 64, prefixes("fd12::/64", "fd12:0:0:1::7/128", "10.0.0.0/8"), "fd12:0:0:2::/64"},
		{"fd12::/48", 64, prefixes("fd12::/49"), "fd12:0:0:8000::/64"},
		{"fd12::/48", 64, prefixes("fd00::/8"), ""},
		{"fd12::/48", 64, prefixes("::/0"), ""},
		{"ffff:ffff::/32", 33, prefixes("ffff:ffff::/33", "ffff:ffff:8000::/33"), ""},
	} {
		got, err := ChooseSubnet(netip.MustParsePrefix(c.pool), c.bits, c.taken)
		if c.want == "" {
			assert.ErrorIs(t, err, ErrNoSubnet, "%v", c)
			continue
		}
		assert.NilError(t, err, "%v", c)
		assert.Equal(t, got.String(), c.want)
	}
}

// The chosen subnet is in the pool, overlaps nothing, and every lower one
// overlaps something.
func TestChooseSubnetIsLowestFree(t *testing.T) {
	for _, pool := range prefixes("10.64.0.0/18", "fdff:ffff:ffff:fffe::/114", "fd00::ffff:ffff:ffff:c000/114") {
		t.Run(pool.String(), func(t *testing.T) { chooseSubnetIsLowestFree(t, pool) })
	}
}

func chooseSubnetIsLowestFree(t *testing.T, pool netip.Prefix) {
	most := pool.Addr().BitLen()
	rapid.Check(t, func(r *rapid.T) {
		bits := rapid.IntRange(most-14, most-6).Draw(r, "bits")
		taken := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) netip.Prefix {
			below := numberOf(pool.Addr()).sub(number{0, 1 << 14}).address(pool.Addr())
			return netip.PrefixFrom(plus(below, rapid.Uint64Range(0, 3<<14).Draw(r, "at")), rapid.IntRange(most-15, most).Draw(r, "size"))
		}), 0, 30).Draw(r, "taken")
		var want netip.Prefix
		for n := range uint64(1) << (bits - pool.Bits()) {
			p := netip.PrefixFrom(plus(pool.Addr(), n<<(most-bits)), bits)
			if _, hit := Overlapping(p, taken); !hit {
				want = p
				break
			}
		}
		got, err := ChooseSubnet(pool, bits, taken)
		if errors.Is(err, ErrNoSubnet) != !want.IsValid() || got != want {
			r.Fatalf("chose %v, %v; the lowest free is %v", got, err, want)
		}
	})
}

func TestCheckSubnet(t *testing.T) {
	for s, problem := range map[string]string{
		"10.0.0.0/8":          "",
		"10.208.0.0/20":       "",
		"192.168.7.0/29":      "",
		"10.0.0.0/7":          "from /8 to /29",
		"10.0.0.0/30":         "from /8 to /29",
		"10.0.0.1/24":         "did you mean 10.0.0.0/24?",
		"fd00::/64":           "",
		"fd00::/120":          "",
		"2001:db8::/32":       "",
		"fd00::/31":           "from /32 to /120",
		"fd00::/121":          "from /32 to /120",
		"fd00::1/64":          "did you mean fd00::/64?",
		"fe80::/64":           "special meaning",
		"ff02::/64":           "special meaning",
		"::/64":               "special meaning",
		"::ffff:10.0.0.0/120": "say it as IPv4",
		"169.254.0.0/16":      "special meaning",
		"127.0.0.0/8":         "special meaning",
		"224.0.0.0/8":         "special meaning",
		"0.0.0.0/8":           "special meaning",
		"10.0.0.0":            "not an address range",
		"10.0.0.0/24/24":      "not an address range",
		"10.0.0.0/24\x00":     "not an address range",
		"":                    "not an address range",
	} {
		_, err := ParseSubnet(s)
		if problem == "" {
			assert.NilError(t, err)
		} else {
			assert.ErrorContains(t, err, problem)
		}
	}
	assert.Assert(t, CheckSubnet(netip.Prefix{}) != nil)
}

func TestCheckPool(t *testing.T) {
	assert.NilError(t, CheckPool(netip.MustParsePrefix("10.208.0.0/12"), 20))
	assert.ErrorContains(t, CheckPool(netip.MustParsePrefix("10.208.0.0/12"), 10), "do not fit")
	assert.ErrorContains(t, CheckPool(netip.MustParsePrefix("10.208.0.0/12"), 30), "do not fit")
	assert.NilError(t, CheckPool(netip.MustParsePrefix("fd12::/48"), 64))
	assert.ErrorContains(t, CheckPool(netip.MustParsePrefix("fd12::/48"), 20), "do not fit (from /48 to /120)")
	assert.ErrorContains(t, CheckPool(netip.MustParsePrefix("fe80::/48"), 64), "special meaning")
	assert.ErrorContains(t, CheckPool(netip.Prefix{}, 64), "not an address range")
	assert.ErrorContains(t, CheckPool(netip.MustParsePrefix("10.208.0.1/12"), 20), "host bits")
}

func TestSubnetAddresses(t *testing.T) {
	p := netip.MustParsePrefix("10.208.16.0/20")
	assert.Equal(t, FirstAddress(p).String(), "10.208.16.1")
	assert.Equal(t, LastAddress(p).String(), "10.208.31.255")
	assert.Equal(t, LowerHalf(p).String(), "10.208.16.0/21")
	assert.Equal(t, LastAddress(netip.MustParsePrefix("10.0.0.3/32")).String(), "10.0.0.3")
	assert.NilError(t, CheckGateway(p, netip.MustParseAddr("10.208.20.1")))
	assert.ErrorContains(t, CheckGateway(p, netip.MustParseAddr("10.208.32.1")), "not in the subnet")
	assert.ErrorContains(t, CheckGateway(p, netip.MustParseAddr("10.208.16.0")), "subnet 10.208.16.0/20 itself")
	assert.ErrorContains(t, CheckGateway(p, netip.MustParseAddr("10.208.31.255")), "broadcast")
	assert.ErrorContains(t, CheckGateway(p, netip.Addr{}), "not in the subnet")
	p = netip.MustParsePrefix("fd12::/64")
	assert.Equal(t, FirstAddress(p).String(), "fd12::1")
	assert.Equal(t, LastAddress(p).String(), "fd12::ffff:ffff:ffff:ffff")
	assert.Equal(t, UpperHalf(p).String(), "fd12::8000:0:0:0/65")
	assert.NilError(t, CheckGateway(p, LastAddress(p)))
	assert.Equal(t, Size(p), int64(1<<63-1))
	assert.Equal(t, Size(netip.MustParsePrefix("10.0.0.0/8")), int64(1<<24))
}

func FuzzParseSubnet(f *testing.F) {
	for _, s := range []string{"10.208.0.0/20", "0.0.0.0/0", "::/0", "10.0.0.1/29", "x", "fd12::/64", "fd12::/120", "::ffff:10.0.0.0/120"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSubnet(s)
		if err != nil {
			return
		}
		if again, err := ParseSubnet(p.String()); err != nil || again != p {
			t.Fatalf("%q was read as %s, and that as %s: %v", s, p, again, err)
		}
		if err := CheckGateway(p, FirstAddress(p)); err != nil {
			t.Fatal(err)
		}
		for _, upper := range []bool{false, true} {
			l, err := NewLayout(p, BlockBits(p), FirstAddress(p), netip.Prefix{}, nil, upper)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range l.Candidates("host", NewBitmap(l.Count()), 2) {
				if b := l.Block(i); !p.Overlaps(b) || upper && LowerHalf(p).Overlaps(b) {
					t.Fatalf("block %d of %s is %s", i, p, b)
				}
			}
		}
	})
}
