package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

// brokenWorld is a fleet in miniature whose leader may die between any two
// writes of one decision, also where the real one writes both at once, and
// whose engines keep containers that etcd no longer speaks of. It is a
// simulator: no answer is prepared.
type brokenWorld struct {
	*world
	// containers are what engines have, by task; those of hosts that are down
	// do not run.
	containers map[string]*engineContainer
	rests      map[string]time.Time
	// choose draws a number below n; dies reports whether the leader dies now.
	choose func(n int) int
	dies   func() bool
}

type engineContainer struct {
	host, state, health string
	started             time.Time
}

func newBrokenWorld(t interface{ Fatalf(string, ...any) }, choose func(int) int, hosts int, es ...*model.Entity) *brokenWorld {
	var names []string
	for i := range hosts {
		names = append(names, fmt.Sprintf("h%d", i+1))
	}
	w := &brokenWorld{
		world: newWorld(names...), containers: map[string]*engineContainer{}, rests: map[string]time.Time{},
		choose: choose, dies: func() bool { return false },
	}
	w.Now = time.Unix(1_700_000_000, 0)
	w.HostLost, w.Leaving = map[string]bool{}, map[string]string{}
	w.App.Release, w.App.Last = 1, 1
	w.releases[1] = &record.Release{App: "a", Number: 1, Networks: map[string]string{model.DefaultNetwork: "n1"}, Application: &model.Application{Name: "a", Dialect: "compose", Entities: es}}
	w.statuses[1] = record.ReleaseStatus{Phase: record.ReleaseDone}
	w.Templates = Templates("f", w.releases[1])
	w.rest(t, nothing)
	return w
}

// lead carries out one decision, and reports whether it wrote anything.
func (w *brokenWorld) lead() bool {
	w.look()
	w.Resting = map[string]bool{}
	for k, until := range w.rests {
		w.Resting[k] = w.Now.Before(until)
	}
	d := Next(w.Snapshot)
	for _, a := range d.Abandoned {
		w.rests[MoveKey("a", a.Assignment.Service, a.Assignment.Slot)] = w.Now.Add(time.Minute)
	}
	writes := w.writes(d)
	for _, o := range d.Forget {
		writes = append(writes, func() { delete(w.Observed, o.Task) })
	}
	if len(writes) == 0 {
		writes = w.writes(w.fill())
	}
	for i, write := range writes {
		if w.dies() {
			return i > 0
		}
		write()
	}
	return len(writes) > 0
}

// writes are a decision's, in the order of the controller.
func (w *brokenWorld) writes(d Decision) []func() {
	var out []func()
	for _, p := range d.Put {
		out = append(out, func() {
			w.Assignments = slices.Clone(w.Assignments)
			if i := slices.IndexFunc(w.Assignments, func(a record.Assignment) bool { return a.Task == p.Task }); i >= 0 {
				w.Assignments[i] = p
				return
			}
			w.Assignments = append(w.Assignments, p)
		})
	}
	for _, r := range d.Remove {
		out = append(out, func() {
			w.Assignments = slices.DeleteFunc(slices.Clone(w.Assignments), func(a record.Assignment) bool { return a.Task == r.Task })
		})
	}
	return out
}

// fill places what is missing and what moves, as the controller does.
func (w *brokenWorld) fill() (d Decision) {
	now := Next(w.Snapshot)
	for _, m := range now.Missing {
		if a, ok := w.placed(m); ok {
			d.Put = append(d.Put, a)
		}
	}
	for _, m := range now.Moves {
		a, ok := w.placed(m.Missing)
		if !ok {
			continue
		}
		a.Cause = m.Cause
		if m.StopFirst {
			d.Remove = append(d.Remove, *m.Replaces)
		} else {
			a.Replaces = m.Replaces.Task
		}
		d.Put = append(d.Put, a)
	}
	return d
}

// placed gives a replica any host that takes work.
func (w *brokenWorld) placed(m Missing) (record.Assignment, bool) {
	var fit []string
	for h, up := range w.HostUp {
		if up && !w.HostLost[h] && w.Leaving[h] == "" && !slices.Contains(m.Avoid, h) {
			fit = append(fit, h)
		}
	}
	if len(fit) == 0 {
		return record.Assignment{}, false
	}
	slices.Sort(fit)
	w.ids++
	return record.Assignment{
		Task: fmt.Sprintf("t%03d", w.ids), App: "a", Release: w.App.Release, Service: m.Service, Slot: m.Slot,
		Host: fit[w.choose(len(fit))], Phase: record.PhasePrepare, Hash: m.Hash, Container: m.Spec, CreatedAt: w.Now,
	}, true
}

