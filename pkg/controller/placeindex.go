package controller

import (
	"maps"
	"sync"

	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
)

// touched says what has changed in the cache since placement last looked; the
// cache is locked.
type touched struct {
	// all means everything, ports those of every host, policy the fleet's.
	all, ports, policy bool
	hosts, tasks, apps map[string]bool
}

// key notes a change of a key, given in its parts.
func (t *touched) key(p []string) {
	mark := func(m *map[string]bool, id string) {
		if *m == nil {
			*m = map[string]bool{}
		}
		(*m)[id] = true
	}
	switch {
	case t.all:
	case p[0] == "hosts" && len(p) == 3:
		mark(&t.hosts, p[1])
	case p[0] == "net" && len(p) == 3 && p[1] == "hosts":
		mark(&t.hosts, p[2])
	case p[0] == "net" && len(p) == 3 && p[1] == "published":
		t.ports = true
	case p[0] == "assign" && len(p) == 3:
		mark(&t.tasks, p[2])
	case p[0] == "apps" && len(p) >= 3:
		mark(&t.apps, p[1])
	case p[0] == "policy" && len(p) == 3 && p[2] == "placement":
		t.policy = true
	}
}

// placeIndex keeps one [placement.Fleet] in step with the cache, so that a
// decision costs what has changed rather than what there is.
type placeIndex struct {
	mu sync.Mutex // guards the following fields; taken before the cache's lock
	// fleet is nil before the first use.
	fleet *placement.Fleet
	// tasks are those in fleet, by id, with where and whose they are; onHost
	// and ofApp are the same by host and by application.
	tasks         map[string]taskPlace
	onHost, ofApp map[string]map[string]bool
	// services are those of the releases looked at since the last change of
	// one.
	services map[*record.Release]map[string]*plan.Template
}

type taskPlace struct{ host, app string }

// sync brings the fleet up to date. Both locks are held.
func (x *placeIndex) sync(c *cache) {
	t := c.touched
	c.touched = touched{}
	if x.fleet == nil || t.all || t.policy {
		x.rebuild(c)
		return
	}
	hosts := t.hosts
	if t.ports {
		hosts = map[string]bool{}
		for id := range c.hosts {
			hosts[id] = true
		}
	}
	for id := range hosts {
		x.putHost(c, id)
	}
	if len(t.apps) > 0 {
		x.services = map[*record.Release]map[string]*plan.Template{}
	}
	for id := range t.tasks {
		x.putTask(c, id)
	}
	for app := range t.apps { // what is known of its tasks may have changed
		for id := range maps.Clone(x.ofApp[app]) {
			x.putTask(c, id)
		}
	}
}

func (x *placeIndex) rebuild(c *cache) {
	var turns map[string]uint64
	if x.fleet != nil {
		turns = x.fleet.Turns()
	}
	x.fleet = placement.NewFleet(policyOf(c.policies.placement.Value), nil)
	x.fleet.SetTurns(turns)
	x.fleet.SetRandom(randomBits)
	x.tasks, x.services = map[string]taskPlace{}, map[*record.Release]map[string]*plan.Template{}
	x.onHost, x.ofApp = map[string]map[string]bool{}, map[string]map[string]bool{}
	for id := range c.hosts {
		x.fleet.PutHost(c.placementHost(id, ""))
	}
	for id := range c.assignments {
		x.putTask(c, id)
	}
}

// putHost puts a host as it is now, or takes it out.
func (x *placeIndex) putHost(c *cache, id string) {
	if _, known := c.hosts[id]; !known {
		x.fleet.RemoveHost(id)
		return
	}
	x.fleet.UpdateHost(c.placementHost(id, ""))
	for task := range maps.Clone(x.onHost[id]) { // it may have been taken out before
		x.putTask(c, task)
	}
}

