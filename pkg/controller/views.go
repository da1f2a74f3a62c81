package controller

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sort"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/version"
)

// Info implements [api.Backend].
func (c *Controller) Info(context.Context) (api.Info, error) {
	_, leader := c.lead.get()
	i := api.Info{
		Fleet: c.fleet, Version: version.Version, Commit: version.Commit,
		Leader: leader, Etcd: c.etcd.urls, EtcdKind: c.etcd.kind, Now: c.now(),
	}
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for _, name := range slices.Sorted(maps.Keys(c.cache.pools)) {
		i.Pools = append(i.Pools, c.cache.pools[name].CIDR)
	}
	i.Hosts, i.Tasks = len(c.cache.hosts), len(c.cache.assignments)
	for id := range c.cache.hosts {
		if _, up := c.cache.leases[id]; up {
			i.HostsUp++
		}
	}
	for _, a := range c.cache.apps {
		if a.state.Revision > 0 {
			i.Apps++
		}
	}
	for _, o := range c.cache.observed {
		if o.State == record.StateRunning {
			i.Running++
		}
	}
	return i, nil
}

// view is what concerns an application, now.
func (c *Controller) view(app string) view {
	v := c.cache.view(app, c.now())
	v.Resting = c.moving.restingOf(v.Now)
	return v
}