// work lists what agents and engines could do now, in an order that does not
// change.
func (w *brokenWorld) work() []func() {
	var steps []func()
	assigned := map[string]bool{}
	for _, a := range w.Assignments {
		assigned[a.Task] = true
		c := w.containers[a.Task]
		if !w.HostUp[a.Host] {
			continue
		}
		step := func(f func()) { steps = append(steps, func() { f(); w.report(a) }) }
		switch {
		case a.Phase == record.PhaseRun && (c == nil || c.state != record.StateRunning):
			step(func() {
				w.containers[a.Task] = &engineContainer{host: a.Host, state: record.StateRunning, started: w.Now}
				if a.Container.Health != nil {
					w.containers[a.Task].health = "starting"
				}
			})
		case c != nil && c.state == record.StateRunning && c.health == "starting":
			step(func() { c.health = "healthy" })
		case w.Observed[a.Task].State == "":
			step(func() {})
		}
	}
	var gone []string
	for task, c := range w.containers {
		if !assigned[task] && w.HostUp[c.host] {
			gone = append(gone, task)
		}
	}
	for task, o := range w.Observed {
		if !assigned[task] && w.HostUp[o.Host] && w.containers[task] == nil {
			gone = append(gone, task)
		}
	}
	slices.Sort(gone)
	for _, task := range gone {
		steps = append(steps, func() { delete(w.containers, task); delete(w.Observed, task) })
	}
	return steps
}

// report is what an agent says of a task.
func (w *brokenWorld) report(a record.Assignment) {
	o := record.Observed{Task: a.Task, App: "a", Service: a.Service, Slot: a.Slot, Host: a.Host, State: record.StatePrepared}
	if c := w.containers[a.Task]; c != nil {
		o.State, o.Health, o.StartedAt, o.Container = c.state, c.health, c.started, "c"+a.Task
	}
	w.Observed[a.Task] = o
}

// rest plays on until nothing has happened for longer than anything waits.
func (w *brokenWorld) rest(t interface{ Fatalf(string, ...any) }, always func()) {
	for range 5000 {
		moved := w.lead()
		always()
		steps := w.work()
		if len(steps) > 0 {
			steps[w.choose(len(steps))]()
			always()
		}
		w.Now = w.Now.Add(time.Second)
		if !moved && len(steps) == 0 {
			at := w.Now
			w.Now = at.Add(2 * time.Minute) // longer than a replica rests
			if !w.lead() && len(w.work()) == 0 {
				return
			}
		}
	}
	t.Fatalf("does not come to rest: %+v", w.Assignments)
}

// served counts the replicas of a service that somebody is sent to.
func (w *brokenWorld) served(service string) int {
	slots := map[int]bool{}
	for _, a := range w.Assignments {
		c := w.containers[a.Task]
		if a.Service == service && a.Phase == record.PhaseRun && w.HostUp[a.Host] && c != nil &&
			c.state == record.StateRunning && (c.health == "" || c.health == "healthy") {
			slots[a.Slot] = true
		}
	}
	return len(slots)
}

// whole fails unless every replica runs, once, and nothing else does.
func (w *brokenWorld) whole(t *rapid.T) {
	replicas := 0
	for _, e := range w.Release.Application.Services() {
		replicas += e.Service.Replicas
		if n := w.served(e.ID); n != e.Service.Replicas {
			t.Fatalf("%d of %s serve, want %d: %+v", n, e.ID, e.Service.Replicas, w.Assignments)
		}
	}
	if len(w.Assignments) != replicas || len(w.containers) != replicas || len(w.Observed) != replicas {
		t.Fatalf("%d assignments, %d containers, %d reports, want %d of each", len(w.Assignments), len(w.containers), len(w.Observed), replicas)
	}
	if w.lead() {
		t.Fatalf("it goes on though nothing has changed")
	}
}

// kinds are services of every kind that moves differently.
func kinds() []*model.Entity {
	api := service("api", "api:1", 3)
	api.Service.Healthcheck = &model.Healthcheck{Test: []string{"CMD", "true"}}
	api.Service.Update = &model.Update{Parallelism: 2, StartFirst: true}
	db := service("db", "db:1", 1)
	db.Service.Mounts = []model.Mount{{Type: model.MountBind, Source: "/srv/db", Target: "/data"}}
	return []*model.Entity{service("web", "web:1", 3), api, stopFirst(service("one", "one:1", 3), 1), db}
}

