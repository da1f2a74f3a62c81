package controller

import (
	"context"
	"errors"
	"fmt"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/placement/lint"
	"clocker.io/clocker/pkg/store"
)

// PlacementPolicy implements [api.Backend].
func (c *Controller) PlacementPolicy(context.Context) (api.PlacementPolicy, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	it := c.cache.policies.placement
	return api.PlacementPolicy{PlacementPolicy: it.Value, Revision: it.Revision}, nil
}

// SetPlacementPolicy implements [api.Backend]. It holds for what is placed from
// now on: what runs stays where it is.
func (c *Controller) SetPlacementPolicy(ctx context.Context, p api.PlacementPolicy) (api.PlacementPolicy, error) {
	var none api.PlacementPolicy
	problems := lint.Policy(p.Strategies, p.Affinity)
	add := func(bad bool, format string, args ...any) {
		if bad {
			problems = append(problems, fmt.Sprintf(format, args...))
		}
	}
	add(p.MaxContainers < 0, "%d containers on a host cannot be: 0 means no bound", p.MaxContainers)
	add(!(p.MaxCPU >= 0 && p.MaxCPU <= 1), "%g is no share of CPU: 0 (no bound) to 1", p.MaxCPU)
	add(p.KernelReserve.NanoCPUs < 0 || p.KernelReserve.MemoryBytes < 0, "a host cannot keep less than nothing for itself")
	add(p.KernelReserve.PIDs != 0, "processes cannot be reserved")
	if len(problems) > 0 {
		return none, invalid("this cannot be the fleet's placement:", problems...)
	}
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	// Under the lock, so that no decision is made by the old policy and
	// written after the new one.
	c.placing.Lock()
	defer c.placing.Unlock()
	key := c.store.Keys.PlacementPolicy()
	revision, err := c.store.Txn(fence...).Unchanged(key, p.Revision).Put(key, p.PlacementPolicy).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, conflict("the fleet's placement has been changed by somebody else meanwhile: look at it, and try again")
	}
	if err != nil {
		return none, err
	}
	if err := c.cache.wait(ctx, revision); err != nil {
		return none, err
	}
	c.emit(ctx, "controller", "placement", c.fleet, "the fleet's placement has changed")
	p.Revision = revision
	return p, nil
}
