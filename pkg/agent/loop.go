package agent

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// identity is who the agent works for.
type identity struct{ Fleet, Host string }

// reporter takes what the loop finds out. Its calls do not block.
type reporter interface {
	// report replaces what is known about a task; a nil name withdraws its
	// names.
	report(o record.Observed, name *record.NameRecord)
	// forget withdraws the names of a task that is gone, and its report once
	// its assignment is gone too.
	forget(task string)
	// name replaces the names of a container that is of no application; nil
	// withdraws them.
	name(container string, name *record.NameRecord)
	event(e record.Event)
}

// loop owns everything the agent knows about its tasks. All fields below in
// belong to the goroutine of run.
type loop struct {
	identity
	log    *slog.Logger
	now    func() time.Time
	engine Engine
	nets   *networks
	images *once
	host   hostCheck
	out    reporter
	// slots bounds how many containers are being created, started or
	// stopped at the same time: more would only queue in the engine.
	slots chan struct{}
	ctx   context.Context
	in    chan func()
	wg    sync.WaitGroup

	assigned map[string]assigned
	// known says that assigned holds something to act on, complete that it
	// holds everything; hostKnown that etcd has this host's record.
	known, complete, hostKnown bool
	// back follows restores of etcd; nil where there are none.
	back *restoration
	// own are the ports of the host's tasks; never nil.
	own *ownPorts
	// fence guards what may be replaced elsewhere; nil where nothing may.
	fence *fence
	// restored is the mark of a restored etcd, its revisions 0 when there is
	// none; restoredAt when it was seen first.
	restored   store.Item[record.Restored]
	restoredAt time.Time
	// synced says that containers is what the engine has.
	synced     bool
	containers map[string]engine.Container
	// guests are containers of no application on the fleet's networks;
	// guestsMoved says that the addresses of some have changed.
	guests      map[string]*guest
	guestsMoved bool
	// lastEvent is when something happened to a container, by the engine's
	// clock, which is this machine's.
	lastEvent map[string]time.Time
	looking   map[string]bool
	tasks     map[string]*task
	changed   func() // tells the cache that there is something to keep
	// patience is how long to wait for etcd before going by the cache.
	patience time.Duration
	// local is told of the addresses of this host's containers.
	local  func(map[netip.Addr][]string)
	shared shared
}

// task is the loop's memory of one task, with what it does about it.
type task struct {
	memory
	doing verb
	// told says that out has been given Observed and name.
	told bool
	name *record.NameRecord
}

// shared is what other goroutines may ask the loop's knowledge for.
type shared struct {
	mu sync.Mutex
	// containers maps tasks to their container; guarded by mu.
	containers map[string]engine.Container
}

// parallel is how many containers are worked on at the same time.
const parallel = 16

func newLoop(ctx context.Context, id identity, e Engine, nets *networks, out reporter, log *slog.Logger, now func() time.Time) *loop {
	return &loop{
		own:      newOwnPorts(now),
		identity: id, log: log, now: now, engine: e, nets: nets, images: newOnce(), out: out,
		slots: make(chan struct{}, parallel), ctx: ctx, in: make(chan func(), 256),
		assigned: map[string]assigned{}, containers: map[string]engine.Container{}, guests: map[string]*guest{},
		lastEvent: map[string]time.Time{}, looking: map[string]bool{}, tasks: map[string]*task{},
		patience: cachePatience, changed: func() {}, local: func(map[netip.Addr][]string) {},
	}
}

// run works until the loop's context ends, and waits for what is under way.
func (l *loop) run() {
	defer l.wg.Wait()
	var timer <-chan time.Time
	for {
		select {
		case <-l.ctx.Done():
			return
		case f := <-l.in:
			f()
		case <-timer:
		}
		for more := true; more; {
			select {
			case f := <-l.in:
				f()
			default:
				more = false
			}
		}
		timer = nil
		if wake := l.step(); !wake.IsZero() {
			timer = time.After(max(wake.Sub(l.now()), time.Millisecond))
		}
	}
}

// do hands f to the loop's goroutine.
func (l *loop) do(f func()) {
	select {
	case l.in <- f:
	case <-l.ctx.Done():
	}
}

// spawn runs f beside the loop.
func (l *loop) spawn(f func()) {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		f()
	}()
}

// step decides, dispatches and reports.
func (l *loop) step() (wake time.Time) {
	if l.synced && l.known {
		var actions []action
		actions, wake = decide(l.view())
		for _, a := range actions {
			l.dispatch(a)
		}
		l.guard()
		l.nets.settle(l.wanted(), l.complete && l.hostKnown && !l.leaving())
	}
	l.publish()
	return wake
}

func (l *loop) view() view {
	v := view{Assigned: l.assigned, Complete: l.complete && l.hostKnown, Now: l.now(), Restored: l.restored.Created, Memory: make(map[string]memory, len(l.tasks))}
	for _, c := range l.containers {
		v.Containers = append(v.Containers, c)
	}
	cut := l.fence.killed()
	for t, m := range l.tasks {
		m.Cut = cut
		v.Memory[t] = m.memory
	}
	return v
}

// wanted are the networks that assignments of this host need.
func (l *loop) wanted() map[string]bool {
	w := map[string]bool{}
	for _, a := range l.assigned {
		for _, j := range a.Container.Networks {
			w[j.ID] = true
		}
	}
	return w
}

// leaving reports whether a task is still being taken away: its container may
// be on a network that nothing else wants.
func (l *loop) leaving() bool {
	for t := range l.tasks {
		if _, ok := l.assigned[t]; !ok {
			return true
		}
	}
	return false
}

