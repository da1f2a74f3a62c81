package controller

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
)

// Placement implements [api.Backend]: where replicas are and why, and what each
// host has to say to the next one.
func (c *Controller) Placement(_ context.Context, app, service string) ([]api.ServicePlacement, error) {
	v := c.view(app)
	if v.state.Revision == 0 {
		return nil, notFound("there is no application %s (docker clocker ls shows them)", app)
	}
	if v.Release == nil {
		return nil, conflict("application %s has no release yet: wait until it is deployed", app)
	}
	first := map[string]plan.Template{}
	var names []string
	for _, e := range v.Release.Application.Services() {
		if e.Service != nil {
			names = append(names, e.ID)
		}
	}
	if service != "" {
		if !slices.Contains(names, service) {
			return nil, notFound("application %s has no service %s (it has %s)", app, service, strings.Join(names, ", "))
		}
		names = []string{service}
	}
	for _, t := range v.Templates {
		if t.Slot == 1 {
			first[t.Service] = t
		}
	}
	missing := map[string][]plan.Missing{}
	for _, m := range plan.Current(v.Snapshot).Missing {
		missing[m.Service] = append(missing[m.Service], m)
	}
	out := []api.ServicePlacement{}
	for _, name := range names {
		out = append(out, c.explainService(v, name, first[name], missing[name]))
	}
	return out, nil
}

// explainService is what is to be said of one service. t is its template; the
// zero value when it wants no replica.
func (c *Controller) explainService(v view, name string, t plan.Template, missing []plan.Missing) api.ServicePlacement {
	s := api.ServicePlacement{App: v.App.Name, Service: name, Replicas: []api.ReplicaPlacement{}, Hosts: []api.HostVerdict{}}
	last := 0
	for _, a := range v.Assignments {
		if a.Service != name {
			continue
		}
		last = max(last, a.Slot)
		r := api.ReplicaPlacement{
			Name: a.Container.Name, Slot: a.Slot, Host: cmp.Or(v.Hosts[a.Host], a.Host), State: "waiting", Reason: a.Reason, Cause: a.Cause, Since: a.CreatedAt,
		}
		if o, ok := v.Observed[a.Task]; ok {
			r.State = o.State
		}
		if !v.HostUp[a.Host] {
			r.State = record.StateLost
		}
		s.Replicas = append(s.Replicas, r)
	}
	for _, m := range missing {
		last = max(last, m.Slot)
		s.Replicas = append(s.Replicas, api.ReplicaPlacement{Name: m.Spec.Name, Slot: m.Slot, State: "waiting", Reason: "no host has it yet"})
	}
	slices.SortStableFunc(s.Replicas, func(a, b api.ReplicaPlacement) int { return cmp.Compare(a.Slot, b.Slot) })
	if t.Entity == nil { // a service of no replicas
		s.Next = plan.ContainerName(v.App.Name, name, 1)
		return s
	}
	next := plan.Missing{Template: t}
	if len(missing) > 0 {
		next, s.Missing = missing[0], true
	} else {
		next.Slot = last + 1
	}
	s.Next = plan.ContainerName(v.App.Name, name, next.Slot)
	var leaving []string
	if replaced(next) {
		leaving = append(leaving, next.Replaces.Task)
	}
	c.withRoom(func(r *room) {
		r.without(leaving...)
		s.Hosts = hostVerdicts(r.explain(request(v.App.Name, next)))
	})
	if s.Missing {
		c.sayMissing(&s)
	}
	return s
}

// sayMissing says what keeps replicas from their hosts.
func (c *Controller) sayMissing(s *api.ServicePlacement) {
	fits := 0
	for _, h := range s.Hosts {
		if h.Rank > 0 {
			fits++
		}
	}
	reason := "no host takes it"
	switch {
	case len(s.Hosts) == 0:
		reason = "the fleet has no hosts"
	case fits > 0:
		reason = "it is being placed"
	}
	for i := range s.Replicas {
		if s.Replicas[i].Host == "" {
			s.Replicas[i].Reason = reason
		}
	}
}

// hostVerdicts puts those that fit first, the best first, then the others by
// name.
func hostVerdicts(vs []placement.Verdict) []api.HostVerdict {
	out := make([]api.HostVerdict, len(vs))
	for i, v := range vs {
		h := api.HostVerdict{Host: v.Host, Rank: v.Rank, Filter: v.Filter, Reason: v.Reason}
		for _, p := range v.Score {
			h.Score = append(h.Score, api.ScorePart{Name: p.Name, Value: p.Value, Text: p.Text})
		}
		out[i] = h
	}
	slices.SortStableFunc(out, func(a, b api.HostVerdict) int {
		if (a.Rank > 0) != (b.Rank > 0) {
			return cmp.Compare(b.Rank, a.Rank)
		}
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(a.Host, b.Host))
	})
	return out
}

// refusals are what every host says to a replica that none takes.
func refusals(d placement.Decision) []api.HostVerdict {
	out := make([]api.HostVerdict, len(d.Refusals))
	for i, r := range d.Refusals {
		out[i] = api.HostVerdict{Host: r.Host, Filter: r.Filter, Reason: r.Reason}
	}
	slices.SortStableFunc(out, func(a, b api.HostVerdict) int { return cmp.Compare(a.Host, b.Host) })
	return out
}
