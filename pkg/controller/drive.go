package controller

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// drive leads: it keeps one driver for each application and watches hosts
// come and go. It returns when ctx ends.
func (c *Controller) drive(ctx context.Context) error {
	var drivers sync.WaitGroup
	defer drivers.Wait()
	drivers.Go(func() { c.keepServices(ctx) })
	drivers.Go(func() { c.keepHealth(ctx) })
	drivers.Go(func() { c.keepMembership(ctx) })
	drivers.Go(func() { c.keepControllers(ctx) })
	drivers.Go(func() { c.keepScale(ctx) })
	drivers.Go(func() { c.keepRotation(ctx) })
	running := map[string]bool{}
	ended := make(chan string)
	up := map[string]bool{}
	changed := c.cache.wakes.subscribe(topicApps, topicHosts)
	defer changed.end()
	for first := true; ; first = false {
		for _, app := range c.cache.appNames() {
			if running[app] {
				continue
			}
			running[app] = true
			drivers.Go(func() {
				c.driveApp(ctx, app)
				select {
				case ended <- app:
				case <-ctx.Done():
				}
			})
		}
		up = c.hostEvents(ctx, up, first)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case app := <-ended:
			delete(running, app)
		case <-changed.C:
		}
	}
}

// hostEvents tells of hosts that came or went since the last look.
func (c *Controller) hostEvents(ctx context.Context, was map[string]bool, first bool) map[string]bool {
	now := map[string]bool{}
	c.cache.mu.RLock()
	names := map[string]string{}
	for id, h := range c.cache.hosts {
		_, now[id] = c.cache.leases[id]
		names[id] = h.Value.Name
	}
	c.cache.mu.RUnlock()
	for id, up := range now {
		if first || was[id] == up {
			continue
		}
		action, text := "up", ""
		if !up {
			action, text = "down", "its agent does not answer"
		}
		c.log.Info("host is "+action, "host", names[id])
		c.emit(ctx, "host", action, names[id], text)
	}
	return now
}

// driveApp brings one application to what is wanted of it, until it is gone
// or ctx ends. Only decisions of pkg/plan are carried out here.
func (c *Controller) driveApp(ctx context.Context, app string) {
	log := c.log.With("app", app)
	changed := c.cache.wakes.subscribe(topicApp(app), topicHosts)
	defer changed.end()
	room := c.cache.wakes.subscribe(topicRoom)
	defer room.end()
	lastPlacement := ""
	for {
		began := time.Now()
		v := c.view(app)
		if v.state.Revision == 0 {
			return
		}
		d := plan.Next(v.Snapshot)
		revision, err := c.carryOut(ctx, v, d)
		if err == nil {
			c.noteMoves(ctx, app, d)
		}
		wanting := len(d.Missing)+len(d.Moves) > 0
		if err == nil && revision == 0 && wanting {
			var text string
			revision, text, err = c.fillMissing(ctx, app)
			if text != lastPlacement && text != "" {
				log.Warn("replicas cannot be placed", "reason", text)
				c.emit(ctx, "application", "unplaceable", app, text)
			}
			lastPlacement = text
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, store.ErrConflict):
			// Somebody was faster; what they wrote will be seen.
		case err != nil:
			log.Warn("state cannot be written, trying again", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			continue
		case revision > 0:
			if c.cache.wait(ctx, revision) != nil {
				return
			}
			continue
		}
		pace(ctx, began, driverPace)
		// Patience ends without any change.
		again := plan.Patience / 4
		if d.Again > 0 {
			again = min(again, d.Again)
		}
		tick := time.NewTimer(again)
		var roomFor <-chan struct{}
		if wanting {
			roomFor = room.C
		}
		select {
		case <-ctx.Done():
		case <-changed.C:
		case <-roomFor:
		case <-tick.C:
		}
		tick.Stop()
	}
}

