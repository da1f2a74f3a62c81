package progress

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-runewidth"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// hand is a clock that is moved by hand.
type hand struct {
	mu   sync.Mutex
	now  time.Time
	tick chan time.Time
}

func newHand() *hand { return &hand{now: start, tick: make(chan time.Time)} }

func (h *hand) clock() Clock {
	return Clock{
		Now: func() time.Time {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.now
		},
		Tick: func(time.Duration) (<-chan time.Time, func()) { return h.tick, func() {} },
	}
}

func (h *hand) move(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func task(service string, slot int, desired, state string) api.Progress {
	return api.Progress{Release: 3, Task: &api.Task{
		ID: service + state, App: "shop", Service: service, Slot: slot, Name: "shop-" + service + "-1", Host: "host1",
		Desired: desired, State: state, CreatedAt: start,
	}}
}

// deploy is the stream of a deploy as a controller sends it.
func deploy() []api.Progress {
	waits := task("web", 1, "prepare", record.StatePrepared)
	waits.Task.Waiting = "redis to run"
	healthy := task("web", 1, "run", record.StateRunning)
	healthy.Task.Health = "healthy"
	gone := task("old", 1, "remove", record.StateRunning)
	gone.Task.CreatedAt = time.Time{}
	return []api.Progress{
		{Release: 3},
		task("redis", 1, "prepare", "waiting"),
		task("web", 1, "prepare", "waiting"),
		task("redis", 1, "prepare", record.StatePreparing),
		{},
		gone,
		waits,
		task("redis", 1, "run", record.StateCreating),
		task("redis", 1, "run", record.StateCreating),
		task("redis", 1, "run", record.StateRunning),
		task("web", 1, "run", record.StateStarting),
		healthy,
		{Release: 3, Done: "ok"},
	}
}

func TestPlainLinesShowEachChangeOnce(t *testing.T) {
	var b bytes.Buffer
	p := newPlain(&b, "Deploying shop", newHand().clock())
	r := NewRelease(p, Operation{Verb: "deploy"})
	for _, l := range deploy() {
		r.Add(l)
	}
	p.Close()
	golden.Assert(t, b.String(), "plain-deploy.golden")
}

func TestAFailureStaysReadableWhileItIsTakenBack(t *testing.T) {
	failed := task("web", 1, "run", record.StateFailed)
	failed.Task.Error = "port 80 is taken"
	back := task("web", 1, "remove", record.StateFailed)
	back.Task.Error = "port 80 is taken"
	d := &recorder{}
	r := NewRelease(d, Operation{Verb: "deploy"})
	for _, l := range []api.Progress{failed, back, {Release: 3, Done: "failed"}} {
		r.Add(l)
	}
	assert.Equal(t, len(d.items), 1)
	assert.Equal(t, d.items[0], Item{ID: "task/shop-web-1", Name: "shop-web-1", Where: "host1", State: Failed, Text: "Failed", Detail: "port 80 is taken"})
}

func TestWhatWasUnderWayIsTakenBack(t *testing.T) {
	d := &recorder{}
	r := NewRelease(d, Operation{Verb: "deploy"})
	for _, l := range []api.Progress{task("db", 1, "run", record.StateRunning), task("web", 1, "run", record.StateStarting), {Release: 3, Done: "cancelled"}} {
		r.Add(l)
	}
	last := d.items[len(d.items)-1]
	assert.Equal(t, len(d.items), 3, "what ran already is as it was")
	assert.Equal(t, last.Name+" "+last.Text, "shop-web-1 Taken back")
}

func TestWhatRanBeforeIsNoChange(t *testing.T) {
	d := &recorder{}
	r := NewRelease(d, Operation{Verb: "deploy"})
	r.Add(task("db", 1, "run", record.StateRunning))
	r.Add(task("db", 1, "run", record.StateRunning))
	r.Add(api.Progress{Release: 3, Done: "ok"})
	assert.Assert(t, !r.Changed())
	assert.Equal(t, len(d.items), 1)
	assert.Equal(t, d.items[0].Text, "Running")
	r.Add(task("web", 1, "run", record.StateCreating))
	assert.Assert(t, r.Changed())
}

func TestOperationsReadTheirOwnWords(t *testing.T) {
	running := func(desired string, started time.Time) api.Progress {
		p := task("web", 1, desired, record.StateRunning)
		p.Task.StartedAt = started
		return p
	}
	other := task("db", 1, "run", record.StateRunning)
	for name, tc := range map[string]struct {
		o     Operation
		lines []api.Progress
		want  []string
	}{
		"stop": {
			Operation{Verb: "stop", Services: []string{"web"}},
			[]api.Progress{other, running("run", start), running("stop", start), task("web", 1, "stop", record.StateStopped), {Done: "ok"}},
			[]string{"Stopping", "Stopped"},
		},
		"start": {
			Operation{Verb: "start"},
			[]api.Progress{other, task("web", 1, "stop", record.StateStopped), task("web", 1, "run", record.StateStopped), task("web", 1, "run", record.StateStarting), running("run", start), {Done: "ok"}},
			[]string{"Running", "Stopped", "Starting", "Started"},
		},
		"restart": {
			Operation{Verb: "restart"},
			[]api.Progress{running("run", start), running("run", start.Add(time.Second)), {Done: "ok"}},
			[]string{"Restarting", "Restarted"},
		},
		"restart seen late": {
			Operation{Verb: "restart"},
			[]api.Progress{running("run", start), {Done: "ok"}},
			[]string{"Restarting", "Restarted"},
		},
		"rm": {
			Operation{Verb: "rm"},
			[]api.Progress{running("run", start), running("remove", start), {Done: "ok"}},
			[]string{"Removing", "Removed"},
		},
		"steps": {
			Operation{Verb: "deploy"},
			[]api.Progress{
				{Step: &api.Step{Action: "create", Kind: "network", Subject: "shop_default"}},
				{Step: &api.Step{Action: "keep", Kind: "task", Subject: "shop-db-1", Host: "h"}},
				task("web", 1, "run", record.StateCreating), {Done: "ok"},
			},
			[]string{"Pending", "Unchanged", "Created", "Creating", "Started"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := &recorder{}
			r := NewRelease(d, tc.o)
			for _, l := range tc.lines {
				r.Add(l)
			}
			var got []string
			for _, it := range d.items {
				got = append(got, it.Text)
			}
			assert.DeepEqual(t, got, tc.want)
			assert.Equal(t, d.items[len(d.items)-1].State, Done)
		})
	}
}

type recorder struct {
	silent
	items []Item
}

func (r *recorder) Update(it Item) { r.items = append(r.items, it) }

// board of a deploy in the middle.
func middle() *board {
	b := newBoard("Deploying shop", start)
	for i, it := range []Item{
		{ID: "n", Name: "network shop_default", State: Done, Text: "Created"},
		{ID: "1", Name: "shop-redis-1", Where: "host1", State: Done, Text: "Started"},
		{ID: "2", Name: "shop-dnmonster-1", Where: "host2", State: Working, Text: "Starting"},
		{ID: "3", Name: "shop-web-1", Where: "host3", State: Waiting, Text: "Waiting", Detail: "dnmonster to run"},
		{ID: "4", Name: "shop-web-2", Where: "host1", State: Failed, Text: "Failed", Detail: "pull image registry.example.com/shop/web:9: manifest unknown\n"},
	} {
		b.update(it, start.Add(time.Duration(i)*300*time.Millisecond))
	}
	b.update(Item{ID: "1", Name: "shop-redis-1", Where: "host1", State: Done, Text: "Healthy"}, start.Add(9*time.Second))
	return b
}

func TestFrames(t *testing.T) {
	for name, f := range map[string]frame{
		"frame-80":       {width: 80},
		"frame-120":      {width: 120},
		"frame-40":       {width: 40},
		"frame-colour":   {width: 80, colour: true},
		"frame-4-lines":  {width: 80, height: 4},
		"frame-no-lines": {width: 80, height: 1},
		"frame-last":     {width: 80, last: true},
	} {
		t.Run(name, func(t *testing.T) {
			f.now = start.Add(75 * time.Second)
			lines := f.render(middle())
			for _, l := range lines {
				if !f.colour {
					assert.Assert(t, runewidth.StringWidth(l) <= f.width, "%d > %d: %q", runewidth.StringWidth(l), f.width, l)
				}
			}
			if f.height > 1 {
				assert.Assert(t, len(lines) <= f.height, "%d lines", len(lines))
			}
			golden.Assert(t, strings.Join(lines, "\n")+"\n", name+".golden")
		})
	}
}

// screen keeps what a terminal writes, safe for the drawing goroutine.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.b.String()
	s.b.Reset()
	return out
}

