package ipam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// ErrNoSubnet means that a pool has no free subnet of the wanted size.
var ErrNoSubnet = errors.New("no free subnet")

// MinSubnetBits and MaxSubnetBits bound the size of a network.
const (
	MinSubnetBits = 8
	MaxSubnetBits = 29
)

// ParseSubnet reads a network's subnet: IPv4, /8 to /29, without host bits,
// no loopback, multicast or link-local range.
func ParseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("parse subnet %q: not an address range such as 10.1.0.0/20", s)
	}
	return p, CheckSubnet(p)
}

// CheckSubnet says why a range cannot be a network's subnet, or nil.
func CheckSubnet(p netip.Prefix) error {
	a := p.Addr()
	switch {
	case !p.IsValid():
		return errors.New("check subnet: not an address range")
	case !a.Is4():
		return fmt.Errorf("check subnet %s: only IPv4 is supported", p)
	case p.Bits() < MinSubnetBits || p.Bits() > MaxSubnetBits:
		return fmt.Errorf("check subnet %s: its size must be from /%d to /%d", p, MinSubnetBits, MaxSubnetBits)
	case p != p.Masked():
		return fmt.Errorf("check subnet %s: it has host bits set (did you mean %s?)", p, p.Masked())
	case a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.As4()[0] == 0 || a.As4()[0] >= 224:
		return fmt.Errorf("check subnet %s: that range has a special meaning", p)
	}
	return nil
}

// CheckPool says why a range with subnets of the given prefix length cannot
// be a pool, or nil.
func CheckPool(pool netip.Prefix, subnetBits int) error {
	if subnetBits < pool.Bits() || subnetBits > MaxSubnetBits || subnetBits < MinSubnetBits {
		return fmt.Errorf("check pool %s: subnets of /%d do not fit", pool, subnetBits)
	}
	// A pool may be larger than any network, but of the same kinds of range.
	return CheckSubnet(netip.PrefixFrom(pool.Addr(), max(pool.Bits(), MinSubnetBits)))
}

// ChooseSubnet returns the lowest range of the given prefix length in pool
// that overlaps none of taken, or [ErrNoSubnet]. Ranges of taken outside the
// pool, and of the other address family, do not matter.
func ChooseSubnet(pool netip.Prefix, bits int, taken []netip.Prefix) (netip.Prefix, error) {
	if !pool.IsValid() || !pool.Addr().Is4() || bits < pool.Bits() || bits > 32 {
		return netip.Prefix{}, fmt.Errorf("choose a /%d of %s: %w", bits, pool, ErrNoSubnet)
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
	// 64-bit arithmetic, so that the end of 255.0.0.0/8 does not wrap.
	size := uint64(1) << (32 - bits)
	next := uint64(number(pool.Masked().Addr()))
	end := next + 1<<(32-pool.Bits())
	for _, t := range in {
		from := uint64(number(t.Addr()))
		if from >= next+size {
			break
		}
		if to := from + 1<<(32-t.Bits()); to > next {
			next = (to + size - 1) / size * size
		}
	}
	if next+size > end {
		return netip.Prefix{}, fmt.Errorf("choose a /%d of %s: %w", bits, pool, ErrNoSubnet)
	}
	return netip.PrefixFrom(address(uint32(next)), bits), nil
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

// LastAddress is the highest address of a range: of a subnet, its broadcast
// address.
func LastAddress(p netip.Prefix) netip.Addr {
	return address(number(p.Masked().Addr()) | (1<<(32-p.Bits()) - 1))
}

// CheckGateway says why an address cannot be a subnet's gateway, or nil.
func CheckGateway(subnet netip.Prefix, gateway netip.Addr) error {
	switch {
	case !subnet.Contains(gateway):
		return fmt.Errorf("check gateway %s: it is not in the subnet %s", gateway, subnet)
	case gateway == subnet.Addr():
		return fmt.Errorf("check gateway %s: it is the address of the subnet %s itself", gateway, subnet)
	case gateway == LastAddress(subnet):
		return fmt.Errorf("check gateway %s: it is the broadcast address of the subnet %s", gateway, subnet)
	}
	return nil
}

// number and address turn an IPv4 address into a number and back.
func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}
