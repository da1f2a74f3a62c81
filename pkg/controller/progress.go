package controller

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
)

// watch calls f with the application's state now and after each change until
// f returns true or an error.
func (c *Controller) watch(ctx context.Context, app string, f func(view) (bool, error)) error {
	changed := c.cache.wakes.subscribe(topicApp(app), topicHosts, topicRoom)
	defer changed.end()
	for {
		began := time.Now()
		if done, err := f(c.view(app)); done || err != nil {
			return err
		}
		pace(ctx, began, progressPace)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed.C:
		}
	}
}

// reporter sends tasks whose state has changed since it last sent them.
type reporter struct {
	c    *Controller
	send func(api.Progress) error
	last map[string]api.Task
}

func (c *Controller) reporter(send func(api.Progress) error) *reporter {
	return &reporter{c: c, send: send, last: map[string]api.Task{}}
}

func (r *reporter) report(v view, release int) error {
	for _, t := range r.c.tasks(v) {
		key := t.ID
		if key == "" { // no host has it
			key = t.Name
		}
		if reflect.DeepEqual(r.last[key], t) {
			continue
		}
		r.last[key] = t
		if err := r.send(api.Progress{Release: release, Task: &t}); err != nil {
			return err
		}
	}
	return nil
}

// Progress implements [api.Backend]: it streams a release until it is done or
// taken back.
func (c *Controller) Progress(ctx context.Context, app string, release int, send func(api.Progress) error) error {
	if c.cache.status(app, release).Revision == 0 {
		return notFound("application %s has no release %d", app, release)
	}
	if err := send(api.Progress{Release: release}); err != nil {
		return err
	}
	rep := c.reporter(send)
	told := 0 // problems told already
	end := ""
	return c.watch(ctx, app, func(v view) (bool, error) {
		if err := rep.report(v, release); err != nil {
			return true, err
		}
		s, known := v.releases[release]
		for ; known && told < len(s.Problems); told++ {
			if err := send(api.Progress{Release: release, Problem: s.Problems[told]}); err != nil {
				return true, err
			}
		}
		switch {
		case s.Phase == record.ReleaseDone:
			return true, send(api.Progress{Release: release, Done: "ok"})
		case s.Phase == record.ReleaseFailed:
			end = "failed"
		case s.Phase == record.ReleaseCancelled:
			end = "cancelled"
		case !known && end == "": // gone with its application
			end = "failed"
		}
		if end == "" {
			return false, nil
		}
		// Not before nothing of it is left and the former release is back.
		if !c.settled(v, release) {
			return false, nil
		}
		return true, send(api.Progress{Release: release, Done: end})
	})
}

// settled reports whether a release that was taken back has left nothing.
func (c *Controller) settled(v view, release int) bool {
	if v.state.Revision == 0 {
		return true
	}
	if v.App.Desired == record.DesiredRemoved {
		return false
	}
	assigned := map[string]bool{}
	for _, a := range v.Assignments {
		assigned[a.Task] = true
		if a.Release == release {
			return false
		}
	}
	for task, o := range v.Observed {
		if !assigned[task] && v.HostUp[o.Host] {
			return false
		}
	}
	return c.asWanted(v)
}

// asWanted reports whether every replica of the current release is in the
// state the user wants, as far as its host can tell.
func (c *Controller) asWanted(v view) bool {
	if v.Release == nil {
		return true
	}
	diff := plan.Current(v.Snapshot)
	if len(diff.Missing) > 0 {
		// What cannot be placed is not waited for: the driver says so.
		for _, p := range c.place(v.App.Name, diff.Missing) {
			if p.Err() == nil {
				return false
			}
		}
	}
	if d := plan.Next(v.Snapshot); len(d.Put)+len(d.Remove) > 0 {
		return false
	}
	for _, a := range diff.Keep {
		o := v.Observed[a.Task]
		if !v.HostUp[a.Host] {
			continue
		}
		if o.Restarts < a.Restarts {
			return false
		}
		switch a.Phase {
		case record.PhaseRun:
			if o.State != record.StateRunning && o.State != record.StateComplete && o.State != record.StateFailed {
				return false
			}
		case record.PhaseStop:
			if o.State != record.StateStopped && o.State != record.StateComplete && o.State != record.StateFailed {
				return false
			}
		}
	}
	return true
}

// watchSteady streams the application until it is as the user wants it.
func (c *Controller) watchSteady(ctx context.Context, app string, send func(api.Progress) error) error {
	rep := c.reporter(send)
	return c.watch(ctx, app, func(v view) (bool, error) {
		if v.state.Revision == 0 {
			return true, notFound("application %s is gone", app)
		}
		if err := rep.report(v, v.App.Release); err != nil {
			return true, err
		}
		if !c.asWanted(v) {
			return false, nil
		}
		failed := false
		for _, t := range c.tasks(v) {
			if t.State == record.StateFailed || t.State == record.StateLost {
				failed = true
				if err := send(api.Progress{Problem: fmt.Sprintf("%s on %s: %s", t.Name, t.Host, t.Error)}); err != nil {
					return true, err
				}
			}
		}
		end := "ok"
		if failed {
			end = "failed"
		}
		return true, send(api.Progress{Release: v.App.Release, Done: end})
	})
}
