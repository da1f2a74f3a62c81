package ipam

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
)

// BlockBits is the prefix length of the blocks of a subnet: at least 16
// blocks, so that a handful of hosts find room even in small networks, and at
// most 64 addresses in each. A /22 and larger has blocks of /26, a /24 of /28;
// a /28 and a /29 have "blocks" of one address, so that each address is
// claimed in etcd by itself. IPv6 blocks are /122, those of a /120 /124.
func BlockBits(subnet netip.Prefix) int {
	n := subnet.Addr().BitLen()
	return min(n, max(n-6, subnet.Bits()+4))
}

// WindowBits is the size of the window, in bits, that blocks of IPv6 networks
// are cut from: the first 2^20 addresses of the range. Larger subnets are
// never full of blocks, and a host can know all blocks of a window.
const WindowBits = 20

// Layout is how a network's subnet is cut into blocks, and which of its
// addresses nobody gets. Make one with [NewLayout].
type Layout struct {
	subnet    netip.Prefix
	blockBits int
	// window is what is cut: the subnet (IPv4), or a part of it (IPv6).
	window netip.Prefix
	// rng is where addresses may come from; within subnet.
	rng netip.Prefix
	// upper restricts blocks to the upper half of the subnet.
	upper    bool
	reserved map[netip.Addr]string
}

// NewLayout describes a network's blocks. An invalid rng means the whole
// subnet. With upperHalf no block is in the lower half, whose addresses an
// engine's own IPAM hands out. The reserved addresses are the network's and
// (IPv4) broadcast address, the gateway and aux.
func NewLayout(subnet netip.Prefix, blockBits int, gateway netip.Addr, rng netip.Prefix, aux []netip.Addr, upperHalf bool) (*Layout, error) {
	if err := CheckSubnet(subnet); err != nil {
		return nil, err
	}
	most := subnet.Addr().BitLen()
	if blockBits < subnet.Bits() || blockBits > most || blockBits < most-16 {
		return nil, fmt.Errorf("check blocks of /%d in %s: they do not fit", blockBits, subnet)
	}
	if !rng.IsValid() {
		rng = subnet
	}
	if rng.Bits() < subnet.Bits() || !subnet.Contains(rng.Addr()) {
		return nil, fmt.Errorf("check range %s: it is not in the subnet %s", rng, subnet)
	}
	l := &Layout{subnet: subnet, blockBits: blockBits, rng: rng.Masked(), upper: upperHalf, reserved: map[netip.Addr]string{
		subnet.Addr(): "the address of the subnet itself",
	}}
	l.window = subnet
	if subnet.Addr().Is4() {
		l.reserved[LastAddress(subnet)] = "the subnet's broadcast address"
	} else {
		l.window = l.window6()
	}
	for _, a := range aux {
		if !subnet.Contains(a) {
			return nil, fmt.Errorf("check reserved address %s: it is not in the subnet %s", a, subnet)
		}
		l.reserved[a] = ReservedAux
	}
	if gateway.IsValid() {
		if err := CheckGateway(subnet, gateway); err != nil {
			return nil, err
		}
		l.reserved[gateway] = ReservedGateway
	}
	return l, nil
}

// window6 is the part of an IPv6 subnet that blocks are cut from.
func (l *Layout) window6() netip.Prefix {
	start := l.rng.Addr()
	if half := UpperHalf(l.subnet); l.upper && l.rng.Contains(half.Addr()) {
		start = half.Addr()
	}
	bits := max(128-WindowBits, l.rng.Bits(), l.subnet.Bits())
	if l.upper {
		bits = max(bits, l.subnet.Bits()+1)
	}
	return netip.PrefixFrom(start, min(bits, l.blockBits)).Masked()
}

// Why an address may be reserved, besides the subnet's own two.
const (
	ReservedGateway = "the network's gateway"
	ReservedAux     = "reserved by --aux-address"
)

// Subnet is the subnet that is cut.
func (l *Layout) Subnet() netip.Prefix { return l.subnet }

