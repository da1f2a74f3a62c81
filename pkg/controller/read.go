package controller

import (
	"context"
	"sort"
	"time"

	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// wait returns once the cache has seen the revision.
func (c *cache) wait(ctx context.Context, revision int64) error {
	for {
		c.mu.RLock()
		seen, changed := c.revision >= revision && c.revision > 0, c.changed
		c.mu.RUnlock()
		if seen {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// next returns a channel that is closed at the next change. Take it before
// reading, so that no change is missed.
func (c *cache) next() <-chan struct{} {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changed
}

// app returns an application's state; Revision 0 when there is none.
func (c *cache) app(name string) store.Item[record.AppState] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if a := c.apps[name]; a != nil {
		return a.state
	}
	return store.Item[record.AppState]{}
}

// appNames lists the applications, sorted.
func (c *cache) appNames() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []string
	for n, a := range c.apps {
		if a.state.Revision > 0 {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// status returns a release's status; Revision 0 when there is none.
func (c *cache) status(app string, n int) store.Item[record.ReleaseStatus] {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if a := c.apps[app]; a != nil && a.releases[n] != nil {
		return a.releases[n].status
	}
	return store.Item[record.ReleaseStatus]{}
}

// release returns a release, or nil.
func (c *cache) release(app string, n int) *record.Release {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if a := c.apps[app]; a != nil && a.releases[n] != nil {
		return a.releases[n].release
	}
	return nil
}

// view is one application's part of the cache at one revision.
type view struct {
	plan.Snapshot
	state  store.Item[record.AppState]
	status store.Item[record.ReleaseStatus]
	// revisions are the assignments' mod revisions, by task.
	revisions map[string]int64
	// fences are the revisions of the fences of hosts that are gone.
	fences   map[string]int64
	networks []record.Network
	releases map[int]record.ReleaseStatus
}

// view gathers what concerns an application. Its slices and maps are shared
// with other views: they are never changed.
func (c *cache) view(app string, now time.Time) view {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := view{releases: map[int]record.ReleaseStatus{}}
	v.Fleet, v.Now = c.fleet, now
	hosts, tasks := c.hostsSeen(), c.seenOf(app)
	v.HostUp, v.Hosts, v.HostLost, v.Leaving = hosts.up, hosts.names, hosts.lost, hosts.leaving
	v.Assignments, v.revisions, v.Observed = tasks.assignments, tasks.revisions, tasks.observed
	v.Gone = c.gone(time.Now())
	v.fences = make(map[string]int64, len(v.Gone))
	for id := range v.Gone {
		v.fences[id] = c.fences[id].Revision
	}
	for id, n := range c.networks {
		if n.App != app {
			continue
		}
		v.networks = append(v.networks, n)
		for host := range c.uses[id] {
			if v.HostUp[host] {
				v.NetworkUses++
			}
		}
	}
	sort.Slice(v.networks, func(i, j int) bool {
		a, b := v.networks[i], v.networks[j]
		return a.Name < b.Name || a.Name == b.Name && a.ID < b.ID
	})
	a := c.apps[app]
	if a == nil {
		return v
	}
	v.state, v.App = a.state, a.state.Value
	number := v.App.Release
	if v.App.Pending != 0 {
		number = v.App.Pending
	}
	for n, r := range a.releases {
		v.releases[n] = r.status.Value
		if n == number {
			v.status, v.Status, v.Release = r.status, r.status.Value, r.release
			v.Templates = r.templates
		}
	}
	return v
}