// carryOut writes a decision and returns the last revision it made, 0 when
// there was nothing to write. A decision larger than one transaction is
// written in parts with what changes the application's state last, so that
// whoever finds it half written goes on from the same state.
func (c *Controller) carryOut(ctx context.Context, v view, d plan.Decision) (int64, error) {
	fence, _ := c.lead.get()
	if fence == nil {
		return 0, store.ErrConflict
	}
	k := c.store.Keys
	begin := func() *store.Txn { return c.store.Txn(fence...).Unchanged(v.state.Key, v.state.Revision) }
	var last int64
	t := begin()
	flush := func(force bool) error {
		if t.Len() == 0 || !force && !t.Full() {
			return nil
		}
		revision, err := t.Commit(ctx)
		last, t = revision, begin()
		return err
	}
	for _, a := range d.Put {
		key := k.Assignment(a.Host, a.Task)
		if err := flush(false); err != nil {
			return 0, err
		}
		t.Unchanged(key, v.revisions[a.Task]).Put(key, a)
	}
	for _, a := range d.Remove {
		if err := flush(false); err != nil {
			return 0, err
		}
		t.Delete(k.Assignment(a.Host, a.Task))
	}
	for _, o := range d.Forget {
		if err := flush(false); err != nil {
			return 0, err
		}
		c.forgets(t, v, o)
	}
	if d.Phase != "" {
		if err := flush(t.Len() > 80); err != nil {
			return 0, err
		}
		c.setPhase(t, v, d)
	}
	if err := flush(true); err != nil {
		return 0, err
	}
	if d.Phase != "" {
		c.emitPhase(ctx, v, d)
	}
	if d.Finished {
		return c.forget(ctx, v, fence)
	}
	return last, nil
}

// keepReleases is how many releases before the current one are kept.
const keepReleases = 10

// setPhase adds the release's new phase, and what follows from it for the
// application, to a transaction.
func (c *Controller) setPhase(t *store.Txn, v view, d plan.Decision) {
	k, app := c.store.Keys, v.App
	s := v.Status
	s.Phase, s.Problems, s.UpdatedAt = d.Phase, d.Problems, c.now()
	t.Unchanged(v.status.Key, v.status.Revision).Put(v.status.Key, s)
	switch d.Phase {
	case record.ReleaseDone:
		app.Release, app.Pending = app.Pending, 0
		t.Put(v.state.Key, app)
		for _, n := range c.prunable(v, app.Release) {
			t.DeletePrefix(k.Release(app.Name, n))
		}
	case record.ReleaseFailed, record.ReleaseCancelled:
		app.Pending = 0
		if app.Release == 0 { // the first one: nothing of it stays
			app.Desired = record.DesiredRemoved
		}
		t.Put(v.state.Key, app)
	}
}

// prunable lists releases too old to keep, at most ten at a time so that a
// transaction has room.
func (c *Controller) prunable(v view, current int) []int {
	var old []int
	for n := range v.releases {
		if n <= current-keepReleases {
			old = append(old, n)
		}
	}
	sort.Ints(old)
	return old[:min(len(old), 10)]
}

func (c *Controller) emitPhase(ctx context.Context, v view, d plan.Decision) {
	actions := map[string]string{
		record.ReleaseStarting:  "starting",
		record.ReleaseDone:      "deployed",
		record.ReleaseFailed:    "failed",
		record.ReleaseCancelled: "cancelled",
	}
	text := fmt.Sprintf("release %d", v.App.Pending)
	for _, p := range d.Problems {
		text += "; " + p
	}
	c.emit(ctx, "application", actions[d.Phase], v.App.Name, text)
}

// forget removes an application's networks and, when they are gone, its keys.
func (c *Controller) forget(ctx context.Context, v view, fence fence) (int64, error) {
	for _, n := range v.networks {
		if err := registry.Delete(ctx, c.store, n.ID, fence...); err != nil {
			return 0, fmt.Errorf("remove network %s: %w", n.Name, err)
		}
		if err := c.forgetNetwork(ctx, n.ID, fence); err != nil {
			return 0, fmt.Errorf("remove network %s: %w", n.Name, err)
		}
	}
	t := c.store.Txn(fence...).Unchanged(v.state.Key, v.state.Revision).DeletePrefix(c.store.Keys.App(v.App.Name))
	revision, err := t.Commit(ctx)
	if err == nil {
		c.emit(ctx, "application", "removed", v.App.Name, "")
	}
	return revision, err
}

// beginToLead begins a term: it takes back the releases that former leaders were
// still planning, before this one can plan any. What former leaders wrote has
// been seen.
func (c *Controller) beginToLead(ctx context.Context, fence fence) error {
	c.placing.Lock()
	defer c.placing.Unlock()
	c.lead.set(fence, c.url)
	for _, app := range c.cache.appNames() {
		v := c.view(app)
		if v.App.Pending == 0 || v.Status.Phase != record.ReleasePlanning {
			continue
		}
		_, err := c.carryOut(ctx, v, plan.Abandon(v.Snapshot))
		if err != nil {
			return fmt.Errorf("take back release %d of application %s, which its leader has not ended planning: %w", v.App.Pending, app, err)
		}
	}
	return nil
}
