package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/rebalance"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// movable is a replica that may move, with what its successor is made from.
type movable struct {
	assignment record.Assignment
	missing    plan.Missing
}

// planRebalance works out which replicas should move.
func (c *Controller) planRebalance(most int) (moves []rebalance.Move, by map[string]movable) {
	by = map[string]movable{}
	var replicas []rebalance.Replica
	for _, app := range c.cache.appNames() {
		v := c.view(app)
		if v.Release == nil || v.App.Pending != 0 || v.App.Desired != record.DesiredRunning {
			continue
		}
		for _, m := range plan.Movable(v.Snapshot) {
			a := *m.Replaces
			q := request(app, m.Missing)
			q.Prefer = ""
			t := placement.Task{ID: a.Task, App: a.App, Service: a.Service, Parent: q.Parent, Type: q.Type, Title: q.Title}
			var ports []string
			for _, p := range a.Container.Ports {
				ports = append(ports, placement.PortKey(p))
			}
			t.Reserve = placement.Reservation(c.placementPolicy(), q.Placement, q.Resources)
			replicas = append(replicas, rebalance.Replica{Task: t, Ports: ports, Host: a.Host, Request: q})
			by[a.Task] = movable{a, m.Missing}
		}
	}
	f := placement.NewFleet(c.placementPolicy(), c.placementHosts("", nil))
	return rebalance.Plan(f, replicas, most), by
}

// PlanRebalance implements [api.Backend].
func (c *Controller) PlanRebalance(_ context.Context, most int) ([]api.PlannedMove, error) {
	moves, by := c.planRebalance(most)
	out := []api.PlannedMove{}
	for _, m := range moves {
		out = append(out, c.plannedMove(by[m.Task].assignment, m.To, m.Gain, "", false))
	}
	return out, nil
}

// Rebalance implements [api.Backend]: one move after the other, start-first.
// When the leader dies, the move under way comes to its end and the others are
// not begun.
func (c *Controller) Rebalance(ctx context.Context, most int, send func(api.Progress) error) error {
	moves, by := c.planRebalance(most)
	failed := 0
	for _, m := range moves {
		r := by[m.Task]
		step := &api.Step{Action: "move", Kind: "task", Subject: r.assignment.Container.Name, Host: c.hostName(m.To), Cause: m.Gain}
		if err := send(api.Progress{Step: step}); err != nil {
			return err
		}
		err := c.moveTo(ctx, r, m)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			if err := send(api.Progress{Problem: fmt.Sprintf("%s stays on %s: %s", r.assignment.Container.Name, c.hostName(m.From), err)}); err != nil {
				return err
			}
		}
	}
	if failed > 0 {
		return send(api.Progress{Done: "failed"})
	}
	return send(api.Progress{Done: "ok"})
}

// moveTo writes a successor and waits for what becomes of it.
func (c *Controller) moveTo(ctx context.Context, r movable, m rebalance.Move) error {
	task, err := c.writeSuccessor(ctx, r, m)
	if err != nil {
		return err
	}
	app := r.assignment.App
	changed := c.cache.wakes.subscribe(topicApp(app))
	defer changed.end()
	for {
		c.cache.mu.RLock()
		_, old := c.cache.assignments[r.assignment.Task]
		_, successor := c.cache.assignments[task]
		c.cache.mu.RUnlock()
		switch {
		case !old:
			return nil
		case !successor:
			return errors.New("its successor did not come up (docker clocker events tells why)")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed.C:
		case <-time.After(time.Second):
		}
	}
}

// writeSuccessor reserves the place and writes the successor, if the replica is
// still what it was.
func (c *Controller) writeSuccessor(ctx context.Context, r movable, m rebalance.Move) (task string, err error) {
	c.placing.Lock()
	defer c.placing.Unlock()
	fence, _ := c.lead.get()
	if fence == nil {
		return "", unavailable("this controller no longer leads: try again")
	}
	a := r.assignment
	missing := r.missing
	missing.Avoid = c.othersThan(m.To)
	d := c.decide(a.App, []plan.Missing{missing})[0]
	if err := d.Err(); err != nil {
		return "", err
	}
	v := c.view(a.App)
	if v.App.Pending != 0 {
		return "", conflict("application %s is being deployed", a.App)
	}
	s := c.assignment(a.App, v.App, v.App.Release, missing, d)
	s.Replaces, s.Cause = a.Task, plan.CauseRebalance
	k := c.store.Keys
	revision, err := c.store.Txn(fence...).
		Unchanged(v.state.Key, v.state.Revision).Unchanged(k.Assignment(a.Host, a.Task), v.revisions[a.Task]).
		Absent(k.Assignment(s.Host, s.Task)).Put(k.Assignment(s.Host, s.Task), s).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return "", conflict("it was changed meanwhile")
	}
	if err != nil {
		return "", err
	}
	return s.Task, c.cache.wait(ctx, revision)
}

// othersThan are all hosts but one.
func (c *Controller) othersThan(host string) []string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	var out []string
	for id := range c.cache.hosts {
		if id != host {
			out = append(out, id)
		}
	}
	return out
}
