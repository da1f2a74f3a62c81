package agent

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func task1(phase string, f ...func(*assigned)) assigned {
	a := assigned{Assignment: record.Assignment{Task: "t1", App: "shop", Service: "web", Slot: 1, Phase: phase, Hash: "a", Release: 1}, Revision: 10}
	a.Container.Name = "shop-web-1"
	for _, g := range f {
		g(&a)
	}
	return a
}

func box(task, state string, f ...func(*engine.Container)) engine.Container {
	c := engine.Container{ID: "c-" + task, Name: "shop-web-1", State: state,
		Labels: map[string]string{engine.LabelTask: task, engine.LabelHash: "a"}}
	if state != engine.Created {
		c.StartedAt = noon.Add(-time.Minute)
	}
	for _, g := range f {
		g(&c)
	}
	return c
}

func TestDecide(t *testing.T) {
	type actions = []action
	for _, c := range []struct {
		name     string
		assigned []assigned
		boxes    []engine.Container
		memory   memory
		partial  bool
		want     actions
		wake     time.Time
	}{
		{name: "nothing"},
		{name: "a task to prepare", assigned: []assigned{task1(record.PhasePrepare)},
			want: actions{{doPrepare, "t1", "", "release 1 is being prepared"}}},
		{name: "one that is prepared", assigned: []assigned{task1(record.PhasePrepare)}, memory: memory{Prepared: 10}},
		{name: "one that was prepared as something else", assigned: []assigned{task1(record.PhasePrepare)}, memory: memory{Prepared: 9},
			want: actions{{doPrepare, "t1", "", "release 1 is being prepared"}}},
		{name: "a task to run", assigned: []assigned{task1(record.PhaseRun)}, memory: memory{Prepared: 9},
			want: actions{{doCreate, "t1", "", "assigned"}}},
		{name: "a job that ended on another host", assigned: []assigned{task1(record.PhaseRun, func(a *assigned) { a.Completed = 1 })}},
		{name: "one that is to run again", assigned: []assigned{task1(record.PhaseRun, func(a *assigned) { a.Completed, a.Restarts = 1, 1 })},
			want: actions{{doCreate, "t1", "", "assigned"}}},
		{name: "one that is busy", assigned: []assigned{task1(record.PhaseRun)}, memory: memory{Busy: true}},
		{name: "one that runs", assigned: []assigned{task1(record.PhaseRun)}, boxes: []engine.Container{box("t1", engine.Running)}},
		{name: "one whose container vanished", assigned: []assigned{task1(record.PhaseRun)},
			memory: memory{Observed: record.Observed{Task: "t1", Container: "c-t1"}},
			want:   actions{{doCreate, "t1", "", "the container vanished"}}},
		{name: "one made and not started", assigned: []assigned{task1(record.PhaseRun)}, boxes: []engine.Container{box("t1", engine.Created)},
			want: actions{{doStart, "t1", "c-t1", "the container has not started yet"}}},
		{name: "one that exited by itself", assigned: []assigned{task1(record.PhaseRun)}, boxes: []engine.Container{box("t1", engine.Exited)}},
		{name: "one that was stopped", assigned: []assigned{task1(record.PhaseRun)}, boxes: []engine.Container{box("t1", engine.Exited)},
			memory: memory{Stopped: true}, want: actions{{doStart, "t1", "c-t1", "the application is running again"}}},
		{name: "one to stop", assigned: []assigned{task1(record.PhaseStop)}, boxes: []engine.Container{box("t1", engine.Running)},
			want: actions{{doStop, "t1", "c-t1", "the application is stopped"}}},
		{name: "one the engine is starting again is stopped too", assigned: []assigned{task1(record.PhaseStop)}, boxes: []engine.Container{box("t1", engine.Restarting)},
			want: actions{{doStop, "t1", "c-t1", "the application is stopped"}}},
		{name: "one that is stopped", assigned: []assigned{task1(record.PhaseStop)}, boxes: []engine.Container{box("t1", engine.Exited)}},
		{name: "one stopped before it was made", assigned: []assigned{task1(record.PhaseStop)}},
		{name: "a restart", assigned: []assigned{task1(record.PhaseRun, func(a *assigned) { a.Restarts = 3 })},
			boxes: []engine.Container{box("t1", engine.Running)}, memory: memory{Restarts: 2},
			want: actions{{doRestart, "t1", "c-t1", "restart 3 was asked for"}}},
		{name: "a restart that was done", assigned: []assigned{task1(record.PhaseRun, func(a *assigned) { a.Restarts = 3 })},
			boxes: []engine.Container{box("t1", engine.Running)}, memory: memory{Restarts: 3}},
		{name: "a container of another release", assigned: []assigned{task1(record.PhaseRun, func(a *assigned) { a.Hash = "b" })},
			boxes: []engine.Container{box("t1", engine.Running)}, want: actions{{doRemove, "t1", "c-t1", "the container is of another release"}}},
		{name: "a dead container", assigned: []assigned{task1(record.PhaseRun)}, boxes: []engine.Container{box("t1", engine.Dead)},
			want: actions{{doRemove, "t1", "c-t1", "the engine could not remove the container"}}},
		{name: "one going away", assigned: []assigned{task1(record.PhaseRun)}, boxes: []engine.Container{box("t1", engine.Removing)}},
		{name: "a container nobody wants", boxes: []engine.Container{box("t1", engine.Running)},
			want: actions{{doRemove, "t1", "c-t1", "no longer assigned"}}},
		{name: "one of which that is not certain", partial: true, boxes: []engine.Container{box("t1", engine.Running)}},
		{name: "nothing left", memory: memory{Observed: record.Observed{Task: "t1"}},
			want: actions{{doForget, "t1", "", "no longer assigned, nothing left"}}},
		{name: "nothing left, as far as is known", partial: true, memory: memory{Observed: record.Observed{Task: "t1"}}},
		{name: "a name that is held is waited for", assigned: []assigned{task1(record.PhaseRun)}, boxes: []engine.Container{box("t0", engine.Running)},
			want: actions{{doRemove, "t0", "c-t0", "no longer assigned"}}},
		{name: "two containers of one task", assigned: []assigned{task1(record.PhaseRun)},
			boxes: []engine.Container{box("t1", engine.Exited, func(c *engine.Container) { c.ID = "old" }), box("t1", engine.Running)},
			want:  actions{{doRemove, "t1", "old", "a second container of the task"}}},
		{name: "what failed for good", assigned: []assigned{task1(record.PhaseRun)}, memory: memory{Failure: failure{Revision: 10, Fatal: true}}},
		{name: "what failed for good, assigned anew", assigned: []assigned{task1(record.PhaseRun)}, memory: memory{Failure: failure{Revision: 9, Fatal: true}},
			want: actions{{doCreate, "t1", "", "assigned"}}},
		{name: "what failed just now", assigned: []assigned{task1(record.PhaseRun)},
			memory: memory{Failure: failure{Revision: 10, Attempts: 1, Until: noon.Add(time.Second)}}, wake: noon.Add(time.Second)},
		{name: "what failed a while ago", assigned: []assigned{task1(record.PhaseRun)},
			memory: memory{Failure: failure{Revision: 10, Attempts: 1, Until: noon}},
			want:   actions{{doCreate, "t1", "", "assigned (attempt 2)"}}},
		{name: "a removal that failed just now", boxes: []engine.Container{box("t1", engine.Running)},
			memory: memory{Failure: failure{Revision: -1, Attempts: 1, Until: noon.Add(time.Second)}}, wake: noon.Add(time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view{Assigned: map[string]assigned{}, Complete: !c.partial, Containers: c.boxes, Memory: map[string]memory{}, Now: noon}
			for _, a := range c.assigned {
				v.Assigned[a.Task] = a
			}
			if c.assigned != nil || !reflect.DeepEqual(c.memory, memory{}) {
				v.Memory["t1"] = c.memory
			}
			got, wake := decide(v)
			assert.DeepEqual(t, got, c.want)
			assert.Equal(t, wake, c.wake)
		})
	}
}

