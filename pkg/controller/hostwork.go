package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// CordonHost implements [api.Backend]. It is safe to repeat.
func (c *Controller) CordonHost(ctx context.Context, name string) (api.Host, error) {
	return c.changeHost(ctx, name, record.HostCordoned, "cordoned", "it gets no new work")
}

// EnableHost implements [api.Backend]. A drain ends where it is: successors
// that are not up yet are taken back, what has moved stays where it is. A host
// in quarantine is let out, and that it was lost is forgiven. It is safe to
// repeat.
func (c *Controller) EnableHost(ctx context.Context, name string) (api.Host, error) {
	h, err := c.changeHost(ctx, name, record.HostActive, "enabled", "it takes work again")
	if err != nil {
		return h, err
	}
	id := c.findHost(name)
	fence, _ := c.lead.get()
	c.cache.mu.RLock()
	health, known := c.cache.health[id]
	_, up := c.cache.leases[id]
	c.cache.mu.RUnlock()
	if !known || !up || fence == nil {
		return h, nil
	}
	revision, err := c.store.Txn(fence...).Unchanged(health.Key, health.Revision).Delete(health.Key).Commit(ctx)
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return h, err
	}
	if err == nil {
		if err := c.cache.wait(ctx, revision); err != nil {
			return h, err
		}
	}
	return c.Host(ctx, name)
}

