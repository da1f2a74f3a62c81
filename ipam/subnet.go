package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrNoSubnet means that a pool has no free subnet of the wanted size.
var ErrNoSubnet = errors.New("no free subnet")

// The bounds of a network's size, as prefix lengths of its subnets.
const (
	MinSubnetBits  = 8
	MaxSubnetBits  = 29
	MinSubnetBits6 = 32
	MaxSubnetBits6 = 120
)

// SubnetBits are the least and greatest prefix lengths of a network's subnet
// in the family of an address.
func SubnetBits(a netip.Addr) (least, most int) {
	if a.Is4() {
		return MinSubnetBits, MaxSubnetBits
	}
	return MinSubnetBits6, MaxSubnetBits6
}

// ParseSubnet reads a network's subnet: IPv4, /8 to /29, or IPv6, /32 to /120,
// without host bits, no loopback, multicast or link-local range.
func ParseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("parse subnet %q: not an address range such as 10.1.0.0/20 or fd00:1::/64", s)
	}
	return p, CheckSubnet(p)
}

// CheckSubnet says why a range cannot be a network's subnet, or nil.
func CheckSubnet(p netip.Prefix) error {
	a := p.Addr()
	least, most := SubnetBits(a)
	switch {
	case !p.IsValid():
		return errors.New("check subnet: not an address range")
	case a.Is4In6():
		return fmt.Errorf("check subnet %s: say it as IPv4", p)
	case p.Bits() < least || p.Bits() > most:
		return fmt.Errorf("check subnet %s: its size must be from /%d to /%d", p, least, most)
	case p != p.Masked():
		return fmt.Errorf("check subnet %s: it has host bits set (did you mean %s?)", p, p.Masked())
	case special(a):
		return fmt.Errorf("check subnet %s: that range has a special meaning", p)
	}
	return nil
}

// special reports whether a range that starts there is no unicast space.
func special(a netip.Addr) bool {
	if a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return true
	}
	if a.Is4() {
		return a.As4()[0] == 0 || a.As4()[0] >= 224
	}
	// ::/8 holds the unspecified and mapped addresses.
	return a.As16()[0] == 0
}

// CheckPool says why a range with subnets of the given prefix length cannot
// be a pool, or nil.
func CheckPool(pool netip.Prefix, subnetBits int) error {
	if !pool.IsValid() {
		return errors.New("check pool: not an address range")
	}
	least, most := SubnetBits(pool.Addr())
	if subnetBits < pool.Bits() || subnetBits > most || subnetBits < least {
		return fmt.Errorf("check pool %s: subnets of /%d do not fit (from /%d to /%d)", pool, subnetBits, max(least, pool.Bits()), most)
	}
	// A pool may be larger than any network, but of the same kinds of range.
	return CheckSubnet(netip.PrefixFrom(pool.Addr(), max(pool.Bits(), least)))
}

// ChooseSubnet returns the lowest range of the given prefix length in pool
// that overlaps none of taken, or [ErrNoSubnet]. Ranges of taken outside the
// pool, and of the other address family, do not matter.
func ChooseSubnet(pool netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, error) {
	none := fmt.Errorf("choose a /%d of %s: %w", bits, pool, ErrNoSubnet)
	if !pool.IsValid() || bits < pool.Bits() || bits > pool.Addr().BitLen() {
		return netip.Prefix{}, none
	}
	in := make([]netip.Prefix, 0, len(taken))
	for _, t := range taken {
		if t.Overlaps(pool) {
			in = append(in, t.Masked())
		}
	}
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	// The last addresses are compared, so that the end of the address space
	// does not wrap.
	low := mask(pool.Addr().BitLen() - bits)
	next, end := numberOf(pool.Masked().Addr()), numberOf(LastAddress(pool))
	for _, t := range in {
		if next.or(low).less(numberOf(t.Addr())) {
			break
		}
		last := numberOf(LastAddress(t))
		if last.less(next) {
			continue
		}
		up, ok := last.or(low).add(number{0, 1})
		if !ok || end.less(up) {
			return netip.Prefix{}, none
		}
		next = up
	}
	return netip.PrefixFrom(next.address(pool.Addr()), bits), nil
}

// Overlapping returns the first of ranges that overlaps p, or false.
func Overlapping(p netip.Prefix, ranges []netip.Prefix) (netip.Prefix, bool) {
	for _, r := range ranges {
		if r.Overlaps(p) {
			return r, true
		}
	}
	return netip.Prefix{}, false
}

// FirstAddress is the first address of a subnet after the network's own: the
// default gateway.
func FirstAddress(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// LastAddress is the highest address of a range: of an IPv4 subnet, its
// broadcast address.
func LastAddress(p netip.Prefix) netip.Addr {
	return numberOf(p.Masked().Addr()).or(mask(free(p))).address(p.Addr())
}

// CheckGateway says why an address cannot be a subnet's gateway, or nil.
func CheckGateway(subnet netip.Prefix, gateway netip.Addr) error {
	switch {
	case !subnet.Contains(gateway):
		return fmt.Errorf("check gateway %s: it is not in the subnet %s", gateway, subnet)
	case gateway == subnet.Addr():
		return fmt.Errorf("check gateway %s: it is the address of the subnet %s itself", gateway, subnet)
	case gateway.Is4() && gateway == LastAddress(subnet):
		return fmt.Errorf("check gateway %s: it is the broadcast address of the subnet %s", gateway, subnet)
	}
	return nil
}

// Taken is how many of a pool's subnets of the given prefix length overlap one
// of the ranges; at most the highest int64.
func Taken(pool netip.Prefix, bits int, ranges []netip.Prefix) int64 {
	// Cut to whole subnets and sorted, those that overlap one before are in
	// it: prefixes nest or are apart.
	var whole []netip.Prefix
	for _, r := range ranges {
		switch {
		case !r.Overlaps(pool):
		case r.Bits() <= pool.Bits():
			return Size(netip.PrefixFrom(pool.Addr(), pool.Addr().BitLen()-bits+pool.Bits()))
		default:
			whole = append(whole, netip.PrefixFrom(r.Addr(), min(r.Bits(), bits)).Masked())
		}
	}
	slices.SortFunc(whole, func(a, b netip.Prefix) int { return cmp.Or(a.Addr().Compare(b.Addr()), a.Bits()-b.Bits()) })
	var n int64
	for i, last := 0, (netip.Prefix{}); i < len(whole); i++ {
		if last.IsValid() && last.Overlaps(whole[i]) {
			continue
		}
		last = whole[i]
		n += Size(netip.PrefixFrom(last.Addr(), last.Addr().BitLen()-bits+last.Bits()))
	}
	return n
}
