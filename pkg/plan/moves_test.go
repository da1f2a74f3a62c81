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

// movingWorld is a world whose hosts are drained, die and come back.
type movingWorld struct {
	*world
	// badly says on which hosts containers fail to start.
	badly map[string]bool
	rests map[string]time.Time
}

func newMovingWorld(t interface{ Fatalf(string, ...any) }, hosts int, es ...*model.Entity) *movingWorld {
	var names []string
	for i := range hosts {
		names = append(names, fmt.Sprintf("h%d", i+1))
	}
	w := &movingWorld{newWorld(names...), map[string]bool{}, map[string]time.Time{}}
	w.HostLost, w.Leaving, w.Resting = map[string]bool{}, map[string]string{}, map[string]bool{}
	w.Now = time.Unix(1_700_000_000, 0)
	w.deploy(es...)
	w.settle(t, first, nothing)
	for task, o := range w.Observed {
		o.StartedAt = w.Now.Add(-time.Minute)
		w.Observed[task] = o
	}
	return w
}

// step is one decision carried out as the controller does; it reports whether
// anything changed.
func (w *movingWorld) step() bool {
	w.look()
	w.Resting = map[string]bool{}
	for key, until := range w.rests {
		w.Resting[key] = w.Now.Before(until)
	}
	d := Next(w.Snapshot)
	for _, p := range d.Put {
		i := slices.IndexFunc(w.Assignments, func(a record.Assignment) bool { return a.Task == p.Task })
		w.Assignments[i] = p
	}
	w.Assignments = slices.DeleteFunc(slices.Clone(w.Assignments), func(a record.Assignment) bool {
		return slices.ContainsFunc(d.Remove, func(r record.Assignment) bool { return r.Task == a.Task })
	})
	for _, o := range d.Forget {
		delete(w.Observed, o.Task)
	}
	for _, a := range d.Abandoned {
		w.rests[MoveKey("a", a.Assignment.Service, a.Assignment.Slot)] = w.Now.Add(time.Minute)
	}
	changed := len(d.Put)+len(d.Remove)+len(d.Forget) > 0
	if len(d.Remove) > 0 {
		return true
	}
	for _, m := range d.Missing {
		changed = w.give(m, false) || changed
	}
	for _, m := range d.Moves {
		changed = w.give(m.Missing, !m.StopFirst) || changed
		if m.StopFirst {
			w.Assignments = slices.DeleteFunc(slices.Clone(w.Assignments), func(a record.Assignment) bool { return a.Task == m.Replaces.Task })
		}
	}
	return changed
}

// give assigns a replica to the host that has least.
func (w *movingWorld) give(m Missing, successor bool) bool {
	load := map[string]int{}
	for _, a := range w.Assignments {
		load[a.Host]++
	}
	best := ""
	for h := range w.Hosts {
		if !w.HostUp[h] || w.HostLost[h] || w.Leaving[h] != "" || slices.Contains(m.Avoid, h) {
			continue
		}
		if best == "" || load[h] < load[best] || load[h] == load[best] && h < best {
			best = h
		}
	}
	if best == "" {
		return false
	}
	w.ids++
	a := record.Assignment{
		Task: fmt.Sprintf("t%03d", w.ids), App: "a", Release: w.App.Release, Service: m.Service, Slot: m.Slot, Host: best,
		Phase: record.PhasePrepare, Hash: m.Hash, Container: m.Spec, Cause: m.Cause, CreatedAt: w.Now,
	}
	if successor {
		a.Replaces = m.Replaces.Task
	}
	w.Assignments = append(w.Assignments, a)
	return true
}

// act takes one step of an agent, if there is one.
func (w *movingWorld) act(pick func(int) int) bool {
	steps := w.agents()
	if len(steps) == 0 {
		return false
	}
	steps[pick(len(steps))]()
	for task, o := range w.Observed {
		if w.badly[o.Host] && o.State == record.StateRunning && o.StartedAt.IsZero() {
			o.State, o.Error = record.StateFailed, "it does not start here"
		}
		if o.StartedAt.IsZero() {
			o.StartedAt = w.Now
		}
		w.Observed[task] = o
	}
	return true
}

// rest lets everything come to its end, time included.
func (w *movingWorld) rest(t interface{ Fatalf(string, ...any) }, always func()) {
	for quiet, i := 0, 0; quiet < 3; i++ {
		if i > 3000 {
			t.Fatalf("does not come to rest: %+v", w.Assignments)
		}
		changed := w.step()
		always()
		changed = w.act(first) || changed
		always()
		if changed {
			quiet = 0
			continue
		}
		quiet++
		w.Now = w.Now.Add(40 * time.Second)
	}
}

func (w *movingWorld) die(host string) {
	w.HostUp[host] = false
}