// Whatever a host is like, carrying out what is decided comes to an end, and
// then it is what was assigned.
func TestDecisionsComeToAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := view{Assigned: map[string]assigned{}, Complete: rapid.Bool().Draw(t, "complete"), Memory: map[string]memory{}, Now: noon}
		tasks := rapid.IntRange(0, 5).Draw(t, "tasks")
		for i := range tasks {
			a := task1(rapid.SampledFrom([]string{record.PhasePrepare, record.PhaseRun, record.PhaseStop}).Draw(t, "phase"))
			a.Task = fmt.Sprintf("t%d", i)
			a.Container.Name = "name-" + a.Task
			a.Restarts = rapid.IntRange(0, 2).Draw(t, "restarts")
			v.Assigned[a.Task] = a
			v.Memory[a.Task] = memory{}
		}
		states := []string{engine.Created, engine.Running, engine.Paused, engine.Restarting, engine.Exited, engine.Dead}
		for i := range rapid.IntRange(0, 8).Draw(t, "containers") {
			task := fmt.Sprintf("t%d", rapid.IntRange(0, 7).Draw(t, "task"))
			v.Containers = append(v.Containers, box(task, rapid.SampledFrom(states).Draw(t, "state"), func(c *engine.Container) {
				c.ID = fmt.Sprintf("c%d", i)
				c.Name = fmt.Sprintf("name-t%d", rapid.IntRange(0, 7).Draw(t, "name"))
				c.Labels[engine.LabelHash] = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "hash")
			}))
			if _, ok := v.Memory[task]; !ok {
				v.Memory[task] = memory{Observed: record.Observed{Task: task}}
			}
		}
		for round := 0; ; round++ {
			actions, _ := decide(v)
			if len(actions) == 0 {
				break
			}
			if round > 40 {
				t.Fatalf("no end: %v", actions)
			}
			seen := map[string]bool{}
			for _, a := range actions {
				if seen[a.Task] || a.Reason == "" {
					t.Fatalf("two actions for a task, or one without a reason: %v", actions)
				}
				seen[a.Task] = true
				if _, ok := v.Assigned[a.Task]; !ok && !v.Complete {
					t.Fatalf("touches %s, of which nothing is certain", a.Task)
				}
				carryOut(&v, a)
			}
		}
		checkSettled(t, v)
	})
}

