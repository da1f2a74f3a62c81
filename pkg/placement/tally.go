package placement

import "math/bits"

// tally counts by host, for few hosts of many: a hash table of dense ints. Its
// zero value is empty.
type tally struct {
	slots []tallied
	used  int // slots with a host, some of them back at 0
}

// tallied is a slot: the host's index plus 1, so that 0 means free.
type tallied struct{ host1, n int32 }

func (t *tally) find(host int32) *tallied {
	mask := uint32(len(t.slots) - 1)
	for i := (uint32(host) * 0x9e3779b1) >> 7 & mask; ; i = (i + 1) & mask {
		if s := &t.slots[i]; s.host1 == host+1 || s.host1 == 0 {
			return s
		}
	}
}

func (t *tally) get(host int32) int32 {
	if len(t.slots) == 0 {
		return 0
	}
	return t.find(host).n
}

func (t *tally) add(host, n int32) {
	if t.used*4 >= len(t.slots)*3 {
		t.grow()
	}
	s := t.find(host)
	if s.host1 == 0 {
		s.host1 = host + 1
		t.used++
	}
	s.n += n
}

// grow makes room and leaves out what has come back to 0.
func (t *tally) grow() {
	old, live := t.slots, 0
	for _, s := range old {
		if s.n != 0 {
			live++
		}
	}
	t.used, t.slots = 0, make([]tallied, max(4, 1<<bits.Len(uint(live*2))))
	for _, s := range old {
		if s.n != 0 {
			*t.find(s.host1 - 1) = s
			t.used++
		}
	}
}

// set is a set of small ints.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

func (s set) has(i int32) bool { return s[i>>6]&(1<<(i&63)) != 0 }
func (s set) put(i int32)      { s[i>>6] |= 1 << (i & 63) }
func (s set) drop(i int32)     { s[i>>6] &^= 1 << (i & 63) }

func (s set) size() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// each calls f with the members in order.
func (s set) each(f func(int32)) {
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			f(int32(i<<6 + bits.TrailingZeros64(w)))
		}
	}
}

// nth is the member with k smaller ones; the set has more than k.
func (s set) nth(k int) int32 {
	for i, w := range s {
		n := bits.OnesCount64(w)
		if k >= n {
			k -= n
			continue
		}
		for ; k > 0; k-- {
			w &= w - 1
		}
		return int32(i<<6 + bits.TrailingZeros64(w))
	}
	return -1
}