func (w *movingWorld) comeBack(host string) {
	w.HostUp[host] = true
	delete(w.HostLost, host)
	for task, o := range w.Observed {
		if o.Host == host {
			o.State, o.StartedAt = record.StatePrepared, time.Time{} // it was off
			w.Observed[task] = o
		}
	}
}

// inService counts the replicas of a service that names lead to.
func (w *movingWorld) inService(service string) int {
	slots := map[int]bool{}
	for _, a := range w.Assignments {
		if a.Service == service && a.Phase == record.PhaseRun && w.HostUp[a.Host] && w.Observed[a.Task].State == record.StateRunning {
			slots[a.Slot] = true
		}
	}
	return len(slots)
}

func (w *movingWorld) on(host string) int {
	n := 0
	for _, a := range w.Assignments {
		if a.Host == host {
			n++
		}
	}
	return n
}

// settled fails unless every replica is there once, and nothing is left to do.
func (w *movingWorld) settled(t assert.TestingT, replicas int) {
	slots := map[string]int{}
	for _, a := range w.Assignments {
		slots[a.Container.Name]++
		assert.Equal(t, a.Phase, record.PhaseRun, "%s on %s", a.Container.Name, a.Host)
		assert.Equal(t, w.Observed[a.Task].State, record.StateRunning, "%s on %s", a.Container.Name, a.Host)
	}
	assert.Equal(t, len(slots), replicas)
	assert.Equal(t, len(w.Assignments), replicas)
	assert.Equal(t, len(w.Observed), replicas)
}

func stopFirst(e *model.Entity, parallelism int) *model.Entity {
	e.Service.Update = &model.Update{Parallelism: parallelism}
	return e
}

func TestLostHostsWorkIsReplacedElsewhere(t *testing.T) {
	w := newMovingWorld(t, 3, service("web", "web:1", 6))
	w.die("h2")
	assert.Assert(t, !w.step(), "a host that is suspect keeps its work")
	w.HostLost["h2"] = true
	w.rest(t, nothing)
	assert.Equal(t, w.on("h2"), 0)
	w.settled(t, 6)
	w.comeBack("h2")
	w.rest(t, nothing)
	w.settled(t, 6)
}

func TestWhatWritesToItsHostIsNotReplacedAndDoesNotMove(t *testing.T) {
	data := service("db", "db:1", 1)
	data.Service.Mounts = []model.Mount{{Type: model.MountBind, Source: "/data", Target: "/data"}}
	w := newMovingWorld(t, 2, data)
	w.Leaving["h1"] = CauseDrain
	w.rest(t, nothing)
	assert.Equal(t, w.on("h1"), 1)
	d := Next(w.Snapshot)
	assert.Equal(t, len(d.Blocked), 1)
	for _, why := range d.Blocked {
		assert.Equal(t, why, "it writes to /data of this host, which is nowhere else (mount it read-only, or remove the application; if every host has the same data there, say that it is shared)")
	}
	w.Leaving = map[string]string{}
	w.die("h1")
	w.HostLost["h1"] = true
	w.rest(t, nothing)
	assert.Equal(t, w.on("h1"), 1)
	w.comeBack("h1")
	w.rest(t, nothing)
	w.settled(t, 1)
}

func TestSuccessorThatFailsIsTakenBackAndThePredecessorStays(t *testing.T) {
	w := newMovingWorld(t, 2, service("web", "web:1", 2))
	w.badly["h2"], w.Leaving["h1"] = true, CauseDrain
	for range 20 {
		w.step()
		w.act(first)
	}
	assert.Equal(t, w.on("h1"), 1)
	assert.Equal(t, w.on("h2"), 1, "only what was there before")
	assert.Assert(t, len(w.rests) == 1)
	delete(w.badly, "h2")
	w.rest(t, nothing)
	assert.Equal(t, w.on("h1"), 0)
	w.settled(t, 2)
}

func TestPredecessorReturnsWhenItsSuccessorsHostGoes(t *testing.T) {
	w := newMovingWorld(t, 2, service("web", "web:1", 1))
	w.Leaving["h1"] = CauseDrain
	for w.Assignments[0].Phase != record.PhaseLeave {
		w.step()
		w.act(first)
		w.Now = w.Now.Add(100 * time.Millisecond)
	}
	w.die("h2")
	w.step()
	w.step()
	assert.Equal(t, w.on("h1"), 1)
	assert.Equal(t, w.on("h2"), 0)
	assert.Equal(t, w.Assignments[0].Phase, record.PhaseRun)
}

func TestEndedDrainTakesBackWhatIsNotUp(t *testing.T) {
	w := newMovingWorld(t, 2, service("web", "web:1", 1))
	w.Leaving["h1"] = CauseDrain
	w.step()
	assert.Equal(t, len(w.Assignments), 2)
	delete(w.Leaving, "h1")
	w.rest(t, nothing)
	assert.Equal(t, w.on("h1"), 1)
	assert.Equal(t, len(w.rests), 0, "nothing has failed")
	w.settled(t, 1)
}

