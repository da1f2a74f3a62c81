package controller

import (
	"context"
	"errors"
	"fmt"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/headroom"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Headroom implements [api.Backend].
func (c *Controller) Headroom(ctx context.Context) (api.Headroom, error) {
	d := c.scale.latest()
	if d == nil { // nothing is decided: say what would be
		now, _ := headroom.Decide(c.scaleSnapshot(nil).snapshot, headroom.History{})
		d = &now
	}
	machines, err := c.Machines(ctx)
	if err != nil {
		return api.Headroom{}, err
	}
	c.cache.mu.RLock()
	it, providers := c.cache.policies.headroom, len(c.cache.providers)
	c.cache.mu.RUnlock()
	out := api.Headroom{
		Policy: it.Value, Revision: it.Revision, MaxContainers: headroom.MaxContainers(c.placementPolicy()),
		Decision: shownDecision(*d), Providers: providers, Machines: machines,
	}
	out.UpDelay, out.DownDelay = headroom.Delays(it.Value)
	out.LostDelay = headroom.LostDelay(it.Value)
	return out, nil
}

// shownDecision is a decision as the API has it.
func shownDecision(d headroom.Decision) api.HeadroomDecision {
	out := api.HeadroomDecision{
		Hosts: d.Hosts, Coming: d.Coming, Desired: d.Desired, Target: d.Target, Event: d.Event, Reason: d.Reason,
		Rooms: []api.HeadroomRoom{}, Stay: map[string]string{},
	}
	for _, m := range d.Dimensions {
		out.Rooms = append(out.Rooms, api.HeadroomRoom(m))
	}
	for _, l := range d.Stay {
		out.Stay[l.Name] = l.Why
	}
	for _, l := range d.Kept {
		out.Stay[l.Name] = l.Why
	}
	return out
}

// SetHeadroom implements [api.Backend].
func (c *Controller) SetHeadroom(ctx context.Context, r api.HeadroomRequest) (api.Headroom, error) {
	fence, _ := c.lead.get()
	if fence == nil {
		return api.Headroom{}, unavailable("this controller no longer leads: try again")
	}
	if ps := c.headroomProblems(r.Policy); len(ps) > 0 {
		return api.Headroom{}, invalid("headroom cannot be set:", ps...)
	}
	key := c.store.Keys.HeadroomPolicy()
	revision, err := c.store.Txn(fence...).Unchanged(key, r.Revision).Put(key, r.Policy).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return api.Headroom{}, conflict("headroom has just been changed by somebody else: look at it and try again")
	}
	if err != nil {
		return api.Headroom{}, err
	}
	c.emit(ctx, "headroom", "set", c.fleet, "")
	if err := c.cache.wait(ctx, revision); err != nil {
		return api.Headroom{}, err
	}
	c.scale.keep(nil) // what was decided before is no answer
	return c.Headroom(ctx)
}

// RemoveHeadroom implements [api.Backend].
func (c *Controller) RemoveHeadroom(ctx context.Context) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	revision, err := c.store.Txn(fence...).Delete(c.store.Keys.HeadroomPolicy()).Commit(ctx)
	if err != nil {
		return err
	}
	c.emit(ctx, "headroom", "removed", c.fleet, "")
	return c.cache.wait(ctx, revision)
}

// headroomProblems finds everything that is wrong with a policy.
func (c *Controller) headroomProblems(p record.HeadroomPolicy) []string {
	ps := headroom.Check(p)
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for _, w := range c.cache.wants(p.For) {
		if w.Problem != "" {
			ps = append(ps, fmt.Sprintf("room for %s/%s: %s", w.App, w.Service, w.Problem))
		}
	}
	return ps
}
