package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// tries bounds how often a change is made again because somebody else wrote
// in between.
const tries = 5

// changeApp changes an application's state as the leader, never in the middle
// of the planning of a release.
func (c *Controller) changeApp(ctx context.Context, app string, change func(v view, t *store.Txn) error) error {
	c.placing.Lock()
	defer c.placing.Unlock()
	for range tries {
		fence, _ := c.lead.get()
		if fence == nil {
			return unavailable("this controller no longer leads: try again")
		}
		v := c.view(app)
		if v.state.Revision == 0 {
			return notFound("there is no application %s (docker clocker ls shows them)", app)
		}
		t := c.store.Txn(fence...).Unchanged(v.state.Key, v.state.Revision)
		if err := change(v, t); err != nil {
			return err
		}
		revision, err := t.Commit(ctx)
		if errors.Is(err, store.ErrConflict) {
			if err := c.catchUp(ctx, v.state.Key, v.status.Key); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return c.cache.wait(ctx, revision)
	}
	return conflict("application %s keeps being changed by others: try again", app)
}

// catchUp waits until the cache has seen what is written of the keys now. An
// empty one, and one that is gone, is not waited for.
func (c *Controller) catchUp(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if key == "" {
			continue
		}
		r, err := c.etcd.client.Get(ctx, key, clientv3.WithKeysOnly())
		if err != nil {
			return fmt.Errorf("read state: %w", err)
		}
		for _, kv := range r.Kvs {
			if err := c.cache.wait(ctx, kv.ModRevision); err != nil {
				return err
			}
		}
	}
	return nil
}

// Cancel implements [api.Backend]. A release that is done already stays.
func (c *Controller) Cancel(ctx context.Context, app string) error {
	return c.changeApp(ctx, app, func(v view, t *store.Txn) error {
		if v.App.Pending == 0 {
			return conflict("no release of application %s is under way", app)
		}
		s := v.Status
		s.Cancel, s.UpdatedAt = true, c.now()
		t.Unchanged(v.status.Key, v.status.Revision).Put(v.status.Key, s)
		return nil
	})
}

// Remove implements [api.Backend].
func (c *Controller) Remove(ctx context.Context, app string, send func(api.Progress) error) error {
	err := c.changeApp(ctx, app, func(v view, t *store.Txn) error {
		state := v.App
		state.Desired = record.DesiredRemoved
		t.Put(v.state.Key, state)
		return nil
	})
	if err != nil {
		return err
	}
	rep := c.reporter(send)
	return c.watch(ctx, app, func(v view) (bool, error) {
		if v.state.Revision == 0 {
			return true, send(api.Progress{Done: "ok"})
		}
		return false, rep.report(v, 0)
	})
}

// Operate implements [api.Backend].
func (c *Controller) Operate(ctx context.Context, app, operation string, services []string, send func(api.Progress) error) error {
	err := c.changeApp(ctx, app, func(v view, t *store.Txn) error {
		if v.App.Desired == record.DesiredRemoved {
			return conflict("application %s is being removed", app)
		}
		if v.App.Pending != 0 || v.Release == nil {
			return conflict("a release of application %s is under way: wait for it", app)
		}
		all := map[string]bool{}
		for _, e := range v.Release.Application.Services() {
			all[e.ID] = true
		}
		for _, s := range services {
			if !all[s] {
				return notFound("application %s has no service %s (it has %s)", app, s, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
			}
		}
		t.Put(v.state.Key, operated(v.App, operation, services, slices.Sorted(maps.Keys(all))))
		return nil
	})
	if err != nil {
		return err
	}
	c.emit(ctx, "application", operation, app, fmt.Sprint(services))
	return c.watchSteady(ctx, app, send)
}

// operated returns the state after an operation on some services, or on all
// when none is named.
func operated(s record.AppState, operation string, services, all []string) record.AppState {
	stopped := map[string]bool{}
	if s.Desired == record.DesiredStopped {
		for _, name := range all {
			stopped[name] = true
		}
	}
	for _, name := range s.Stopped {
		stopped[name] = true
	}
	if len(services) == 0 {
		services = all
	}
	restarts := maps.Clone(s.Restarts)
	for _, name := range services {
		switch operation {
		case "stop":
			stopped[name] = true
		case "start":
			delete(stopped, name)
		case "restart":
			if stopped[name] { // a stopped one is just started
				delete(stopped, name)
				continue
			}
			if restarts == nil {
				restarts = map[string]int{}
			}
			restarts[name]++
		}
	}
	s.Restarts = restarts
	s.Desired, s.Stopped = record.DesiredRunning, slices.Sorted(maps.Keys(stopped))
	if len(stopped) == len(all) && len(all) > 0 {
		s.Desired, s.Stopped = record.DesiredStopped, nil
	}
	return s
}