func carryOut(v *view, a action) {
	m := v.Memory[a.Task]
	as := v.Assigned[a.Task]
	at := -1
	for i, c := range v.Containers {
		if c.ID == a.Container {
			at = i
		}
	}
	switch a.Verb {
	case doPrepare:
		m.Prepared = as.Revision
	case doCreate:
		v.Containers = append(v.Containers, box(a.Task, engine.Running, func(c *engine.Container) {
			c.ID, c.Name = "new-"+a.Task, as.Container.Name
		}))
		m.Restarts, m.Stopped = as.Restarts, false
	case doStart, doRestart:
		v.Containers[at].State, v.Containers[at].StartedAt = engine.Running, noon
		m.Restarts, m.Stopped = max(m.Restarts, as.Restarts), false
	case doStop:
		v.Containers[at].State = engine.Exited
		m.Stopped = true
	case doRemove:
		v.Containers = append(v.Containers[:at:at], v.Containers[at+1:]...)
	case doForget:
		delete(v.Memory, a.Task)
		return
	}
	v.Memory[a.Task] = m
}

func checkSettled(t *rapid.T, v view) {
	byTask := map[string]int{}
	for _, c := range v.Containers {
		task := c.Labels[engine.LabelTask]
		byTask[task]++
		a, ok := v.Assigned[task]
		switch {
		case !ok && v.Complete:
			t.Fatalf("container of %s is left", task)
		case ok && a.Phase == record.PhaseStop && c.Up():
			t.Fatalf("container of %s is not stopped", task)
		case ok && a.Phase == record.PhaseRun && c.Labels[engine.LabelHash] != a.Hash:
			t.Fatalf("container of %s is of another release", task)
		}
	}
	for task, a := range v.Assigned {
		if byTask[task] > 1 {
			t.Fatalf("%d containers of %s", byTask[task], task)
		}
		if a.Phase == record.PhaseRun && byTask[task] == 0 && nameHeld(a, v.Containers) == "" {
			t.Fatalf("no container of %s", task)
		}
	}
}

