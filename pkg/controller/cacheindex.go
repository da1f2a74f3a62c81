package controller

import (
	"slices"
	"strings"

	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// appTasks is one application's part of the cache's assignments and reports.
type appTasks struct {
	assignments map[string]store.Item[record.Assignment] // by task
	observed    map[string]record.Observed               // by task
	// seen is what views share; its parts are nil once they are out of date.
	seen seenTasks
}

// seenTasks is handed out to views: it is replaced and never changed.
type seenTasks struct {
	assignments []record.Assignment // by task
	revisions   map[string]int64
	observed    map[string]record.Observed
}

// seenHosts is handed out to views: it is replaced and never changed.
type seenHosts struct {
	up    map[string]bool
	names map[string]string
	// lost are the hosts whose work is replaced, leaving those whose work moves
	// away, with the cause.
	lost    map[string]bool
	leaving map[string]string
}

// ofApp finds or makes the index of an application.
func (c *cache) ofApp(app string) *appTasks {
	t := c.tasks[app]
	if t == nil {
		t = &appTasks{assignments: map[string]store.Item[record.Assignment]{}, observed: map[string]record.Observed{}}
		c.tasks[app] = t
	}
	return t
}

func (c *cache) dropEmptyTasks(app string) {
	if t := c.tasks[app]; t != nil && len(t.assignments)+len(t.observed) == 0 {
		delete(c.tasks, app)
	}
}

func (c *cache) putAssignment(task string, r store.Raw) {
	a, err := store.Decode[record.Assignment](r)
	if err != nil {
		return
	}
	was, replaced := c.assignments[task]
	if replaced && (was.Value.App != a.App || was.Value.Host != a.Host) {
		c.removeAssignment(task)
	}
	it := store.Item[record.Assignment]{Key: r.Key, Value: a, Revision: r.Revision, Created: r.Created}
	c.assignments[task] = it
	t := c.ofApp(a.App)
	t.assignments[task] = it
	t.seen.assignments, t.seen.revisions = nil, nil
	if c.onHost[a.Host] == nil {
		c.onHost[a.Host] = map[string]bool{}
	}
	c.onHost[a.Host][task] = true
	c.wakes.touch(topicApp(a.App))
}

func (c *cache) removeAssignment(task string) {
	was, known := c.assignments[task]
	if !known {
		return
	}
	a := was.Value
	delete(c.assignments, task)
	t := c.ofApp(a.App)
	delete(t.assignments, task)
	t.seen.assignments, t.seen.revisions = nil, nil
	c.dropEmptyTasks(a.App)
	if delete(c.onHost[a.Host], task); len(c.onHost[a.Host]) == 0 {
		delete(c.onHost, a.Host)
	}
	c.wakes.touch(topicApp(a.App), topicRoom)
}

func (c *cache) putObserved(task string, r store.Raw) {
	o, err := store.Decode[record.Observed](r)
	if err != nil {
		return
	}
	if was, replaced := c.observed[task]; replaced && was.App != o.App {
		c.removeObserved(task)
	}
	c.observed[task] = o
	t := c.ofApp(o.App)
	t.observed[task] = o
	t.seen.observed = nil
	c.wakes.touch(topicApp(o.App))
}

func (c *cache) removeObserved(task string) {
	was, known := c.observed[task]
	if !known {
		return
	}
	delete(c.observed, task)
	t := c.ofApp(was.App)
	delete(t.observed, task)
	t.seen.observed = nil
	c.dropEmptyTasks(was.App)
	c.wakes.touch(topicApp(was.App))
}

// seenOf is an application's part as views show it; the cache is locked for
// writing.
func (c *cache) seenOf(app string) seenTasks {
	t := c.tasks[app]
	if t == nil {
		return seenTasks{revisions: map[string]int64{}, observed: map[string]record.Observed{}}
	}
	if t.seen.revisions == nil {
		t.seen.assignments = make([]record.Assignment, 0, len(t.assignments))
		t.seen.revisions = make(map[string]int64, len(t.assignments))
		for task, a := range t.assignments {
			t.seen.assignments = append(t.seen.assignments, a.Value)
			t.seen.revisions[task] = a.Revision
		}
		slices.SortFunc(t.seen.assignments, func(a, b record.Assignment) int { return strings.Compare(a.Task, b.Task) })
	}
	if t.seen.observed == nil {
		t.seen.observed = make(map[string]record.Observed, len(t.observed))
		for task, o := range t.observed {
			t.seen.observed[task] = o
		}
	}
	return t.seen
}

// hostsSeen are the hosts as views show them; the cache is locked for writing.
func (c *cache) hostsSeen() seenHosts {
	if c.seenHosts.up == nil {
		c.seenHosts = seenHosts{
			up: make(map[string]bool, len(c.hosts)), names: make(map[string]string, len(c.hosts)),
			lost: map[string]bool{}, leaving: map[string]string{},
		}
		for id, h := range c.hosts {
			_, c.seenHosts.up[id] = c.leases[id]
			c.seenHosts.names[id] = h.Value.Name
			c.seenHosts.lost[id] = c.health[id].Value.State == record.HealthLost && !c.seenHosts.up[id]
			switch h.Value.State {
			case record.HostDraining:
				c.seenHosts.leaving[id] = plan.CauseDrain
			case record.HostRemoving:
				c.seenHosts.leaving[id] = plan.CauseRemove
			}
		}
	}
	return c.seenHosts
}

// touchNetwork notes a change of a network for the application it is of, before
// and after.
func (c *cache) touchNetwork(id string) {
	c.wakes.touch(topicNetworks)
	if n, known := c.networks[id]; known && n.App != "" {
		c.wakes.touch(topicApp(n.App))
	}
}