// dispatch starts an action in a goroutine of its own.
func (l *loop) dispatch(a action) {
	t := l.tasks[a.Task]
	if t == nil {
		t = &task{}
		l.tasks[a.Task] = t
	}
	l.log.Info("task: "+string(a.Verb), "task", a.Task, "reason", a.Reason)
	if a.Verb == doForget {
		delete(l.tasks, a.Task)
		l.out.forget(a.Task)
		l.changed()
		return
	}
	t.Busy, t.doing = true, a.Verb
	l.countAgain(t, a)
	x := l.execution(a)
	l.spawn(func() {
		r := x.run(l.ctx)
		l.do(func() { l.done(a, x, r) })
	})
}

// done takes in what an action came to.
func (l *loop) done(a action, x *execution, r result) {
	t := l.tasks[a.Task]
	t.Busy, t.doing = false, ""
	if r.gone != "" {
		l.drop(r.gone)
	}
	if r.container != nil {
		l.see(*r.container)
	}
	if l.ctx.Err() != nil {
		return
	}
	if r.err != nil {
		l.failed(a, x, r)
		return
	}
	t.Failure = failure{}
	as := x.assigned
	switch a.Verb {
	case doPrepare:
		t.Prepared = as.Revision
	case doCreate, doStart, doRestart:
		t.Stopped, t.ByHand = false, false
		t.Restarts = max(t.Restarts, as.Restarts)
		l.event("task", "start", as.Container.Name, a.Reason, a.Task)
	case doStop:
		t.Stopped = true
		l.event("task", "stop", as.Container.Name, a.Reason, a.Task)
	case doRemove:
		l.event("task", "remove", x.name, a.Reason, a.Task)
	}
}

func (l *loop) failed(a action, x *execution, r result) {
	t := l.tasks[a.Task]
	attempts := 1
	revision := x.assigned.Revision
	if revision == 0 {
		revision = -1 // not assigned any more
	}
	if t.Failure.Revision == revision {
		attempts += t.Failure.Attempts
	}
	t.Failure = failure{
		Revision: revision, Attempts: attempts, Until: l.now().Add(backoff(attempts)),
		Text: r.err.Error(), Fatal: r.fatal,
	}
	l.log.Warn("task: "+string(a.Verb)+" failed", "task", a.Task, "error", r.err, "fatal", r.fatal, "attempt", attempts)
	if t.Failure.Waits = errors.Is(r.err, errFence); t.Failure.Waits {
		t.Failure.Attempts = 0
		return
	}
	if attempts == 1 || r.fatal {
		l.event("task", "fail", x.name, r.err.Error(), a.Task)
	}
	if errors.Is(r.err, engine.ErrAway) {
		t.Failure.Attempts = 0 // the engine failed, not the task
	}
}

func (l *loop) event(typ, action, subject, text, task string) {
	l.out.event(record.Event{Type: typ, Action: action, Subject: subject, Text: text,
		Attrs: map[string]string{"host": l.Host, "task": task}})
}

// publish reports every task whose report has changed.
func (l *loop) publish() {
	byTask := map[string][]engine.Container{}
	for _, c := range l.containers {
		byTask[c.Labels[engine.LabelTask]] = append(byTask[c.Labels[engine.LabelTask]], c)
	}
	ids := l.nets.ids()
	moved := false
	snapshot := make(map[string]engine.Container, len(l.assigned))
	for id, a := range l.assigned {
		t := l.tasks[id]
		c, _ := pick(byTask[id])
		if c != nil {
			snapshot[id] = *c
		}
		if !l.synced {
			continue // nothing is known about containers
		}
		s := situation{Assigned: a, Container: c, Memory: t.memory, Doing: t.doing, NetworkIDs: ids}
		if c == nil {
			if held := nameHeld(a, values(l.containers)); held != "" {
				s.Waiting = "waits for the container of task " + held + ", which has its name"
			}
		}
		o := observe(s)
		name := reachable(s, o)
		if !same(o, t.Observed) {
			moved = moved || !maps.Equal(o.Addresses, t.Observed.Addresses)
			o.At = l.now()
			t.Observed, t.told = o, false
			l.changed()
		}
		l.tell(t, name)
	}
	for id, t := range l.tasks {
		if _, ok := l.assigned[id]; ok {
			continue
		}
		if c, _ := pick(byTask[id]); c != nil {
			snapshot[id] = *c
		}
		// Its names go before its container does; its report stays until the
		// container is gone: others wait for that.
		l.tell(t, nil)
	}
	l.publishGuests(ids)
	if moved || l.guestsMoved {
		l.guestsMoved = false
		l.tellLocal(ids)
	}
	l.shared.mu.Lock()
	l.shared.containers = snapshot
	l.shared.mu.Unlock()
}

func (l *loop) tell(t *task, name *record.NameRecord) {
	if t.told && reflect.DeepEqual(t.name, name) {
		return
	}
	t.told, t.name = true, name
	if t.Observed.Task != "" {
		l.out.report(t.Observed, name)
	}
}

// container is the container of a task, for other goroutines.
func (l *loop) container(task string) (engine.Container, bool) {
	l.shared.mu.Lock()
	defer l.shared.mu.Unlock()
	c, ok := l.shared.containers[task]
	return c, ok
}

// same compares reports but for the time they were made.
func same(a, b record.Observed) bool {
	return a.Task == b.Task && a.App == b.App && a.Service == b.Service && a.Slot == b.Slot &&
		a.Host == b.Host && a.State == b.State && a.Health == b.Health && a.Container == b.Container &&
		a.Error == b.Error && a.Fatal == b.Fatal && a.ExitCode == b.ExitCode && a.Restarts == b.Restarts &&
		a.Fence == b.Fence && a.StartedAt.Equal(b.StartedAt) && maps.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Ports, b.Ports)
}

func values[K comparable, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, v := range m {
		out = append(out, v)
	}
	return out
}