// changeHost sets what the user wants of a host.
func (c *Controller) changeHost(ctx context.Context, name, state, action, text string) (api.Host, error) {
	var none api.Host
	id := c.findHost(name)
	if id == "" {
		return none, notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	c.cache.mu.RLock()
	was := c.cache.hosts[id].Value
	c.cache.mu.RUnlock()
	if was.State == record.HostRemoving && state != record.HostActive {
		return none, conflict("host %s is being removed (docker clocker host enable %s ends that)", was.Name, was.Name)
	}
	if was.State != state {
		if err := c.setHostState(ctx, id, state); err != nil {
			return none, err
		}
		c.emit(ctx, "host", action, was.Name, text)
	}
	return c.Host(ctx, name)
}

// PlanDrain implements [api.Backend].
func (c *Controller) PlanDrain(_ context.Context, name string) (api.DrainPlan, error) {
	id := c.findHost(name)
	if id == "" {
		return api.DrainPlan{}, notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	p := api.DrainPlan{Host: c.hostName(id), Moves: []api.PlannedMove{}}
	for _, app := range c.cache.appNames() {
		v := c.view(app)
		// As if it were being drained, everything at once.
		leaving := map[string]string{id: plan.CauseDrain}
		for h, cause := range v.Leaving {
			leaving[h] = cause
		}
		v.Leaving = leaving
		d := plan.Drain(v.Snapshot, id)
		for _, a := range v.Assignments {
			if why := d.Blocked[a.Task]; why != "" && a.Host == id {
				p.Moves = append(p.Moves, c.plannedMove(a, "", "", why, false))
			}
		}
		missing := make([]plan.Missing, len(d.Moves))
		for i, m := range d.Moves {
			missing[i] = m.Missing
		}
		for i, placed := range c.place(app, missing) {
			m := d.Moves[i]
			if err := placed.Err(); err != nil {
				p.Moves = append(p.Moves, c.plannedMove(*m.Replaces, "", "", err.Error(), m.StopFirst))
				continue
			}
			p.Moves = append(p.Moves, c.plannedMove(*m.Replaces, placed.Host, placed.Reason, "", m.StopFirst))
		}
	}
	slices.SortFunc(p.Moves, func(a, b api.PlannedMove) int { return cmp.Compare(a.Name, b.Name) })
	return p, nil
}

func (c *Controller) plannedMove(a record.Assignment, to, reason, blocked string, stopFirst bool) api.PlannedMove {
	m := api.PlannedMove{
		App: a.App, Service: a.Service, Name: a.Container.Name, Task: a.Task,
		From: c.hostName(a.Host), Reason: reason, Blocked: blocked, StopFirst: stopFirst,
	}
	if to != "" {
		m.To = c.hostName(to)
	}
	return m
}

// DrainHost implements [api.Backend]: the host's work moves away by the rules
// of its services, and the stream ends when nothing is left. The drain itself
// is in the host's state: it goes on when the caller is gone, or the leader.
func (c *Controller) DrainHost(ctx context.Context, name string, send func(api.Progress) error) error {
	if _, err := c.changeHost(ctx, name, record.HostDraining, "draining", "its work moves away"); err != nil {
		return err
	}
	id := c.findHost(name)
	// At once, so that whoever does not want to wait knows that it has begun.
	begun := &api.Step{Action: "drain", Kind: "host", Subject: c.hostName(id), Cause: "its work moves away"}
	if err := send(api.Progress{Step: begun}); err != nil {
		return err
	}
	if err := c.watchEmptying(ctx, id, record.HostDraining, send); err != nil {
		return err
	}
	c.emit(ctx, "host", "drained", c.hostName(id), "nothing is left on it")
	return send(api.Progress{Done: "ok"})
}

// blockedTime is how long what keeps a replica on its host must last to be told:
// room comes and goes while others move.
const blockedTime = 2 * time.Second

// watchEmptying tells how far the work of a host is away until nothing is left.
func (c *Controller) watchEmptying(ctx context.Context, id, state string, send func(api.Progress) error) error {
	changed := c.cache.wakes.subscribe(topicHosts, topicRoom)
	defer changed.end()
	was, told, since := map[string]record.Assignment{}, map[string]string{}, map[string]time.Time{}
	for {
		if fence, _ := c.lead.get(); fence == nil {
			return unavailable("this controller no longer leads: the work goes on, look again with docker clocker host ls")
		}
		now, there, left := c.workOf(id)
		if !there {
			return notFound("the host was removed meanwhile")
		}
		if now.state != state {
			return conflict("it was ended: the host is %s now, and what has moved stays where it is", now.state)
		}
		for task, a := range was {
			if _, still := now.tasks[task]; !still {
				step := &api.Step{Action: "move", Kind: "task", Subject: a.Container.Name, Host: c.whereIs(a), Cause: "it was on " + c.hostName(id)}
				if step.Host == "" {
					step.Action, step.Cause = "remove", "nobody wants it any more" // a deploy
				}
				if err := send(api.Progress{Step: step}); err != nil {
					return err
				}
			}
		}
		was = now.tasks
		if left == 0 {
			return nil
		}
		for task, a := range now.tasks {
			why := c.moving.whyBlocked(a.App, task)
			switch {
			case why == "":
				delete(since, task)
			case since[task].IsZero():
				since[task] = time.Now()
			case told[task] != why && time.Since(since[task]) >= blockedTime:
				told[task] = why
				if err := send(api.Progress{Step: &api.Step{Action: "wait", Kind: "task", Subject: a.Container.Name, Host: c.hostName(id), Cause: why}}); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed.C:
		case <-time.After(time.Second):
		}
	}
}

// hostWork is what a host has to do.
type hostWork struct {
	state string
	up    bool
	tasks map[string]record.Assignment
}

// workOf is a host's work; left counts what is assigned or still reported.
func (c *Controller) workOf(id string) (w hostWork, there bool, left int) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	h, there := c.cache.hosts[id]
	w = hostWork{state: h.Value.State, tasks: map[string]record.Assignment{}}
	_, w.up = c.cache.leases[id]
	for task := range c.cache.onHost[id] {
		w.tasks[task] = c.cache.assignments[task].Value
	}
	left = len(w.tasks)
	for task, o := range c.cache.observed {
		if _, assigned := w.tasks[task]; o.Host == id && !assigned && w.up {
			left++
		}
	}
	return w, there, left
}

// whereIs names the host that has a replica now, or "".
func (c *Controller) whereIs(a record.Assignment) string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for _, b := range c.cache.assignments {
		if x := b.Value; x.App == a.App && x.Service == a.Service && x.Slot == a.Slot && x.Host != a.Host {
			return c.cache.hosts[x.Host].Value.Name
		}
	}
	return ""
}

// mustStay lists what cannot leave a host, with why.
func (c *Controller) mustStay(tasks map[string]record.Assignment) []string {
	var out []string
	for task, a := range tasks {
		if why := c.moving.whyBlocked(a.App, task); why != "" {
			out = append(out, fmt.Sprintf("%s: %s", a.Container.Name, why))
		}
	}
	slices.Sort(out)
	return out
}