func TestObserve(t *testing.T) {
	ids := map[string]string{"shop_default": "n1"}
	withNet := func(c *engine.Container) {
		c.Joined = map[string]engine.Joined{"shop_default": {Address: "10.1.0.5"}, "bridge": {Address: "172.17.0.2"}}
	}
	join := func(a *assigned) { a.Container.Networks = []record.NetworkJoin{{ID: "n1"}} }
	ptr := func(c engine.Container) *engine.Container { return &c }
	for _, c := range []struct {
		name  string
		s     situation
		state string
		err   string
		named bool
	}{
		{"being prepared", situation{Assigned: task1(record.PhasePrepare), Doing: doPrepare}, record.StatePreparing, "", false},
		{"prepared", situation{Assigned: task1(record.PhasePrepare), Memory: memory{Prepared: 10}}, record.StatePrepared, "", false},
		{"not prepared", situation{Assigned: task1(record.PhasePrepare), Memory: memory{Failure: failure{Revision: 10, Text: "no image"}}}, record.StateFailed, "no image", false},
		{"failed as something else", situation{Assigned: task1(record.PhasePrepare), Memory: memory{Failure: failure{Revision: 9, Text: "no image"}}}, record.StatePreparing, "", false},
		{"being made", situation{Assigned: task1(record.PhaseRun), Doing: doCreate}, record.StateCreating, "", false},
		{"made", situation{Assigned: task1(record.PhaseRun), Doing: doCreate, Container: ptr(box("t1", engine.Created))}, record.StateStarting, "", false},
		{"running", situation{Assigned: task1(record.PhaseRun, join), Container: ptr(box("t1", engine.Running, withNet))}, record.StateRunning, "", true},
		{"running without a network", situation{Assigned: task1(record.PhaseRun), Container: ptr(box("t1", engine.Running))}, record.StateRunning, "", false},
		{"unhealthy", situation{Assigned: task1(record.PhaseRun, join), Container: ptr(box("t1", engine.Running, withNet, func(c *engine.Container) { c.Health = "unhealthy" }))}, record.StateRunning, "", false},
		{"healthy", situation{Assigned: task1(record.PhaseRun, join), Container: ptr(box("t1", engine.Running, withNet, func(c *engine.Container) { c.Health = "healthy" }))}, record.StateRunning, "", true},
		{"about to stop", situation{Assigned: task1(record.PhaseRun, join), Container: ptr(box("t1", engine.Running, withNet)), Doing: doStop}, record.StateRunning, "", false},
		{"to be stopped", situation{Assigned: task1(record.PhaseStop, join), Container: ptr(box("t1", engine.Running, withNet))}, record.StateRunning, "", false},
		{"restarting", situation{Assigned: task1(record.PhaseRun, join), Container: ptr(box("t1", engine.Running, withNet)), Doing: doRestart}, record.StateStarting, "", false},
		{"started again by the engine", situation{Assigned: task1(record.PhaseRun), Container: ptr(box("t1", engine.Restarting, func(c *engine.Container) { c.ExitCode = 2 }))}, record.StateStarting, "exited with code 2; the engine starts it again", false},
		{"complete on another host", situation{Assigned: task1(record.PhaseRun, func(a *assigned) { a.Completed = 1 })}, record.StateComplete, "", false},
		{"complete", situation{Assigned: task1(record.PhaseRun), Container: ptr(box("t1", engine.Exited))}, record.StateComplete, "", false},
		{"failed", situation{Assigned: task1(record.PhaseRun), Container: ptr(box("t1", engine.Exited, func(c *engine.Container) { c.ExitCode, c.OOMKilled = 137, true }))}, record.StateFailed, "exited with code 137, out of memory", false},
		{"stopped", situation{Assigned: task1(record.PhaseStop), Container: ptr(box("t1", engine.Exited, func(c *engine.Container) { c.ExitCode = 143 }))}, record.StateStopped, "", false},
		{"running again soon", situation{Assigned: task1(record.PhaseRun), Memory: memory{Stopped: true}, Container: ptr(box("t1", engine.Exited))}, record.StateStopped, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.s.NetworkIDs = ids
			o := observe(c.s)
			assert.Equal(t, o.State, c.state)
			assert.Equal(t, o.Error, c.err)
			n := reachable(c.s, o)
			assert.Equal(t, n != nil, c.named)
			if n != nil {
				assert.DeepEqual(t, n.Networks, map[string]record.NamedAddress{"n1": {Address: "10.1.0.5"}})
				assert.DeepEqual(t, o.Addresses, map[string]string{"n1": "10.1.0.5"})
			}
		})
	}
}

func TestBackoff(t *testing.T) {
	was := time.Duration(0)
	for i := 1; i < 40; i++ {
		d := backoff(i)
		assert.Assert(t, d >= was && d <= 30*time.Second, "%d: %v", i, d)
		was = d
	}
	assert.Equal(t, backoff(1), 500*time.Millisecond)
	assert.Equal(t, was, 30*time.Second)
}
