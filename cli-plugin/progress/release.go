package progress

import (
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

// Release turns the lines of an operation's stream into items.
type Release struct {
	display Display
	o       Operation
	steps   map[string]api.Step  // by item
	tasks   map[string]api.Task  // the one shown, by item
	started map[string]time.Time // when it had been started at first sight
	moved   map[string]bool      // whether a task was ever not running
	items   map[string]Item
	order   []string
}

// Operation says what a stream is about.
type Operation struct {
	// Verb is "deploy", "stop", "start", "restart" or "rm".
	Verb string
	// Services are those it is about; empty means all.
	Services []string
	// Wait means that a replica is done when it is healthy, not when it runs.
	Wait bool
}

// NewRelease returns the items of an operation.
func NewRelease(d Display, o Operation) *Release {
	return &Release{
		display: d, o: o,
		steps: map[string]api.Step{}, tasks: map[string]api.Task{},
		started: map[string]time.Time{}, moved: map[string]bool{}, items: map[string]Item{},
	}
}

// Add takes one line of the stream.
func (r *Release) Add(p api.Progress) {
	switch {
	case p.Step != nil:
		r.step(*p.Step)
	case p.Task != nil:
		r.task(*p.Task)
	case p.Done == "ok":
		r.finish()
	case p.Done != "" && r.o.Verb == "deploy":
		r.takenBack()
	}
}

// Changed reports whether the stream spoke of anything but replicas that ran
// before and still do.
func (r *Release) Changed() bool { return len(r.moved) > 0 || len(r.steps) > 0 }

// step shows what will be done before it begins.
func (r *Release) step(s api.Step) {
	it := Item{ID: s.Kind + "/" + s.Subject, Name: s.Subject, Where: s.Host, State: Waiting, Text: planned(s)}
	if s.Kind == "network" {
		it.Name = "network " + s.Subject
	}
	if s.Action == "keep" {
		it.State, it.Text = Done, "Unchanged"
	}
	r.steps[it.ID] = s
	r.show(it)
}

// planned is what the user reads of a step that has not begun.
func planned(s api.Step) string {
	switch s.Action {
	case "create", "start":
		return "Pending"
	case "replace":
		return "To be replaced"
	case "remove":
		return "To be removed"
	}
	return "To " + s.Action
}

// past is what the user reads of a step that is done.
func past(action string) string {
	switch action {
	case "create":
		return "Created"
	case "replace":
		return "Replaced"
	case "remove", "rm":
		return "Removed"
	case "stop":
		return "Stopped"
	case "start":
		return "Started"
	case "restart":
		return "Restarted"
	}
	return "Done"
}

// task shows a replica's new state. Of two tasks of one replica, one replacing
// the other, the younger is shown.
func (r *Release) task(t api.Task) {
	if len(r.o.Services) > 0 && !slices.Contains(r.o.Services, t.Service) {
		return
	}
	id := "task/" + t.Name
	old, seen := r.tasks[id]
	if seen && t.ID != old.ID && t.CreatedAt.Before(old.CreatedAt) {
		return
	}
	if !seen {
		r.started[id] = t.StartedAt
	}
	if t.State != record.StateRunning || t.Desired != record.PhaseRun || seen && t.ID != old.ID {
		r.moved[id] = true
	}
	r.tasks[id] = t
	if stateBegun(t.State) {
		r.networksUp()
	}
	it := Item{ID: id, Name: t.Name, Where: t.Host, Detail: t.Error}
	it.State, it.Text = r.judge(id, t)
	if it.Detail == "" && it.State == Waiting {
		it.Detail = t.Waiting
	}
	if was := r.items[id]; was.State == Failed && t.Desired == "remove" && was.Text != "" {
		return // why it failed stays to be read while it is taken away
	}
	r.show(it)
}

// judge says how far a task is from what is wanted of it.
func (r *Release) judge(id string, t api.Task) (State, string) {
	if t.Desired == "remove" || r.o.Verb == "rm" {
		return Working, "Removing"
	}
	switch t.State {
	case record.StateFailed:
		return Failed, "Failed"
	case record.StateLost:
		return Failed, "Lost"
	case record.StateComplete:
		return Done, "Completed"
	case record.StateStopped:
		if t.Desired == record.PhaseStop && r.o.Verb != "start" {
			return Done, "Stopped"
		}
		return Waiting, "Stopped"
	case record.StateRunning:
		return r.judgeRunning(id, t)
	case "waiting", "":
		return Waiting, "Waiting"
	case record.StatePrepared:
		if t.Waiting != "" {
			return Waiting, "Waiting"
		}
	}
	return Working, strings.ToUpper(t.State[:1]) + t.State[1:]
}

func (r *Release) judgeRunning(id string, t api.Task) (State, string) {
	switch {
	case t.Desired == record.PhaseStop, r.o.Verb == "stop":
		return Working, "Stopping"
	case r.o.Verb == "restart" && t.StartedAt.Equal(r.started[id]):
		return Working, "Restarting"
	case t.Health == "unhealthy":
		return Failed, "Unhealthy"
	case t.Health == "healthy":
		return Done, "Healthy"
	case t.Health == "starting" && r.o.Wait:
		return Working, "Waiting for health"
	case r.o.Verb == "restart":
		return Done, "Restarted"
	case !r.moved[id]: // it ran before
		return Done, "Running"
	}
	return Done, "Started"
}

// stateBegun reports whether a task in this state needs its networks.
func stateBegun(s string) bool {
	switch s {
	case record.StateCreating, record.StateStarting, record.StateRunning, record.StateComplete:
		return true
	}
	return false
}

// networksUp marks the networks as made: containers are created in them.
func (r *Release) networksUp() {
	for id, s := range r.steps {
		if s.Kind == "network" && s.Action == "create" {
			it := r.items[id]
			it.State, it.Text = Done, past(s.Action)
			r.show(it)
		}
	}
}

// finish marks what the stream did not speak of last as done: all of it went
// well.
func (r *Release) finish() {
	for _, id := range r.order {
		it := r.items[id]
		if it.State.over() {
			continue
		}
		it.State, it.Text, it.Detail = Done, past(r.action(id)), ""
		r.show(it)
	}
}

// takenBack marks what was under way when a release was taken back.
func (r *Release) takenBack() {
	for _, id := range r.order {
		if it := r.items[id]; !it.State.over() {
			it.State, it.Text, it.Detail = Undone, "Taken back", ""
			r.show(it)
		}
	}
}

// action is what is done about an item.
func (r *Release) action(id string) string {
	if s, ok := r.steps[id]; ok {
		return s.Action
	}
	switch t := r.tasks[id]; {
	case t.Desired == "remove":
		return "remove"
	case r.o.Verb == "deploy":
		return "start"
	}
	return r.o.Verb
}

func (r *Release) show(it Item) {
	old, ok := r.items[it.ID]
	if ok && old == it {
		return
	}
	if !ok {
		r.order = append(r.order, it.ID)
	}
	r.items[it.ID] = it
	r.display.Update(it)
}
