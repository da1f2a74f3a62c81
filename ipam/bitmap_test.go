package ipam

import (
	"testing"

	"pgregory.net/rapid"
)

func TestBitmapAgainstModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.SampledFrom([]int{1, 63, 64, 65, 200, 64*64 + 5, 3 * 64 * 64}).Draw(r, "n")
		b, model := NewBitmap(n), map[int]bool{}
		// Whole runs are set first, so that the second level is used.
		for range rapid.IntRange(0, 3).Draw(r, "runs") {
			from := rapid.IntRange(0, n-1).Draw(r, "from")
			for i := from; i < min(n, from+rapid.IntRange(0, n).Draw(r, "length")); i++ {
				b.Set(i)
				model[i] = true
			}
		}
		r.Repeat(map[string]func(*rapid.T){
			"set": func(r *rapid.T) {
				i := rapid.IntRange(0, n-1).Draw(r, "i")
				if b.Set(i) == model[i] {
					r.Fatalf("set %d", i)
				}
				model[i] = true
			},
			"clear": func(r *rapid.T) {
				i := rapid.IntRange(-1, n).Draw(r, "i")
				if b.Clear(i) != model[i] {
					r.Fatalf("clear %d", i)
				}
				delete(model, i)
			},
			"next": func(r *rapid.T) {
				from, limit := rapid.IntRange(-1, n+1).Draw(r, "from"), rapid.IntRange(0, n+1).Draw(r, "limit")
				want := -1
				for i := max(from, 0); i < min(limit, n); i++ {
					if !model[i] {
						want = i
						break
					}
				}
				if got := b.NextClear(from, limit); got != want {
					r.Fatalf("next clear from %d below %d: %d, want %d", from, limit, got, want)
				}
			},
			"": func(r *rapid.T) {
				if b.Count() != len(model) || b.Size() != n {
					r.Fatalf("count %d, want %d", b.Count(), len(model))
				}
			},
		})
	})
}

// The search takes as long in a full map as in an empty one.
func BenchmarkBitmapNextClear(b *testing.B) {
	for _, fill := range []int{0, 50, 99} {
		b.Run(percent(fill), func(b *testing.B) {
			const n = 1 << 16
			m := NewBitmap(n)
			for i := range n * fill / 100 {
				m.Set(i)
			}
			for b.Loop() {
				if m.NextClear(0, n) < 0 {
					b.Fatal("full")
				}
			}
		})
	}
}