// Reserved says why nobody gets an address; ok is false where nothing speaks
// against it.
func (l *Layout) Reserved(a netip.Addr) (why string, ok bool) {
	why, ok = l.reserved[a]
	return why, ok
}

// Count is the number of blocks, claimable or not.
func (l *Layout) Count() int { return 1 << (l.blockBits - l.window.Bits()) }

// Block is the range of block i.
func (l *Layout) Block(i int) netip.Prefix {
	n := l.subnet.Addr().BitLen() - l.blockBits
	return netip.PrefixFrom(plus(l.window.Addr(), uint64(i)<<n), l.blockBits)
}

// Index is the block that an address of the subnet is in. It returns
// [ErrOutside], or [ErrNoBlock] for one that is in the subnet but in no block,
// wrapped.
func (l *Layout) Index(a netip.Addr) (int, error) {
	if !l.subnet.Contains(a) {
		return 0, fmt.Errorf("find block of %s: %w %s", a, ErrOutside, l.subnet)
	}
	if !l.window.Contains(a) {
		return 0, fmt.Errorf("find block of %s: %w: those of %s end at %s", a, ErrNoBlock, l.subnet, LastAddress(l.window))
	}
	n := l.subnet.Addr().BitLen() - l.blockBits
	return int(numberOf(a).sub(numberOf(l.window.Addr())).shift(n).lo), nil
}

// ErrOutside means that an address is not in the network's subnet, and
// ErrNoBlock that it is in a part that is not cut into blocks.
var (
	ErrOutside = errors.New("not in the subnet")
	ErrNoBlock = errors.New("in no block")
)

// LowerHalf is the range that an engine's own IPAM hands addresses out of in
// a network that was made with it.
func LowerHalf(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(subnet.Addr(), subnet.Bits()+1)
}

// UpperHalf is the range whose addresses hosts share in such a network.
func UpperHalf(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(LastAddress(subnet), subnet.Bits()+1).Masked()
}

// span is the half-open interval of blocks that hosts may claim.
func (l *Layout) span() (from, to int) {
	if !l.rng.Overlaps(l.window) || l.upper && !l.rng.Overlaps(UpperHalf(l.subnet)) {
		return 0, 0
	}
	from, to = 0, l.Count()-1
	if l.window.Contains(l.rng.Addr()) {
		from, _ = l.Index(l.rng.Addr())
	}
	if last := LastAddress(l.rng); l.window.Contains(last) {
		to, _ = l.Index(last)
	}
	if half := UpperHalf(l.subnet).Addr(); l.upper && l.window.Contains(half) {
		i, _ := l.Index(half)
		from = max(from, i)
	}
	return from, to + 1
}

// Claimable reports whether hosts may claim block i: it is where addresses
// may come from, and at least one of its addresses is not reserved.
func (l *Layout) Claimable(i int) bool {
	from, to := l.span()
	if i < from || i >= to {
		return false
	}
	b := l.Block(i)
	left := 1 << (b.Addr().BitLen() - max(b.Bits(), l.rng.Bits()))
	for a := range l.reserved {
		if b.Contains(a) && l.rng.Contains(a) {
			left--
		}
	}
	return left > 0
}

// Candidates returns up to n claimable blocks that are not in taken, in the
// order in which the host should try them: from a place that depends on the
// host's id, so that hosts seldom want the same block, upwards and around.
func (l *Layout) Candidates(host string, taken *Bitmap, n int) []int {
	from, to := l.span()
	if from >= to {
		return nil
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(host + " " + l.subnet.String()))
	start := from + int(h.Sum64()%uint64(to-from))
	var found []int
	collect := func(i, limit int) {
		for len(found) < n {
			if i = taken.NextClear(i, limit); i < 0 {
				return
			}
			if l.Claimable(i) {
				found = append(found, i)
			}
			i++
		}
	}
	collect(start, to)
	collect(from, start)
	return found
}
