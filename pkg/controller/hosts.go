package controller

import (
	"context"
	"errors"
	"fmt"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// RemoveHost implements [api.Backend]. The host takes no new work, its
// replicas are placed elsewhere, then everything of it leaves etcd. With
// force, a host that does not answer is forgotten at once.
func (c *Controller) RemoveHost(ctx context.Context, name string, force bool, send func(api.Progress) error) error {
	id := c.findHost(name)
	if id == "" {
		return notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	if err := c.setHostState(ctx, id, record.HostRemoving); err != nil {
		return err
	}
	if err := c.emptyHost(ctx, id, force, send); err != nil {
		return err
	}
	if err := c.forgetHost(ctx, id); err != nil {
		return err
	}
	c.emit(ctx, "host", "removed", name, "")
	return send(api.Progress{Done: "ok"})
}

func (c *Controller) setHostState(ctx context.Context, id, state string) error {
	fence, _ := c.lead.get()
	it, err := store.Get[record.Host](ctx, c.store, c.store.Keys.HostSpec(id))
	if err != nil {
		return err
	}
	it.Value.State = state
	revision, err := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Put(it.Key, it.Value).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return conflict("host %s is being changed by somebody else: try again", it.Value.Name)
	}
	if err != nil {
		return err
	}
	return c.cache.wait(ctx, revision)
}

// emptyHost takes a host's work away and waits until its agent has.
func (c *Controller) emptyHost(ctx context.Context, id string, force bool, send func(api.Progress) error) error {
	for {
		changed := c.cache.next()
		fence, _ := c.lead.get()
		if fence == nil {
			return unavailable("this controller no longer leads: try again")
		}
		t := c.store.Txn(fence...)
		left := 0
		c.cache.mu.RLock()
		_, up := c.cache.leases[id]
		hostName := c.cache.hosts[id].Value.Name
		for _, a := range c.cache.assignments {
			if a.Value.Host == id && !t.Full() {
				t.Delete(a.Key)
			}
		}
		for _, o := range c.cache.observed {
			if o.Host == id {
				left++
			}
		}
		for network, hosts := range c.cache.uses {
			// One made by hand goes with the host.
			if hosts[id] && c.cache.networks[network].App != "" {
				left++
			}
		}
		c.cache.mu.RUnlock()
		if t.Len() > 0 {
			revision, err := t.Commit(ctx)
			if err != nil {
				return err
			}
			if err := c.cache.wait(ctx, revision); err != nil {
				return err
			}
			continue
		}
		if left == 0 || !up && force {
			return nil
		}
		if !up {
			return conflict("host %s does not answer, so what it runs cannot be taken away: start it, or forget it with --force", hostName)
		}
		if err := send(api.Progress{Step: &api.Step{Action: "remove", Kind: "host", Subject: hostName, Cause: fmt.Sprintf("%d things left on it", left)}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// forgetHost deletes everything of a host from etcd and its right to come
// back.
func (c *Controller) forgetHost(ctx context.Context, id string) error {
	if err := c.revokeHost(ctx, id); err != nil {
		return err
	}
	if err := registry.RemoveHost(ctx, c.store, id); err != nil {
		return err
	}
	fence, _ := c.lead.get()
	k := c.store.Keys
	t := c.store.Txn(fence...).
		DeletePrefix(k.Hosts() + id + "/").DeletePrefix(k.HostAssignments(id)).DeletePrefix(k.HostObserved(id)).
		DeletePrefix(k.HostNames(id)).Delete(k.Underlay(id))
	revision, err := t.Commit(ctx)
	if err != nil {
		return err
	}
	return c.cache.wait(ctx, revision)
}