// Hosts are drained and given work again, and the leader dies between any two
// writes: what starts first always serves in full, what stops first lacks one
// at most, and in the end nothing that may move is on a host that work leaves.
func TestDrainsWhoseLeaderDiesTakeNothingAway(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		w := newBrokenWorld(rt, choose, 4, kinds()...)
		w.dies = func() bool { return choose(6) == 0 }
		always := func() {
			for service, least := range map[string]int{"web": 3, "api": 3, "one": 2, "db": 1} {
				if n := w.served(service); n < least {
					rt.Fatalf("%d of %s serve, want %d: %+v", n, service, least, w.Assignments)
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch h := fmt.Sprintf("h%d", 1+choose(4)); choose(8) {
			case 0:
				if len(w.Leaving) < 3 {
					w.Leaving[h] = CauseDrain
				}
			case 1:
				delete(w.Leaving, h)
			case 2:
				w.Now = w.Now.Add(time.Duration(choose(3000)) * time.Millisecond)
			case 3, 4:
				w.lead()
			default:
				if steps := w.work(); len(steps) > 0 {
					steps[choose(len(steps))]()
				}
			}
			always()
		}
		w.dies = func() bool { return false }
		w.rest(rt, always)
		for _, a := range w.Assignments {
			if w.Leaving[a.Host] != "" && a.Service != "db" {
				rt.Fatalf("%s.%d is still on %s, which work leaves", a.Service, a.Slot, a.Host)
			}
		}
		w.whole(rt)
	})
}

// Whatever hosts, containers and leaders do: what writes to its host is never
// anywhere else, and once it is calm every replica runs, once.
func TestWorkComesBackWhateverDies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		choose := func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "choice") }
		w := newBrokenWorld(rt, choose, 4, kinds()...)
		home := w.Assignments[slices.IndexFunc(w.Assignments, func(a record.Assignment) bool { return a.Service == "db" })].Host
		w.dies = func() bool { return choose(6) == 0 }
		always := func() {
			for _, a := range w.Assignments {
				if a.Service == "db" && a.Host != home {
					rt.Fatalf("db is on %s, its data on %s", a.Host, home)
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch h := fmt.Sprintf("h%d", 1+choose(4)); choose(11) {
			case 0:
				w.HostUp[h] = false
				for _, c := range w.containers {
					if c.host == h {
						c.state = "off"
					}
				}
			case 1:
				w.HostLost[h] = w.HostLost[h] || !w.HostUp[h]
			case 2:
				w.HostUp[h] = true // the leader judges a moment later
			case 3:
				w.HostLost[h] = w.HostLost[h] && !w.HostUp[h]
			case 4:
				w.Leaving[h] = []string{CauseDrain, CauseRemove, CauseDrain}[choose(3)]
			case 5:
				delete(w.Leaving, h)
			case 6:
				w.breakOne()
			case 7:
				w.Now = w.Now.Add(time.Duration(choose(5000)) * time.Millisecond)
			case 8, 9:
				w.lead()
			default:
				if steps := w.work(); len(steps) > 0 {
					steps[choose(len(steps))]()
				}
			}
			always()
		}
		w.dies = func() bool { return false }
		clear(w.Leaving)
		for h := range w.HostUp {
			w.HostUp[h], w.HostLost[h] = true, false
		}
		w.rest(rt, always)
		w.whole(rt)
	})
}

// breakOne lets a container end badly; its engine starts it again.
func (w *brokenWorld) breakOne() {
	var up []record.Assignment
	for _, a := range w.Assignments {
		if c := w.containers[a.Task]; c != nil && c.state == record.StateRunning && w.HostUp[a.Host] {
			up = append(up, a)
		}
	}
	if len(up) > 0 {
		a := up[w.choose(len(up))]
		w.containers[a.Task].state = record.StateFailed
		w.report(a)
	}
}

func TestStopFirstWaitsForTheOthersOfItsService(t *testing.T) {
	turn := 0
	next := func(n int) int { turn++; return turn % n }
	w := newBrokenWorld(t, next, 2, stopFirst(service("web", "web:1", 2), 1))
	broken, other := w.Assignments[0], w.Assignments[1]
	assert.Assert(t, broken.Host != other.Host)
	w.containers[broken.Task].state = record.StateFailed
	w.report(broken)
	w.Leaving[other.Host] = CauseDrain
	w.look()
	d := Next(w.Snapshot)
	assert.Equal(t, len(d.Moves), 0, "the last one that serves would be stopped")
	assert.DeepEqual(t, d.Blocked, map[string]string{other.Task: "it would stop before its successor starts, and " + broken.Container.Name + " is not up"})
}
