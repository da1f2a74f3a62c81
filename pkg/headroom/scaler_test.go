package headroom

import (
	"math"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

// The vectors of spec/clocker.md §11: bounds 10 to 100, pool 1 to 5.
func TestVectorsOfTheScaler(t *testing.T) {
	base := Scaler{Lower: 10, Upper: 100, Min: 1, Max: 5}
	with := func(f func(*Scaler)) Scaler { s := base; f(&s); return s }
	for name, v := range map[string]struct {
		s      Scaler
		metric float64
		want   int
		capped bool
	}{
		"hot":                       {base, 150, 5, false},
		"cold":                      {base, 5, 1, false},
		"hot beyond the maximum":    {base, 400, 5, true},
		"one at a time":             {with(func(s *Scaler) { s.UpMax, s.UpIncrement = 1, 1 }), 150, 4, false},
		"steps of three":            {with(func(s *Scaler) { s.UpIncrement = 3 }), 150, 5, false},
		"between the bounds":        {base, 50, 3, false},
		"no metric":                 {base, math.NaN(), 3, false},
		"an upper bound of 0":       {with(func(s *Scaler) { s.Upper = 0 }), 1e9, 3, false},
		"a lower bound of 0":        {with(func(s *Scaler) { s.Lower = 0 }), 0, 3, false},
		"at most one less":          {with(func(s *Scaler) { s.DownMax = 1 }), 1, 2, false},
		"no further than the bound": {with(func(s *Scaler) { s.Lower, s.Upper, s.DownIncrement = 60, 100, 2 }), 59, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, capped := v.s.Desired(v.metric, 3)
			assert.Equal(t, got, v.want)
			assert.Equal(t, capped, v.capped)
		})
	}
	// ceil(0.8125*2/0.75) and ceil(3.5/0.75): the original overshoots with 5.
	pool := Scaler{Lower: 0.25, Upper: 0.75, Min: 2}
	for metric, want := range map[float64]int{0.5: 2, 0.75: 2, 0.8125: 3, 1.75: 5} {
		got, _ := pool.Desired(metric, 2)
		assert.Equal(t, got, want)
	}
	got, _ := Scaler{Lower: 0.85, Upper: 0.95, Min: 2}.Desired(0.0125, 10)
	assert.Equal(t, got, 2)
}

func TestScalerNeverShrinksIntoHeat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lower := rapid.Float64Range(1, 50).Draw(t, "lower")
		s := Scaler{
			Lower: lower, Upper: lower + rapid.Float64Range(1, 100).Draw(t, "band"), Min: rapid.IntRange(0, 3).Draw(t, "min"),
			DownIncrement: rapid.IntRange(0, 4).Draw(t, "increment"), DownMax: rapid.IntRange(0, 4).Draw(t, "longest"),
		}
		size, metric := rapid.IntRange(3, 20).Draw(t, "size"), rapid.Float64Range(0, 200).Draw(t, "metric")
		got, _ := s.Desired(metric, size)
		if got < size {
			assert.Assert(t, metric < s.Lower && metric*float64(size) <= s.Upper*float64(got)+1e-6)
		}
		if got > size {
			assert.Assert(t, metric > s.Upper)
		}
		assert.Assert(t, got >= min(size, s.Min))
	})
}
