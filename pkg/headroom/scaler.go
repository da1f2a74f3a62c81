package headroom

import "math"

// Scaler follows a metric by the number of members of a pool, as the old
// AutoScalerPolicy does (spec/clocker.md §3.3.1): the metric is an average per
// member that should stay between two bounds. It says nothing about time; a
// [History] does. Hosts are not scaled by it: their number is worked out
// directly, which overshoots nowhere (§3.2).
type Scaler struct {
	// Lower and Upper are the metric's bounds; 0 means none.
	Lower, Upper float64
	// Min and Max bound the size; a Max of 0 means no bound.
	Min, Max int
	// UpIncrement and DownIncrement are what steps are multiples of, UpMax and
	// DownMax the longest step. An increment of 0 means 1, a longest step of 0
	// no bound.
	UpIncrement, UpMax, DownIncrement, DownMax int
}

// Desired is the size that a pool of this size should have at this metric.
// capped means that more would be wanted than Max allows.
func (s Scaler) Desired(metric float64, size int) (desired int, capped bool) {
	total := metric * float64(size)
	switch {
	case math.IsNaN(metric):
		return size, false
	case s.Upper > 0 && metric > s.Upper:
		want := int(ceil(total / s.Upper))
		capped = s.Max > 0 && want > s.Max
		desired = s.clamp(want)
		if desired > size {
			desired = s.clamp(size + step(desired-size, s.UpIncrement, s.UpMax))
		}
		return max(desired, size), capped
	case s.Lower > 0 && metric < s.Lower:
		desired = s.clamp(int(math.Floor(total/s.Lower + 1e-9)))
		if desired >= size {
			return size, false
		}
		desired = size - step(size-desired, s.DownIncrement, s.DownMax)
		// Not so far that it would have to grow at once.
		for s.Upper > 0 && desired < size && total > s.Upper*float64(desired) {
			desired += max(1, s.DownIncrement)
		}
		return min(s.clamp(desired), size), false
	}
	return size, false
}

func (s Scaler) clamp(n int) int {
	if s.Max > 0 {
		n = min(n, s.Max)
	}
	return max(n, s.Min)
}

// step bounds a step and rounds it up to a whole number of increments.
func step(delta, increment, most int) int {
	if most > 0 && delta > most {
		return most
	}
	increment = max(1, increment)
	return (delta + increment - 1) / increment * increment
}
