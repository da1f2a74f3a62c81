package plan

import (
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

// sharing is a service that writes to data which every host has.
func sharing(replicas int) *model.Entity {
	e := service("db", "db:1", replicas)
	e.Service.Mounts = []model.Mount{{Type: model.MountBind, Source: "/nfs", Target: "/data", Shared: true}}
	return e
}

// containers are those that are there, by task. One on a host that is cut off
// stays until its agent is told otherwise, whatever the leader forgets.
type containers map[string]record.Observed

// look takes in what agents have done since, and fails when a replica is there
// twice.
func (c containers) look(t assert.TestingT, w *movingWorld) {
	for task, o := range w.Observed {
		if o.Container != "" {
			c[task] = o
		}
	}
	slots := map[int]string{}
	for task, o := range c {
		if _, there := w.Observed[task]; !there && w.HostUp[o.Host] {
			delete(c, task)
			continue
		}
		assert.Equal(t, slots[o.Slot], "", "replica %d on %s too", o.Slot, o.Host)
		slots[o.Slot] = o.Host
	}
}

func TestSharedDataMovesWithItsWriterStopFirst(t *testing.T) {
	w := newMovingWorld(t, 3, sharing(2))
	w.Leaving["h1"], w.Leaving["h2"] = CauseDrain, CauseDrain
	d := Next(w.Snapshot)
	assert.Equal(t, len(d.Moves), 1, "one at a time")
	assert.Assert(t, d.Moves[0].StopFirst)
	assert.Equal(t, len(Movable(w.Snapshot)), 0, "evening out is no reason to stop anything")
	there := containers{}
	w.rest(t, func() { there.look(t, w) })
	assert.Equal(t, w.on("h3"), 2)
	w.settled(t, 2)
}

func TestDataOfTheHostHoldsAWriterOfSharedDataToo(t *testing.T) {
	e := sharing(1)
	e.Service.Mounts = append(e.Service.Mounts, model.Mount{Type: model.MountBind, Source: "/own", Target: "/own"})
	w := newMovingWorld(t, 2, e)
	w.Leaving["h1"] = CauseDrain
	for _, why := range Next(w.Snapshot).Blocked {
		assert.Assert(t, strings.HasPrefix(why, "it writes to /own of this host"), why)
	}
	assert.Equal(t, len(Next(w.Snapshot).Blocked), 1)
}

// A host that is cut off may run what it ran: its writer waits for it.
func TestWriterOfSharedDataIsNotReplacedWhileItsHostMayRunIt(t *testing.T) {
	w := newMovingWorld(t, 2, sharing(1))
	w.die("h1")
	w.HostLost["h1"] = true
	w.rest(t, nothing)
	assert.Equal(t, w.on("h1"), 1)
	// Lost in the middle of its move, its successor waits, and says for what.
	w.HostUp["h1"], w.Leaving["h1"] = true, CauseDrain
	delete(w.HostLost, "h1")
	w.step()
	assert.Equal(t, w.on("h1"), 0)
	w.HostUp["h1"], w.HostLost["h1"] = false, true
	w.rest(t, nothing)
	assert.Equal(t, w.on("h2"), 1)
	waits := ""
	for _, why := range Next(w.Snapshot).Waiting {
		waits = why
	}
	assert.Assert(t, strings.Contains(waits, "on h1, which does not answer"), waits)
	w.HostUp["h1"] = true
	delete(w.HostLost, "h1")
	w.rest(t, nothing)
	w.settled(t, 1)
}

// Whatever hosts do, and whatever is drained or deployed meanwhile: no writer of
// shared data is there twice.
func TestWriterOfSharedDataIsNeverThereTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newMovingWorld(t, 3, sharing(2))
		there := containers{}
		hosts := []string{"h1", "h2", "h3"}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			h := rapid.SampledFrom(hosts).Draw(t, "host")
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				w.HostUp[h], w.HostLost[h] = false, rapid.Bool().Draw(t, "lost")
			case 1:
				w.HostUp[h], w.HostLost[h] = true, false
			case 2:
				w.Leaving[h] = CauseDrain
			case 3:
				delete(w.Leaving, h)
			case 4:
				w.Now = w.Now.Add(time.Minute)
			case 5:
				w.act(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "agent") })
			default:
				w.step()
			}
			there.look(t, w)
		}
		w.HostUp, w.HostLost, w.Leaving = map[string]bool{"h1": true, "h2": true, "h3": true}, map[string]bool{}, map[string]string{}
		w.rest(t, func() { there.look(t, w) })
		w.settled(t, 2)
	})
}