// putTask puts a task as it is now, or takes it out.
func (x *placeIndex) putTask(c *cache, id string) {
	if was, known := x.tasks[id]; known {
		x.fleet.RemoveTask(id)
		delete(x.tasks, id)
		forget(x.onHost, was.host, id)
		forget(x.ofApp, was.app, id)
	}
	it, known := c.assignments[id]
	if !known {
		return
	}
	a := it.Value
	task, ports := c.placementTask(a, x.templateOf(c, a))
	x.fleet.PutTask(a.Host, task, ports)
	x.tasks[id] = taskPlace{a.Host, a.App}
	keep(x.onHost, a.Host, id)
	keep(x.ofApp, a.App, id)
}

func keep(m map[string]map[string]bool, key, id string) {
	if m[key] == nil {
		m[key] = map[string]bool{}
	}
	m[key][id] = true
}

func forget(m map[string]map[string]bool, key, id string) {
	delete(m[key], id)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}

// room is the fleet as one question sees it. What is reserved or taken out
// while it is asked is put back when the question is over: a decision counts
// for others once the assignments that it led to are seen.
type room struct {
	fleet *placement.Fleet
	// made are reservations, gone tasks that were taken out.
	made, gone []string
	// real means that what is decided will be written: breadth-first goes on
	// from there.
	real bool
}

// withRoom asks the fleet something. Whoever writes what comes out of it holds
// c.placing until the cache has seen it.
func (c *Controller) withRoom(ask func(*room)) {
	c.index.mu.Lock()
	defer c.index.mu.Unlock()
	c.cache.mu.Lock()
	c.index.sync(c.cache)
	c.cache.mu.Unlock()
	r := &room{fleet: c.index.fleet}
	turns := r.fleet.Turns()
	ask(r)
	if !r.real {
		r.fleet.SetTurns(turns)
	}
	for _, id := range r.made {
		r.fleet.RemoveTask(id)
	}
	if len(r.gone) > 0 {
		c.cache.mu.RLock()
		defer c.cache.mu.RUnlock()
		for _, id := range r.gone {
			c.index.putTask(c.cache, id)
		}
	}
}

// without takes tasks out that are about to go.
func (r *room) without(tasks ...string) {
	for _, id := range tasks {
		r.fleet.RemoveTask(id)
	}
	r.gone = append(r.gone, tasks...)
}

// place decides, and reserves what it decides.
func (r *room) place(requests []placement.Request) []placement.Decision {
	out := r.fleet.Place(requests)
	for _, d := range out {
		if d.Task != "" {
			r.made = append(r.made, d.Task)
		}
	}
	return out
}

// explain says of every host what speaks for or against it.
func (r *room) explain(q placement.Request) []placement.Verdict { return r.fleet.Explain(q) }

// policyOf is the fleet's policy in placement's terms.
func policyOf(p record.PlacementPolicy) placement.Policy {
	return placement.Policy{
		Strategies: p.Strategies, Affinity: p.Affinity, MaxContainers: p.MaxContainers, MaxCPU: p.MaxCPU, Reserve: p.KernelReserve,
	}
}

// templateOf finds the replica's service as the newest release has it that is
// or becomes current; nil when no release with it is known any more.
func (x *placeIndex) templateOf(c *cache, a record.Assignment) *plan.Template {
	app := c.apps[a.App]
	if app == nil {
		return nil
	}
	state := app.state.Value
	numbers := []int{state.Release, state.Pending, a.Release}
	if a.Release == state.Pending {
		numbers = []int{state.Pending, state.Release}
	}
	for _, n := range numbers {
		rel := app.releases[n]
		if rel == nil || rel.release == nil {
			continue
		}
		known := x.services[rel.release]
		if known == nil {
			known = map[string]*plan.Template{}
			for i := range rel.templates {
				known[rel.templates[i].Service] = &rel.templates[i]
			}
			x.services[rel.release] = known
		}
		if t := known[a.Service]; t != nil {
			return t
		}
	}
	return nil
}
