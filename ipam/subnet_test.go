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
	pool := netip.MustParsePrefix("10.64.0.0/18")
	rapid.Check(t, func(r *rapid.T) {
		bits := rapid.IntRange(18, 26).Draw(r, "bits")
		taken := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) netip.Prefix {
			at := rapid.Uint32Range(number(netip.MustParseAddr("10.63.192.0")), number(netip.MustParseAddr("10.64.127.255"))).Draw(r, "at")
			return netip.PrefixFrom(address(at), rapid.IntRange(17, 32).Draw(r, "size"))
		}), 0, 30).Draw(r, "taken")
		var want netip.Prefix
		for n := range uint32(1) << (bits - 18) {
			p := netip.PrefixFrom(address(number(pool.Addr())+n<<(32-bits)), bits)
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
		"10.0.0.0/8":      "",
		"10.208.0.0/20":   "",
		"192.168.7.0/29":  "",
		"10.0.0.0/7":      "from /8 to /29",
		"10.0.0.0/30":     "from /8 to /29",
		"10.0.0.1/24":     "did you mean 10.0.0.0/24?",
		"fd00::/64":       "only IPv4",
		"169.254.0.0/16":  "special meaning",
		"127.0.0.0/8":     "special meaning",
		"224.0.0.0/8":     "special meaning",
		"0.0.0.0/8":       "special meaning",
		"10.0.0.0":        "not an address range",
		"10.0.0.0/24/24":  "not an address range",
		"10.0.0.0/24\x00": "not an address range",
		"":                "not an address range",
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
	assert.ErrorContains(t, CheckPool(netip.MustParsePrefix("fd00::/12"), 20), "only IPv4")
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
}

func FuzzParseSubnet(f *testing.F) {
	for _, s := range []string{"10.208.0.0/20", "0.0.0.0/0", "::/0", "10.0.0.1/29", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseSubnet(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Fatalf("%q was read as %s", s, p)
		}
		if err := CheckGateway(p, FirstAddress(p)); err != nil {
			t.Fatal(err)
		}
		if _, err := NewLayout(p, BlockBits(p.Bits()), FirstAddress(p), netip.Prefix{}, nil, false); err != nil {
			t.Fatal(err)
		}
	})
}
