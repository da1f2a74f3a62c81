package agent

import (
	"errors"
	"path"
	"strings"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// setAssignments takes in what is assigned: a change from etcd, or, with a
// nil change, nothing new but that etcd (or the cache) has been read.
func (l *loop) setAssignments(c store.Change, complete bool) {
	l.known = true
	l.complete = l.complete || complete
	if c.Reset {
		next := make(map[string]assigned, len(c.Puts))
		for _, raw := range c.Puts {
			l.assign(next, raw)
		}
		l.assigned = next
	} else {
		for _, raw := range c.Puts {
			l.assign(l.assigned, raw)
		}
		for _, key := range c.Deletes {
			delete(l.assigned, path.Base(key))
		}
	}
	l.changed()
}

func (l *loop) assign(into map[string]assigned, raw store.Raw) {
	a, err := store.Decode[record.Assignment](raw)
	if err != nil || a.Task != path.Base(raw.Key) {
		// What cannot be read may well be wanted: keep what there is.
		l.log.Error("assignment cannot be read", "key", raw.Key, "error", err)
		if old, ok := l.assigned[path.Base(raw.Key)]; ok {
			into[old.Task] = old
		}
		return
	}
	into[a.Task] = assigned{Assignment: a, Revision: raw.Revision}
	if l.tasks[a.Task] == nil {
		l.tasks[a.Task] = &task{memory: memory{Restarts: a.Restarts}}
	}
}

// recall takes in what an earlier run of the agent reported, before anything
// is decided: how many restarts are done and what was stopped on purpose
// cannot be seen on a container.
func (l *loop) recall(os []record.Observed) {
	for _, o := range os {
		if l.tasks[o.Task] == nil {
			l.tasks[o.Task] = &task{}
		}
		m := &l.tasks[o.Task].memory
		if m.Observed.Task != "" && !o.At.After(m.Observed.At) {
			continue
		}
		m.Observed, m.Restarts, m.Stopped = o, o.Restarts, o.State == record.StateStopped
	}
}

// ours reports whether a container is one of this fleet's tasks.
func (l *loop) ours(labels map[string]string) bool {
	return labels[engine.LabelFleet] == l.Fleet && labels[engine.LabelTask] != "" && labels[engine.LabelSystem] == ""
}

// engineEvent takes in something that happened to a container. What the event
// itself tells counts at once; the rest is looked up.
func (l *loop) engineEvent(e engine.Event) {
	if !l.ours(e.Attributes) {
		l.guestEvent(e)
		return
	}
	l.byHand(e)
	if e.Action == "kill" || e.Action == "stop" {
		return // its end is another event
	}
	c, known := l.containers[e.ID]
	if known && !e.At.After(c.SeenAt) {
		return // seen already
	}
	if e.At.After(l.lastEvent[e.ID]) {
		l.lastEvent[e.ID] = e.At
	}
	switch {
	case e.Action == "destroy":
		l.drop(e.ID)
		return
	case e.Action == "die" && known:
		// Its names go now; whether the engine starts it again is looked up.
		c.State, c.Health, c.Joined = engine.Exited, "", nil
		l.containers[e.ID] = c
	case strings.HasPrefix(e.Action, "health_status: ") && known:
		c.Health = strings.TrimPrefix(e.Action, "health_status: ")
		l.containers[e.ID] = c
		return
	}
	if t := l.tasks[e.Attributes[engine.LabelTask]]; t != nil && t.Busy {
		return // what is under way ends with a look
	}
	l.look(e.ID)
}

// look inspects a container, once at a time.
func (l *loop) look(id string) {
	if l.looking[id] {
		return // see looks again when this event is newer
	}
	l.looking[id] = true
	l.spawn(func() {
		at := l.now()
		c, err := l.engine.Container(l.ctx, id)
		c.SeenAt = at
		l.do(func() {
			delete(l.looking, id)
			switch {
			case errors.Is(err, engine.ErrNotFound):
				l.drop(id)
			case err != nil:
				// The stream of events is about to break too, and what
				// follows sees everything anew.
				l.log.Debug("container cannot be inspected", "container", id, "error", err)
			default:
				l.see(c)
			}
		})
	})
}

// see takes in what the engine said about a container, unless something has
// happened to it since: then it is looked at again.
func (l *loop) see(c engine.Container) {
	if l.lastEvent[c.ID].After(c.SeenAt) {
		if _, known := l.containers[c.ID]; !known && l.ours(c.Labels) {
			l.containers[c.ID] = c
		}
		l.look(c.ID)
		return
	}
	if l.ours(c.Labels) {
		if old, ok := l.containers[c.ID]; ok {
			l.note(old, c)
		}
		l.containers[c.ID] = c
		if t := c.Labels[engine.LabelTask]; l.tasks[t] == nil {
			l.tasks[t] = &task{}
		}
		return
	}
	l.seeGuest(c)
}

// note writes an event when a container ended by itself.
func (l *loop) note(old, c engine.Container) {
	t := l.tasks[c.Labels[engine.LabelTask]]
	if t == nil || t.Busy || t.Stopped || c.State == engine.Running || c.State == old.State && c.State != engine.Exited {
		return
	}
	if c.State == engine.Exited || c.State == engine.Restarting {
		l.event("task", "die", c.Name, exited(&c), c.Labels[engine.LabelTask])
	}
}

// drop forgets a container that is gone. The time of its end is kept for a
// while: what was seen before may still come in.
func (l *loop) drop(id string) {
	delete(l.containers, id)
	l.dropGuest(id)
	now := l.now()
	l.lastEvent[id] = now
	for old, at := range l.lastEvent {
		if _, there := l.containers[old]; !there && l.guests[old] == nil && now.Sub(at) > time.Minute {
			delete(l.lastEvent, old)
		}
	}
}

// resync replaces what is known about containers by what the engine has.
func (l *loop) resync(cs []engine.Container) {
	fresh, there := map[string]engine.Container{}, map[string]bool{}
	for _, c := range cs {
		there[c.ID] = true
		if l.ours(c.Labels) {
			fresh[c.ID] = c
		}
	}
	l.containers = fresh
	for _, c := range cs {
		l.see(c)
	}
	for id := range l.guests {
		if !there[id] {
			l.look(id) // it may have joined a network a moment ago
		}
	}
	l.synced = true
}
