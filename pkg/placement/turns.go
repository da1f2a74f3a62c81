package placement

import "maps"

// Turns are how far each breadth-first has come round. A caller that only asks
// puts back what they were, so that questions do not move them on.
func (f *Fleet) Turns() map[string]uint64 { return maps.Clone(f.turn) }

// SetTurns puts turns back.
func (f *Fleet) SetTurns(turns map[string]uint64) {
	f.turn = maps.Clone(turns)
	if f.turn == nil {
		f.turn = map[string]uint64{}
	}
}