func TestDeployDuringMovesWins(t *testing.T) {
	w := newMovingWorld(t, 2, service("web", "web:1", 2))
	w.Leaving["h1"] = CauseDrain
	w.step()
	n := w.deploy(service("web", "web:2", 2))
	w.settle(t, first, nothing)
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseDone)
	w.rest(t, nothing)
	assert.Equal(t, w.on("h1"), 0)
	w.settled(t, 2)
}

// Whatever the order of what agents and the leader do: a drain takes no replica
// of a start-first service away, and no more than its parallelism of another.
func TestDrainsTakeNothingAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parallelism := rapid.IntRange(1, 3).Draw(t, "parallelism")
		w := newMovingWorld(t, 4, service("web", "web:1", 5), stopFirst(service("one", "one:1", 4), parallelism))
		always := func() {
			if n := w.inService("web"); n != 5 {
				t.Fatalf("%d of 5 web: %+v", n, w.Assignments)
			}
			if n := w.inService("one"); n < 4-parallelism {
				t.Fatalf("%d of 4 one, %d at a time", n, parallelism)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			host := fmt.Sprintf("h%d", rapid.IntRange(1, 3).Draw(t, "host"))
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				w.Leaving[host] = CauseDrain
			case 1:
				delete(w.Leaving, host)
			case 2, 3:
				w.Now = w.Now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
			case 4, 5:
				w.step()
			default:
				w.act(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "agent") })
			}
			always()
		}
		w.rest(t, always)
		for h := range w.Leaving {
			assert.Equal(t, w.on(h), 0)
		}
		w.settled(t, 9)
	})
}

// Whatever hosts do, once they have settled every replica is there once, and
// the leader has nothing left to do.
func TestMovesComeToAnEndWhateverHostsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newMovingWorld(t, 4, service("web", "web:1", 5), stopFirst(service("one", "one:1", 3), 1))
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			host := fmt.Sprintf("h%d", rapid.IntRange(1, 3).Draw(t, "host"))
			switch rapid.IntRange(0, 12).Draw(t, "what") {
			case 0:
				w.Leaving[host] = rapid.SampledFrom([]string{CauseDrain, CauseRemove}).Draw(t, "cause")
			case 1:
				delete(w.Leaving, host)
			case 2:
				w.die(host)
			case 3:
				if !w.HostUp[host] {
					w.HostLost[host] = true
				}
			case 4:
				if !w.HostUp[host] {
					w.comeBack(host)
				}
			case 5:
				w.badly[host] = !w.badly[host]
			case 6, 7:
				w.Now = w.Now.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond)
			case 8, 9:
				w.step()
			default:
				w.act(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "agent") })
			}
		}
		w.badly = map[string]bool{}
		for h, up := range w.HostUp {
			if !up {
				w.comeBack(h)
			}
		}
		for task, o := range w.Observed {
			if o.State == record.StateFailed { // whoever it is tries again
				o.State, o.StartedAt = record.StatePrepared, time.Time{}
				w.Observed[task] = o
			}
		}
		w.rest(t, nothing)
		w.settled(t, 8)
		for h := range w.Leaving {
			assert.Equal(t, w.on(h), 0)
		}
	})
}

func TestAsManyMoveAtATimeAsTheServiceSays(t *testing.T) {
	for parallelism := 1; parallelism <= 3; parallelism++ {
		w := newMovingWorld(t, 4, stopFirst(service("one", "one:1", 8), parallelism))
		for _, h := range []string{"h1", "h2", "h3"} {
			w.Leaving[h] = CauseDrain
		}
		least := 8
		w.rest(t, func() { least = min(least, w.inService("one")) })
		assert.Equal(t, least, 8-parallelism)
		w.settled(t, 8)
	}
	w := newMovingWorld(t, 4, service("web", "web:1", 8))
	for _, h := range []string{"h1", "h2", "h3"} {
		w.Leaving[h] = CauseDrain
	}
	most := 0
	w.rest(t, func() { most = max(most, len(w.Assignments)) })
	assert.Equal(t, most, 9, "one at a time")
	w.settled(t, 8)
}

func TestPredecessorReturnsWhenItsSuccessorIsLost(t *testing.T) {
	w := newMovingWorld(t, 3, service("web", "web:1", 1))
	w.Leaving["h1"] = CauseDrain
	for w.Assignments[0].Phase != record.PhaseLeave {
		w.step()
		w.act(first)
		w.Now = w.Now.Add(100 * time.Millisecond)
	}
	// Seen only when it is lost already.
	w.die("h2")
	w.HostLost["h2"] = true
	delete(w.Leaving, "h1")
	w.rest(t, nothing)
	assert.Equal(t, w.on("h1"), 1)
	w.settled(t, 1)
}
