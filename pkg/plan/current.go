package plan

import "clocker.io/clocker/pkg/record"

// Current is what separates an application's release from its replicas as they
// are now: a replica that moves and its successor are one, and what a lost host
// had, and is replaced elsewhere, is missing. It is [Diff] where moves are under
// way, and the same while there are none.
func Current(s Snapshot) Difference {
	if s.Templates == nil && s.Release != nil {
		s.Templates = Templates(s.Fleet, s.Release)
	}
	if s.App.Pending != 0 {
		return Diff(s.Templates, s.App.Pending, s.Assignments)
	}
	n := &next{Snapshot: s}
	return Diff(s.Templates, s.App.Release, n.sort().current)
}

// Ended reports whether a replica is a job that has done its work: it is not
// started again for going elsewhere.
func Ended(a record.Assignment, o record.Observed) bool {
	return a.Phase == record.PhaseRun && o.State == record.StateComplete && o.Restarts >= a.Restarts
}
