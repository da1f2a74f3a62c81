package plan

import (
	"slices"
	"testing"

	"clocker.io/clocker/pkg/record"
	"gotest.tools/v3/assert"
)

// endedJob is a job of one replica that has ended well on h1, of three hosts.
func endedJob(t *testing.T) (*movingWorld, record.Assignment) {
	w := newMovingWorld(t, 3, service("job", "job", 1))
	a := w.Assignments[0]
	o := w.Observed[a.Task]
	o.State = record.StateComplete
	w.Observed[a.Task] = o
	return w, a
}

// What a job has done is not done again because its host is emptied or lost: its
// successor is to say so, and no more.
func TestAJobThatHasEndedGoesWithoutRunningAgain(t *testing.T) {
	w, a := endedJob(t)
	w.Leaving[a.Host] = CauseDrain
	d := Next(w.Snapshot)
	assert.Equal(t, len(d.Moves), 1)
	assert.Assert(t, d.Moves[0].Ended && d.Moves[0].StopFirst)
	assert.Equal(t, len(d.Missing)+len(d.Remove), 0)

	w, a = endedJob(t)
	w.HostLost[a.Host], w.HostUp[a.Host] = true, false
	d = Next(w.Snapshot)
	assert.Equal(t, len(d.Moves), 1)
	assert.Assert(t, d.Moves[0].Ended)
	assert.Equal(t, d.Moves[0].Cause, CauseLost)
	assert.Equal(t, len(d.Missing)+len(d.Remove), 0)

	// One that was asked to run again is an ordinary one.
	w, a = endedJob(t)
	w.Leaving[a.Host] = CauseDrain
	w.Assignments[0].Restarts++
	d = Next(w.Snapshot)
	assert.Assert(t, len(d.Moves) == 0 || !d.Moves[0].Ended)
}

// A replica that moves and its successor are one; what a lost host had lacks.
func TestCurrentCountsReplicasNotTasks(t *testing.T) {
	w := newMovingWorld(t, 3, service("web", "web", 2))
	was := w.Assignments[0]
	s := was
	s.Task, s.Host, s.Replaces, s.Phase = "successor", "h3", was.Task, record.PhaseRun
	w.Assignments = append(slices.Clone(w.Assignments), s)
	d := Current(w.Snapshot)
	assert.Equal(t, len(d.Keep), 2)
	assert.Equal(t, len(d.Missing)+len(d.Obsolete), 0)

	w.Assignments = w.Assignments[:2]
	w.HostLost[was.Host] = true
	d = Current(w.Snapshot)
	assert.Equal(t, len(d.Missing), 1)
	assert.Equal(t, d.Missing[0].Slot, was.Slot)
}
