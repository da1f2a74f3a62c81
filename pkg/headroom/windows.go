package headroom

import (
	"maps"
	"slices"
	"time"
)

// Sample is a desired size, in force from its time until the next one's.
type Sample struct {
	At      time.Time `json:"at"`
	Desired int       `json:"desired"`
}

// History is what a decision must know of those before it. The zero value is
// a fleet that was never looked at; it may be kept as JSON and replayed.
type History struct {
	// Samples are in the order of time.
	Samples []Sample `json:"samples,omitempty"`
	// Empty says since when hosts are empty, by id.
	Empty map[string]time.Time `json:"empty,omitempty"`
	// Event is the last decision's.
	Event string `json:"event,omitempty"`
}

// add returns the history with one more sample, and without what no window
// of this length reaches back to.
func (h History) add(s Sample, window time.Duration) History {
	samples := slices.Clone(h.Samples)
	if n := len(samples); n == 0 || samples[n-1].Desired != s.Desired {
		samples = append(samples, s)
	}
	start := s.At.Add(-window)
	// The last one before the window is in force as it begins.
	drop := 0
	for drop+1 < len(samples) && samples[drop+1].At.Before(start) {
		drop++
	}
	h.Samples, h.Empty = samples[drop:], maps.Clone(h.Empty)
	return h
}

// window returns the least and the most that was desired over the time that
// ends now, and whether all of it is known (spec/clocker.md §3.3.2).
func (h History) window(now time.Time, length time.Duration) (least, most int, covered bool) {
	n := len(h.Samples)
	if n == 0 {
		return 0, 0, false
	}
	least, most = h.Samples[n-1].Desired, h.Samples[n-1].Desired
	if length <= 0 {
		return least, most, true
	}
	start := now.Add(-length)
	for i := n - 1; i >= 0; i-- {
		v := h.Samples[i]
		least, most = min(least, v.Desired), max(most, v.Desired)
		if !v.At.After(start) {
			covered = true
		}
		if v.At.Before(start) {
			break
		}
	}
	return least, most, covered
}

// Stabilise returns the size to go to from the present one: up to the least
// that was desired over all of the up window, else down to the most that was
// over all of the down window, else none other.
func (h History) Stabilise(now time.Time, size int, up, down time.Duration) int {
	if least, _, covered := h.window(now, up); covered && size < least {
		return least
	}
	if _, most, covered := h.window(now, down); covered && size > most {
		return most
	}
	return size
}

// settles is the next time at which a window may allow what it does not now;
// zero when waiting changes nothing.
func (h History) settles(now time.Time, delays ...time.Duration) time.Time {
	var next time.Time
	for _, d := range delays {
		for _, s := range h.Samples {
			// A sample leaves the window just after it is as old as that.
			if t := s.At.Add(d + time.Millisecond); t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	return next
}
