package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// RemoveHost implements [api.Backend]. The host takes no new work, its
// replicas are placed elsewhere, then everything of it leaves etcd. What cannot
// leave is found before anything is changed; refused or interrupted, the host
// is what it was. With force, a host that does not answer is forgotten at once.
func (c *Controller) RemoveHost(ctx context.Context, name string, force bool, send func(api.Progress) error) error {
	id := c.findHost(name)
	if id == "" {
		return notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	c.cache.mu.RLock()
	h := c.cache.hosts[id].Value
	c.cache.mu.RUnlock()
	was := h.State
	if was == record.HostRemoving {
		was = cmp.Or(h.Before, record.HostActive) // an earlier removal did not come to its end
	}
	if !force {
		if err := c.mayEmpty(ctx, id); err != nil {
			if h.State == record.HostRemoving {
				err = errors.Join(err, c.setHostState(ctx, id, was))
			}
			return err
		}
	}
	if err := c.setHostState(ctx, id, record.HostRemoving); err != nil {
		return err
	}
	if err := c.emptyHost(ctx, id, force, send); err != nil {
		return c.unremove(ctx, id, was, err)
	}
	if err := c.forgetHost(ctx, id); err != nil {
		return err
	}
	c.emit(ctx, "host", "removed", name, "")
	return send(api.Progress{Done: "ok"})
}

// mayEmpty says why a host cannot be emptied, as far as that can be seen
// before.
func (c *Controller) mayEmpty(ctx context.Context, id string) error {
	work, _, _ := c.workOf(id)
	name := c.hostName(id)
	if !work.up {
		return silent(name)
	}
	p, err := c.PlanDrain(ctx, name)
	if err != nil {
		return err
	}
	var stay []string
	for _, m := range p.Moves {
		if m.Blocked != "" {
			stay = append(stay, m.Name+": "+m.Blocked)
		}
	}
	if len(stay) > 0 {
		return notEmpty(name, stay)
	}
	return nil
}

func silent(name string) error {
	return conflict("host %s does not answer, so what it runs cannot be taken away: start it, or forget it with --force", name)
}

func notEmpty(name string, stay []string) error {
	return conflictList(fmt.Sprintf("host %s cannot be emptied and stays as it was: make room elsewhere for what follows, or remove its applications; --force takes the host out all the same, and them with it:", name), stay)
}

// unremove makes a host whose removal did not come to its end what it was. One
// that the user has made something else meanwhile stays that, and when this
// controller leads no more, the next removal or host enable sees to it.
func (c *Controller) unremove(ctx context.Context, id, was string, why error) error {
	work, there, _ := c.workOf(id)
	if fence, _ := c.lead.get(); !there || work.state != record.HostRemoving || fence == nil {
		return why
	}
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), unremoveTime)
	defer cancel()
	return errors.Join(why, c.setHostState(after, id, was))
}

const (
	// unremoveTime is how long taking a removal back may take.
	unremoveTime = 10 * time.Second
	// removalPatience is how long a removal waits while something is blocked
	// and nothing leaves the host: room comes and goes while others move.
	removalPatience = 30 * time.Second
)

func (c *Controller) setHostState(ctx context.Context, id, state string) error {
	fence, _ := c.lead.get()
	it, err := store.Get[record.Host](ctx, c.store, c.store.Keys.HostSpec(id))
	if err != nil {
		return err
	}
	switch {
	case state != record.HostRemoving:
		it.Value.Before = ""
	case it.Value.State != record.HostRemoving:
		it.Value.Before = it.Value.State
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

// emptyHost moves a host's work away and waits until its agent has let go of
// it. With force, what cannot move is taken away.
func (c *Controller) emptyHost(ctx context.Context, id string, force bool, send func(api.Progress) error) error {
	changed := c.cache.wakes.subscribe(topicHosts, topicRoom, topicNetworks)
	defer changed.end()
	left, moved, told := -1, time.Now(), ""
	for {
		fence, _ := c.lead.get()
		if fence == nil {
			return unavailable("this controller no longer leads: try again")
		}
		work, _, now := c.workOf(id)
		name := c.hostName(id)
		if !work.up {
			if !force {
				return silent(name)
			}
			return c.takeAway(ctx, work.tasks, fence)
		}
		if work.state != record.HostRemoving {
			return conflict("it was ended: host %s is %s again", name, work.state)
		}
		if force && len(work.tasks) > 0 {
			if err := c.takeAway(ctx, work.tasks, fence); err != nil {
				return err
			}
			continue
		}
		if now += c.usedNetworks(id); now == 0 {
			return nil
		}
		if now != left {
			left, moved = now, time.Now()
		}
		text := fmt.Sprintf("%d things left on it", left)
		if stay := c.mustStay(work.tasks); len(stay) > 0 {
			switch still := time.Since(moved); {
			case still >= removalPatience:
				return notEmpty(name, stay)
			case still >= blockedTime:
				text += "; " + stay[0]
			}
		}
		if text != told {
			told = text
			if err := send(api.Progress{Step: &api.Step{Action: "remove", Kind: "host", Subject: name, Cause: text}}); err != nil {
				return err
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

// takeAway deletes assignments, as many as there are.
func (c *Controller) takeAway(ctx context.Context, tasks map[string]record.Assignment, fence fence) error {
	var last int64
	t := c.store.Txn(fence...)
	flush := func() (err error) {
		if t.Len() > 0 {
			last, err = t.Commit(ctx)
			t = c.store.Txn(fence...)
		}
		return err
	}
	for task, a := range tasks {
		if t.Full() {
			if err := flush(); err != nil {
				return err
			}
		}
		t.Delete(c.store.Keys.Assignment(a.Host, task))
	}
	if err := flush(); err != nil || last == 0 {
		return err
	}
	return c.cache.wait(ctx, last)
}

// usedNetworks counts the networks of applications that a host still has; one
// made by hand goes with the host.
func (c *Controller) usedNetworks(id string) int {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	left := 0
	for network, hosts := range c.cache.uses {
		if hosts[id] && c.cache.networks[network].App != "" {
			left++
		}
	}
	return left
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