// tasks lists an application's replicas as wanted and as seen, sorted by
// service and slot.
func (c *Controller) tasks(v view) []api.Task {
	waiting := plan.Next(v.Snapshot).Waiting
	out := make([]api.Task, 0, len(v.Assignments))
	assigned := make(map[string]bool, len(v.Assignments))
	addresses, ingress := c.hostAddresses(), c.ingressPorts(v.App.Name)
	for _, a := range v.Assignments {
		assigned[a.Task] = true
		t := api.Task{
			ID: a.Task, App: a.App, Service: a.Service, Slot: a.Slot, Name: a.Container.Name, Image: a.Container.Image,
			Host: v.Hosts[a.Host], HostAddress: addresses[a.Host], Desired: a.Phase, Ports: portsOf(a, ingress),
			CreatedAt: a.CreatedAt, State: "waiting", Waiting: waiting[a.Task],
		}
		if o, ok := v.Observed[a.Task]; ok {
			t.State, t.Health, t.Container, t.Addresses = o.State, o.Health, o.Container, o.Addresses
			t.Error, t.ExitCode, t.StartedAt = o.Error, o.ExitCode, o.StartedAt
		}
		if !v.HostUp[a.Host] {
			t.State, t.Error = record.StateLost, "host "+v.Hosts[a.Host]+" does not answer"
		}
		out = append(out, t)
	}
	for task, o := range v.Observed {
		if assigned[task] || !v.HostUp[o.Host] {
			continue
		}
		out = append(out, api.Task{
			ID: task, App: o.App, Service: o.Service, Slot: o.Slot, Name: plan.ContainerName(o.App, o.Service, o.Slot),
			Host: v.Hosts[o.Host], HostAddress: addresses[o.Host], Desired: "remove", State: o.State,
			Container: o.Container, Error: o.Error,
		})
	}
	out = append(out, c.unplaced(v)...)
	slices.SortFunc(out, func(a, b api.Task) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// unplaced lists the replicas of the current release that no host has, each
// with what speaks against every host.
func (c *Controller) unplaced(v view) []api.Task {
	if v.Release == nil || v.App.Pending != 0 || v.App.Desired == record.DesiredRemoved {
		return nil
	}
	missing := plan.Current(v.Snapshot).Missing
	if len(missing) == 0 {
		return nil
	}
	var out []api.Task
	for i, d := range c.place(v.App.Name, missing) {
		m := missing[i]
		t := api.Task{
			App: v.App.Name, Service: m.Service, Slot: m.Slot, Name: m.Spec.Name, Image: m.Spec.Image,
			Desired: record.PhaseRun, State: "waiting", Waiting: "a host",
		}
		if err := d.Err(); err != nil {
			t.Error = err.Error()
		}
		out = append(out, t)
	}
	return out
}

// hostAddresses are the addresses of all hosts, by id.
func (c *Controller) hostAddresses() map[string]string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := make(map[string]string, len(c.cache.hosts))
	for id, h := range c.cache.hosts {
		out[id] = h.Value.Address
	}
	return out
}

// Tasks implements [api.Backend]; an empty name means every application.
func (c *Controller) Tasks(_ context.Context, app string) ([]api.Task, error) {
	names := []string{app}
	if app == "" {
		names = c.cache.appNames()
	} else if c.cache.app(app).Revision == 0 {
		return nil, notFound("there is no application %s (docker clocker ls shows them)", app)
	}
	out := []api.Task{}
	for _, n := range names {
		out = append(out, c.tasks(c.view(n))...)
	}
	return out, nil
}

// Applications implements [api.Backend].
func (c *Controller) Applications(context.Context) ([]api.Application, error) {
	out := []api.Application{}
	for _, n := range c.cache.appNames() {
		out = append(out, c.summary(c.view(n)))
	}
	return out, nil
}

func (c *Controller) summary(v view) api.Application {
	a := api.Application{Name: v.App.Name, Release: v.App.Release, CreatedAt: v.App.CreatedAt, UpdatedAt: v.Status.UpdatedAt}
	if v.Release != nil {
		a.Title, a.Dialect = v.Release.Application.Title, v.Release.Application.Dialect
		for _, e := range v.Release.Application.Services() {
			a.Services++
			a.Replicas += e.Service.Replicas
		}
	}
	good := 0
	for _, r := range replicasOf(c.tasks(v)) {
		if r.runs {
			a.Running++
		}
		if r.good {
			good++
		} else if a.Error == "" {
			a.Error = r.trouble
		}
	}
	switch {
	case v.App.Desired == record.DesiredRemoved:
		a.Status = "removing"
	case v.App.Pending != 0:
		a.Status = "deploying"
	case v.App.Desired == record.DesiredStopped:
		a.Status = "stopped"
	case good >= a.Replicas:
		a.Status = "running"
	case good == 0:
		a.Status = "failed"
	default:
		a.Status = "degraded"
	}
	return a
}

// Application implements [api.Backend].
func (c *Controller) Application(_ context.Context, name string) (api.ApplicationDetail, error) {
	v := c.view(name)
	if v.state.Revision == 0 {
		return api.ApplicationDetail{}, notFound("there is no application %s (docker clocker ls shows them)", name)
	}
	d := api.ApplicationDetail{Application: c.summary(v), Networks: v.networks, Tasks: c.tasks(v), Releases: []api.ReleaseInfo{}}
	if v.App.Release > 0 {
		d.Current = c.cache.release(name, v.App.Release)
	}
	for _, n := range slices.Sorted(maps.Keys(v.releases)) {
		info := api.ReleaseInfo{Number: n, Phase: v.releases[n].Phase, Problems: v.releases[n].Problems}
		if r := c.cache.release(name, n); r != nil {
			info.CreatedAt, info.By = r.CreatedAt, r.By
		}
		d.Releases = append(d.Releases, info)
	}
	return d, nil
}

// Hosts implements [api.Backend].
func (c *Controller) Hosts(context.Context) ([]api.Host, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := []api.Host{}
	for id := range c.cache.hosts {
		out = append(out, c.hostLocked(id))
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// hostLocked needs the cache's lock held.
func (c *Controller) hostLocked(id string) api.Host {
	h := api.Host{Host: c.cache.hosts[id].Value}
	lease, up := c.cache.leases[id]
	facts, known := c.cache.facts[id]
	if known {
		h.Facts = &facts
	}
	underlay, joined := c.cache.underlays[id]
	if joined {
		h.Underlay = &underlay
	}
	switch {
	case h.State == record.HostRemoving:
		h.Status = "removing"
	case !known || up && !joined:
		h.Status = "joining"
	case !up:
		h.Status = "down"
	case h.State == record.HostCordoned:
		h.Status = "cordoned"
	default:
		h.Status = "ready"
	}
	c.tellHealth(&h)
	if up {
		h.Since = lease.Since
	} else if known {
		h.Since = facts.At
	}
	h.Tasks = len(c.cache.onHost[id])
	return h
}

// Host implements [api.Backend]; a host is found by name or id.
func (c *Controller) Host(_ context.Context, name string) (api.Host, error) {
	id := c.findHost(name)
	if id == "" {
		return api.Host{}, notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return c.hostLocked(id), nil
}

func (c *Controller) findHost(name string) string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	if _, ok := c.cache.hosts[name]; ok {
		return name
	}
	for id, h := range c.cache.hosts {
		if h.Value.Name == name {
			return id
		}
	}
	return ""
}