func TestATerminalDrawsOverTheLastFrame(t *testing.T) {
	h, out := newHand(), &screen{}
	d := newTerminal(out, "Deploying shop", false, func() (int, int) { return 24, 60 }, h.clock())
	d.Update(Item{ID: "1", Name: "a", State: Working, Text: "Starting"})
	for range 2 { // as two ticks would
		d.mu.Lock()
		d.draw(false)
		d.mu.Unlock()
	}
	first := out.take()
	assert.Assert(t, strings.HasPrefix(first, "\x1b[?25l\r[+] Deploying shop 0/1"), "%q", first)
	assert.Assert(t, strings.Contains(first, "\x1b[2A"), "the second frame starts two lines up: %q", first)
	d.Note("something to know")
	d.Update(Item{ID: "1", Name: "a", State: Done, Text: "Started"})
	d.Update(Item{ID: "2", Name: "b", State: Done, Text: "Started"})
	h.move(2 * time.Second)
	d.Close()
	d.Close()
	last := out.take()
	assert.Assert(t, strings.HasPrefix(last, "\x1b[?25l\x1b[2A\rsomething to know\x1b[K\r\n\r[+] Deploying shop 2/2"), "%q", last)
	assert.Assert(t, strings.HasSuffix(last, "\x1b[J\x1b[?25h"), "the cursor is back: %q", last)
	assert.Equal(t, strings.Count(last, "Started"), 2)
}

func TestNothingIsLeftOnATerminalWhenNothingHappened(t *testing.T) {
	h, out := newHand(), &screen{}
	d := newTerminal(out, "Deploying shop", false, func() (int, int) { return 24, 60 }, h.clock())
	h.tick <- start
	h.tick <- start // taken when the frame of the first is drawn
	d.Close()
	assert.Assert(t, strings.HasSuffix(out.take(), "\x1b[1A\x1b[J\x1b[?25h"))
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 449 * time.Millisecond: "0.4s", 59 * time.Second: "59.0s", 65 * time.Second: "1m05s", 61 * time.Minute: "61m00s",
	} {
		assert.Equal(t, seconds(d), want)
	}
}
