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

// fenced is a service that writes to shared data and is replaced all the same.
func fenced(replicas int) *model.Entity {
	e := sharing(replicas)
	e.Service.HostLost = model.HostLost{Then: model.LostReplace, Fence: 10 * time.Second}
	return e
}

func TestFenceIsInTheHashOnlyWhenItIsAsked(t *testing.T) {
	hash := func(e *model.Entity) string {
		return Templates("f", &record.Release{App: "a", Application: &model.Application{Name: "a", Entities: []*model.Entity{e}}})[0].Hash
	}
	waits := sharing(1)
	waits.Service.HostLost.Then = model.LostWait
	assert.Equal(t, hash(sharing(1)), hash(waits))
	assert.Assert(t, hash(sharing(1)) != hash(fenced(1)))
}

func TestSuccessorWaitsUntilTheFenceHasCertainlyExpired(t *testing.T) {
	w := newMovingWorld(t, 2, fenced(1))
	w.fence()
	w.die("h1")
	w.HostLost["h1"] = true
	w.Gone = map[string]time.Duration{"h1": 0}
	w.rest(t, nothing)
	assert.Equal(t, w.on("h2"), 1, "it is placed, and its image is fetched, meanwhile")
	assert.Equal(t, w.inService("db"), 0)
	d := Next(w.Snapshot)
	assert.Equal(t, d.Again, 12500*time.Millisecond)
	for _, why := range d.Waiting {
		assert.Assert(t, strings.Contains(why, "12.5s after it was seen to be gone"), why)
	}
	w.Gone["h1"] = FenceTime(10*time.Second) - time.Millisecond
	w.rest(t, nothing)
	assert.Equal(t, w.inService("db"), 0)
	w.Gone["h1"] = FenceTime(10 * time.Second)
	w.rest(t, nothing)
	assert.Equal(t, w.inService("db"), 1)
}

func TestNothingExpiresThatIsNotCertain(t *testing.T) {
	for what, change := range map[string]func(w *movingWorld){
		"nobody guards the host":         func(w *movingWorld) { delete(w.Gone, "h1") },
		"the container has no fence":     func(w *movingWorld) { w.unfence() },
		"the host answers":               func(w *movingWorld) { w.HostUp["h1"], w.HostLost["h1"] = true, false },
		"its host is not taken for lost": func(w *movingWorld) { w.HostLost["h1"] = false },
	} {
		w := newMovingWorld(t, 2, fenced(1))
		w.fence()
		w.die("h1")
		w.HostLost["h1"] = true
		w.Gone = map[string]time.Duration{"h1": time.Hour}
		change(w)
		d := Next(w.Snapshot)
		assert.Equal(t, len(d.Forget), 0, what)
	}
}

// A deploy while the host is gone waits for the fence too.
func TestReleaseForgetsWhatHasExpired(t *testing.T) {
	w := newMovingWorld(t, 2, fenced(1))
	w.fence()
	w.die("h1")
	w.Gone = map[string]time.Duration{"h1": time.Hour}
	e := fenced(1)
	e.Service.Image = "db:2"
	w.deploy(e)
	w.Assignments[len(w.Assignments)-1].Host = "h2"
	w.settle(t, first, nothing)
	assert.Equal(t, w.App.Pending, 0)
	assert.Equal(t, w.inService("db"), 1)
	assert.Equal(t, len(w.Observed), 1)
}

// fence lets reports say what containers were made with.
func (w *movingWorld) fence() {
	for task, o := range w.Observed {
		o.Fence = 10 * time.Second
		w.Observed[task] = o
	}
}

func (w *movingWorld) unfence() {
	for task, o := range w.Observed {
		o.Fence = 0
		w.Observed[task] = o
	}
}

// cutOff is a fleet whose hosts are cut off while what they run runs on, whose
// clocks run at different speeds, and whose agents stop what has a fence in time.
type cutOff struct {
	*movingWorld
	// heard is when etcd has vouched for a host last, by true time; gone when the
	// leader saw that it had no lease.
	heard, gone map[string]time.Time
	// speed is how fast a host's clock runs.
	speed map[string]float64
	// running are the containers there are, by task.
	running map[string]record.Observed
}

// stop is what agents' fences do: nothing of theirs runs longer.
func (c *cutOff) stop() {
	for task, o := range c.running {
		if c.HostUp[o.Host] {
			if _, there := c.Observed[task]; !there {
				delete(c.running, task)
			}
			continue
		}
		if passed := c.Now.Sub(c.heard[o.Host]); time.Duration(float64(passed)*c.speed[o.Host]) >= 10*time.Second {
			delete(c.running, task)
		}
	}
}

func (c *cutOff) look(t assert.TestingT) {
	c.fence()
	for h, up := range c.HostUp {
		if up {
			c.heard[h] = c.Now
		}
	}
	for task, o := range c.Observed {
		if c.HostUp[o.Host] && o.Container != "" && o.State == record.StateRunning {
			c.running[task] = o
		}
	}
	c.stop()
	slots := map[int]string{}
	for _, o := range c.running {
		assert.Equal(t, slots[o.Slot], "", "replica %d on %s too", o.Slot, o.Host)
		slots[o.Slot] = o.Host
	}
	c.Gone = map[string]time.Duration{}
	for h, at := range c.gone {
		if !c.HostUp[h] {
			c.Gone[h] = c.Now.Sub(at)
		}
	}
}

// Whatever is cut off, for however long, and whoever leads: no writer of shared
// data is there twice, and all of them are there in the end.
func TestFencedWriterIsNeverThereTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &cutOff{newMovingWorld(t, 3, fenced(2)), map[string]time.Time{}, map[string]time.Time{}, map[string]float64{}, map[string]record.Observed{}}
		hosts := []string{"h1", "h2", "h3"}
		for _, h := range hosts {
			// 5 % apart from the leader's, whose clock is true time.
			w.speed[h] = rapid.Float64Range(0.955, 1.05).Draw(t, "speed")
		}
		w.look(t)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			h := rapid.SampledFrom(hosts).Draw(t, "host")
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0, 1:
				if w.HostUp[h] {
					// The last renewal was some time before the lease was seen to go.
					w.HostUp[h], w.gone[h] = false, w.Now
					w.heard[h] = w.Now.Add(-time.Duration(rapid.IntRange(0, 4000).Draw(t, "before")) * time.Millisecond)
				}
				w.HostLost[h] = rapid.Bool().Draw(t, "lost")
			case 2:
				// What was due is stopped before the lease counts again.
				w.stop()
				for task, o := range w.running {
					if _, there := w.Observed[task]; o.Host == h && !there && !w.HostUp[h] {
						delete(w.running, task)
					}
				}
				w.HostUp[h], w.HostLost[h] = true, false
			case 3:
				w.Leaving[h] = CauseDrain
			case 4:
				delete(w.Leaving, h)
			case 5:
				if !w.HostUp[h] {
					w.gone[h] = w.Now // another leader counts for itself
				}
			case 6:
				w.Now = w.Now.Add(time.Duration(rapid.IntRange(1, 9000).Draw(t, "time")) * time.Millisecond)
			case 7:
				w.act(func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "agent") })
			case 8:
				w.step()
			default: // for long enough to replace something
				for range 12 {
					w.step()
					w.look(t)
					w.act(first)
					w.look(t)
				}
			}
			w.look(t)
		}
		w.HostUp, w.HostLost, w.Leaving = map[string]bool{"h1": true, "h2": true, "h3": true}, map[string]bool{}, map[string]string{}
		w.rest(t, func() { w.look(t) })
		w.settled(t, 2)
	})
}
