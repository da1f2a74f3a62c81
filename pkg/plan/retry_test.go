package plan

import (
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

// fail lets a running task fail, as when its container is killed and its
// policy is not to start it again.
func (w *world) fail(task string) {
	o := w.Observed[task]
	o.State, o.Error = record.StateFailed, "exited with code 137"
	w.Observed[task] = o
}

// restarted is what an agent reports once it has done the restarts that a task
// asks for.
func (w *world) restarted(t *testing.T, state string) record.Assignment {
	t.Helper()
	for _, a := range w.Assignments {
		if o := w.Observed[a.Task]; a.Restarts > o.Restarts {
			o.Restarts, o.State, o.Error = a.Restarts, state, ""
			if state == record.StateFailed {
				o.Error = "exited with code 1"
			}
			w.Observed[a.Task] = o
			return a
		}
	}
	t.Fatal("no task is to be started again")
	return record.Assignment{}
}

// A deploy that keeps a replica which has failed starts it again.
func TestDeployStartsWhatHasFailed(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 2))
	w.settle(t, first, nothing)
	w.fail("t001")
	w.control()
	assert.Equal(t, w.Assignments[0].Restarts, 0, "without a deploy it is let be")

	n := w.deploy(service("web", "web:1", 3))
	w.settle(t, first, nothing)
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseStarting)
	assert.Equal(t, w.restarted(t, record.StateRunning).Task, "t001")
	w.settle(t, first, nothing)
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseDone)
	assert.Equal(t, len(w.running()), 3)

	// A restart that a user asks for after that is one more.
	before := w.Assignments[0].Restarts
	w.App.Restarts = map[string]int{"web": 1}
	w.control()
	assert.Equal(t, w.Assignments[0].Restarts, before+1)
}

// One that fails again fails the deploy, and is left as it is.
func TestDeployFailsWithWhatFailsAgain(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 2))
	w.settle(t, first, nothing)
	w.fail("t001")
	n := w.deploy(service("web", "web:1", 2))
	w.settle(t, first, nothing)
	w.restarted(t, record.StateFailed)
	w.settle(t, first, nothing)
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseFailed)
	assert.DeepEqual(t, w.statuses[n].Problems, []string{"a-web-1 on h1: exited with code 1"})
	assert.Equal(t, w.App.Release, 1)
	assert.Equal(t, len(w.Assignments), 2)
	assert.Equal(t, w.Assignments[0].Task, "t001")
}

// Nor does a deploy wait for ever for a host that cannot start it.
func TestDeployDoesNotWaitForEver(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 2))
	w.settle(t, first, nothing)
	w.fail("t001")
	n := w.deploy(service("web", "web:1", 2))
	w.settle(t, first, nothing)
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseStarting)
	w.Now = w.statuses[n].UpdatedAt.Add(Patience + 1)
	w.settle(t, first, nothing)
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseFailed)
}
