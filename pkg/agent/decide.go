package agent

import (
	"fmt"
	"sort"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// verb is what is done about a task.
type verb string

const (
	doPrepare verb = "prepare"
	doCreate  verb = "create" // and start
	doStart   verb = "start"
	doStop    verb = "stop"
	doRestart verb = "restart"
	doRemove  verb = "remove" // stop with grace, then remove
	doForget  verb = "forget" // delete what was reported
)

// action is one thing to do, with its cause. One task has one action at a
// time.
type action struct {
	Verb verb
	Task string
	// Container is the engine's id of what is acted on; empty for prepare,
	// create and forget.
	Container string
	Reason    string
}

// assigned is an assignment with the revision at which it was read: what has
// failed is tried again when that changes.
type assigned struct {
	record.Assignment
	Revision int64
}

// memory is what the agent knows about a task beside its assignment and its
// container.
type memory struct {
	// Observed is the last report; its zero value means none.
	Observed record.Observed
	// Busy says that an action is under way.
	Busy bool
	// Prepared is the revision of the assignment that preparations were
	// made for; 0 for none.
	Prepared int64
	// Restarts is how many of the restarts that were asked for are done.
	Restarts int
	// Stopped says that the container does not run because the agent was
	// told to stop it.
	Stopped bool
	// ByHand says that a person has stopped the container, Again how often the
	// agent has started it since it ran for long; both for what has a fence,
	// which the agent starts again and not the engine.
	ByHand bool
	Again  int
	// Cut are the containers that the fence has stopped.
	Cut     map[string]bool
	Failure failure
}

// failure is why the last action on a task did not succeed.
type failure struct {
	// Revision is that of the assignment which was tried; a failure counts
	// for that one only. 0 means that nothing has failed.
	Revision int64
	Attempts int
	// Until is when to try again.
	Until time.Time
	Text  string
	Fatal bool
	// Waits says that nothing is wrong with the task: it may not start now.
	Waits bool
}

// view is everything that decisions rest on.
type view struct {
	Assigned map[string]assigned
	// Complete says that what is not in Assigned is not wanted: etcd was
	// read, and it knows this host.
	Complete bool
	// Containers are those of this fleet's tasks on this host.
	Containers []engine.Container
	Memory     map[string]memory
	Now        time.Time
	// Restored is the revision at which a restored etcd was marked so; 0 when
	// it was not, or that is settled.
	Restored int64
}

// decide compares what is wanted with what is there. The actions are in the
// order of their tasks; wake is when to decide again though nothing has
// changed, or zero.
func decide(v view) (actions []action, wake time.Time) {
	d := &decision{view: v, byTask: map[string][]engine.Container{}}
	for _, c := range v.Containers {
		t := c.Labels[engine.LabelTask]
		d.byTask[t] = append(d.byTask[t], c)
	}
	for t, a := range v.Assigned {
		if !v.Memory[t].Busy {
			d.task(a)
		}
	}
	if v.Complete {
		d.unassigned()
	}
	sort.Slice(d.actions, func(i, j int) bool { return d.actions[i].Task < d.actions[j].Task })
	return d.actions, d.wake
}

type decision struct {
	view
	byTask  map[string][]engine.Container
	actions []action
	wake    time.Time
}

func (d *decision) add(v verb, task string, c *engine.Container, reason string, args ...any) {
	a := action{Verb: v, Task: task, Reason: fmt.Sprintf(reason, args...)}
	if c != nil {
		a.Container = c.ID
	}
	d.actions = append(d.actions, a)
}

// task decides about an assigned task that nothing is being done about.
func (d *decision) task(a assigned) {
	c, extra := pick(d.byTask[a.Task])
	if extra != nil {
		d.add(doRemove, a.Task, extra, "a second container of the task")
		return
	}
	switch a.Phase {
	case record.PhasePrepare:
		d.prepare(a, c)
	case record.PhaseRun:
		d.run(a, c)
	case record.PhaseStop:
		if c != nil && c.Up() && !d.old(a) {
			d.try(a, doStop, c, "the application is stopped")
		}
	}
}

func (d *decision) prepare(a assigned, c *engine.Container) {
	if c != nil || d.Memory[a.Task].Prepared == a.Revision {
		return
	}
	d.try(a, doPrepare, nil, "release %d is being prepared", a.Release)
}

func (d *decision) run(a assigned, c *engine.Container) {
	m := d.Memory[a.Task]
	if c == nil {
		if endedElsewhere(a) {
			return
		}
		if nameHeld(a, d.Containers) != "" {
			return // decided again when the holder is gone
		}
		reason := "assigned"
		if m.Observed.Container != "" {
			reason = "the container vanished"
		}
		d.try(a, doCreate, nil, "%s", reason)
		return
	}
	hash := c.Labels[engine.LabelHash]
	switch {
	case a.Hash != "" && hash != "" && hash != a.Hash && d.old(a):
		return // kept
	case a.Hash != "" && hash != "" && hash != a.Hash:
		d.try(a, doRemove, c, "the container is of another release")
	case c.State == engine.Dead:
		d.try(a, doRemove, c, "the engine could not remove the container")
	case c.State == engine.Removing:
		return // an event follows
	case c.StartedAt.IsZero() && !c.Up():
		d.try(a, doStart, c, "the container has not started yet")
	case a.Restarts > m.Restarts:
		d.try(a, doRestart, c, "restart %d was asked for", a.Restarts)
	case c.State == engine.Exited && m.Stopped:
		d.try(a, doStart, c, "the application is running again")
	case startsAgain(a, c, m):
		if at := restartAt(c, m); at.After(d.Now) {
			if d.wake.IsZero() || at.Before(d.wake) {
				d.wake = at
			}
			return
		}
		d.try(a, doStart, c, "%s", exited(c))
	}
	// A container that has exited otherwise is the engine's to restart, by
	// its policy; one that it does not restart has completed or failed, or a
	// user has stopped it with docker stop and means it.
}

// endedElsewhere reports whether a is a job that has done its work on another
// host, and that nobody has asked to run again.
func endedElsewhere(a assigned) bool { return a.Phase == record.PhaseRun && a.Completed > a.Restarts }

// try adds an action unless the same has failed and its time has not come.
func (d *decision) try(a assigned, v verb, c *engine.Container, reason string, args ...any) {
	f := d.Memory[a.Task].Failure
	if f.Revision == a.Revision {
		if f.Fatal {
			return
		}
		if f.Until.After(d.Now) {
			if d.wake.IsZero() || f.Until.Before(d.wake) {
				d.wake = f.Until
			}
			return
		}
		reason += fmt.Sprintf(" (attempt %d)", f.Attempts+1)
	}
	d.add(v, a.Task, c, reason, args...)
}

// nameHeld is the task whose container has the name that a's container needs.
func nameHeld(a assigned, containers []engine.Container) string {
	for _, c := range containers {
		if c.Name == a.Container.Name && c.Labels[engine.LabelTask] != a.Task {
			return c.Labels[engine.LabelTask]
		}
	}
	return ""
}

// unassigned takes away what nobody wants any more.
func (d *decision) unassigned() {
	for t, cs := range d.byTask {
		if _, ok := d.Assigned[t]; ok || d.Memory[t].Busy || len(cs) == 0 {
			continue
		}
		if d.Restored > 0 && !d.superseded(cs[0]) {
			continue
		}
		if f := d.Memory[t].Failure; f.Revision != 0 && f.Until.After(d.Now) {
			if d.wake.IsZero() || f.Until.Before(d.wake) {
				d.wake = f.Until
			}
			continue
		}
		d.add(doRemove, t, &cs[0], "no longer assigned")
	}
	for t, m := range d.Memory {
		if _, ok := d.Assigned[t]; !ok && !m.Busy && len(d.byTask[t]) == 0 {
			d.add(doForget, t, nil, "no longer assigned, nothing left")
		}
	}
}

// pick chooses the container that stands for a task: one that is up before one
// that is not, then the one started last. extra is one that must go.
func pick(cs []engine.Container) (c, extra *engine.Container) {
	if len(cs) == 0 {
		return nil, nil
	}
	best := 0
	for i := 1; i < len(cs); i++ {
		up, was := cs[i].Up(), cs[best].Up()
		if up != was && up || up == was && cs[i].StartedAt.After(cs[best].StartedAt) {
			best = i
		}
	}
	for i := range cs {
		if i != best {
			extra = &cs[i]
		}
	}
	return &cs[best], extra
}
