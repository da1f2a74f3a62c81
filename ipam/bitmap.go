package ipam

import "math/bits"

// Bitmap is a set of the numbers 0 to n-1 that finds the next number not in
// it in time that does not grow as it fills up: a second level marks the full
// words of the first. The zero value is an empty set of size 0.
type Bitmap struct {
	n     int
	words []uint64
	// full has a bit for each word that is all ones.
	full  []uint64
	count int
}

// NewBitmap returns an empty set of numbers below n.
func NewBitmap(n int) *Bitmap {
	w := (n + 63) / 64
	return &Bitmap{n: n, words: make([]uint64, w), full: make([]uint64, (w+63)/64)}
}

// Size is the n that the set was made with.
func (b *Bitmap) Size() int { return b.n }

// Count is how many numbers are in the set.
func (b *Bitmap) Count() int { return b.count }

// Has reports whether i is in the set; a number out of range is not.
func (b *Bitmap) Has(i int) bool {
	return i >= 0 && i < b.n && b.words[i/64]&(1<<(i%64)) != 0
}

// Set adds i and reports whether it was not in the set. It panics when i is
// out of range.
func (b *Bitmap) Set(i int) bool {
	if i < 0 || i >= b.n {
		panic("ipam: bitmap index out of range")
	}
	w := i / 64
	if b.words[w]&(1<<(i%64)) != 0 {
		return false
	}
	b.words[w] |= 1 << (i % 64)
	if b.words[w] == ^uint64(0) {
		b.full[w/64] |= 1 << (w % 64)
	}
	b.count++
	return true
}

// Clear removes i and reports whether it was in the set.
func (b *Bitmap) Clear(i int) bool {
	if !b.Has(i) {
		return false
	}
	w := i / 64
	b.words[w] &^= 1 << (i % 64)
	b.full[w/64] &^= 1 << (w % 64)
	b.count--
	return true
}

// NextClear returns the lowest number from "from" on, below limit, that is
// not in the set, or -1.
func (b *Bitmap) NextClear(from, limit int) int {
	limit = min(limit, b.n)
	if from < 0 {
		from = 0
	}
	if from >= limit {
		return -1
	}
	w := from / 64
	if free := ^b.words[w] &^ (1<<(from%64) - 1); free != 0 {
		return below(w*64+bits.TrailingZeros64(free), limit)
	}
	w = b.nextWord(w + 1)
	if w < 0 {
		return -1
	}
	return below(w*64+bits.TrailingZeros64(^b.words[w]), limit)
}

// nextWord returns the first word from w on that is not full, or -1.
func (b *Bitmap) nextWord(w int) int {
	if w >= len(b.words) {
		return -1
	}
	s := w / 64
	open := ^b.full[s] &^ (1<<(w%64) - 1)
	for open == 0 {
		if s++; s == len(b.full) {
			return -1
		}
		open = ^b.full[s]
	}
	if i := s*64 + bits.TrailingZeros64(open); i < len(b.words) {
		return i
	}
	return -1
}

func below(i, limit int) int {
	if i < limit {
		return i
	}
	return -1
}
