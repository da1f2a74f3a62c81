package controller

import (
	"context"
	"errors"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Machines implements [api.Backend].
func (c *Controller) Machines(context.Context) ([]api.Machine, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := []api.Machine{}
	for _, it := range c.cache.machines {
		out = append(out, c.machineLocked(it.Value))
	}
	slices.SortFunc(out, func(a, b api.Machine) int {
		return strings.Compare(a.Provider+"\x00"+machineName(a.Machine), b.Provider+"\x00"+machineName(b.Machine))
	})
	return out, nil
}

func (c *Controller) machineLocked(m record.Machine) api.Machine {
	out := api.Machine{Machine: m}
	if h, ok := c.cache.hosts[m.Host]; ok {
		out.HostName, out.Status = h.Value.Name, c.hostLocked(m.Host).Status
	}
	return out
}

// ReleaseMachine implements [api.Backend].
func (c *Controller) ReleaseMachine(ctx context.Context, name string) (api.Machine, error) {
	var none api.Machine
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	c.cache.mu.RLock()
	var found []store.Item[record.Machine]
	for id, it := range c.cache.machines {
		if id == name || machineName(it.Value) == name || it.Value.Handle == name || it.Value.Host != "" && c.cache.hosts[it.Value.Host].Value.Name == name {
			found = append(found, it)
		}
	}
	hosts := len(c.cache.hosts)
	c.cache.mu.RUnlock()
	switch {
	case len(found) == 0:
		return none, notFound("no provider was asked for a machine %s (docker clocker provider machines shows them)", name)
	case len(found) > 1:
		return none, conflict("%d machines are called %s: name one by its id", len(found), name)
	case found[0].Value.Host != "" && hosts == 1:
		return none, conflict("machine %s is the fleet's last host: it stays", name)
	}
	m := found[0].Value
	m.Ordered, m.Leave = true, "a user let it go"
	revision, err := c.store.Txn(fence...).Unchanged(found[0].Key, found[0].Revision).Put(found[0].Key, m).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, conflict("machine %s has just changed: try again", name)
	}
	if err != nil {
		return none, err
	}
	if err := c.cache.wait(ctx, revision); err != nil {
		return none, err
	}
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return c.machineLocked(m), nil
}
