package ipam

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// number is an address as a number of 128 bits; IPv4 addresses take the lower
// 32.
type number struct{ hi, lo uint64 }

// maxNumber is the highest number.
var maxNumber = number{^uint64(0), ^uint64(0)}

func numberOf(a netip.Addr) number {
	if a.Is4() {
		b := a.As4()
		return number{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return number{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// address is the number as an address of a's family.
func (n number) address(like netip.Addr) netip.Addr {
	if like.Is4() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(n.lo))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], n.hi)
	binary.BigEndian.PutUint64(b[8:], n.lo)
	return netip.AddrFrom16(b)
}

// add reports false when the sum does not fit.
func (n number) add(m number) (number, bool) {
	lo, carry := bits.Add64(n.lo, m.lo, 0)
	hi, over := bits.Add64(n.hi, m.hi, carry)
	return number{hi, lo}, over == 0
}

// sub is n-m, for m no greater than n.
func (n number) sub(m number) number {
	lo, borrow := bits.Sub64(n.lo, m.lo, 0)
	hi, _ := bits.Sub64(n.hi, m.hi, borrow)
	return number{hi, lo}
}

func (n number) less(m number) bool { return n.hi < m.hi || n.hi == m.hi && n.lo < m.lo }

// power is 2 to the k, for k below 128; 0 beyond.
func power(k int) number {
	switch {
	case k < 64:
		return number{0, 1 << k}
	case k < 128:
		return number{1 << (k - 64), 0}
	default:
		return number{}
	}
}

// mask has the lowest k bits set.
func mask(k int) number {
	if k >= 128 {
		return maxNumber
	}
	return power(k).sub(number{0, 1})
}

func (n number) or(m number) number { return number{n.hi | m.hi, n.lo | m.lo} }

// shift is n shifted k bits to the right.
func (n number) shift(k int) number {
	switch {
	case k >= 128:
		return number{}
	case k >= 64:
		return number{0, n.hi >> (k - 64)}
	case k == 0:
		return n
	default:
		return number{n.hi >> k, n.lo>>k | n.hi<<(64-k)}
	}
}

// free is how many bits of a range's addresses are not of its prefix.
func free(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

// plus is the k-th address after a; it must be in a's family.
func plus(a netip.Addr, k uint64) netip.Addr {
	n, _ := numberOf(a).add(number{0, k})
	return n.address(a)
}

// Size is how many addresses a range has, or the highest int64 when it has
// more.
func Size(p netip.Prefix) int64 {
	if free(p) > 62 {
		return 1<<63 - 1
	}
	return 1 << free(p)
}
