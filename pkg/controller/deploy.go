package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"time"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement/lint"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Deploy implements [api.Backend]: plan, place, write, then watch it happen.
func (c *Controller) Deploy(ctx context.Context, user string, r api.DeployRequest, send func(api.Progress) error) error {
	app := r.Application
	if ps := c.check(app); len(ps) > 0 {
		return invalid(fmt.Sprintf("application %s cannot be deployed:", app.Name), ps...)
	}
	if ps := c.ingressProblems(app); len(ps) > 0 {
		return conflictList(fmt.Sprintf("application %s cannot publish its ports:", app.Name), ps)
	}
	if r.DryRun {
		return c.dryRun(app, r.Explain, send)
	}
	d, err := c.draftPatiently(ctx, app, send)
	if err != nil {
		return err
	}
	if d.unchanged() {
		return c.watchSteady(ctx, app.Name, send)
	}
	release, err := c.begin(ctx, user, r)
	if err != nil {
		return err
	}
	return c.Progress(ctx, app.Name, release, send)
}

// check finds everything about the model that this fleet cannot do.
func (c *Controller) check(app *model.Application) []string {
	var out []string
	found := model.Validate(app)
	for _, e := range app.Services() {
		if e.Service != nil {
			found = append(found, lint.Service(e.Service.Placement, app.Dialect, "services["+e.ID+"]")...)
		}
	}
	for _, p := range found {
		out = append(out, p.String())
	}
	hosts := map[string]bool{}
	c.cache.mu.RLock()
	for _, h := range c.cache.hosts {
		hosts[h.Value.Name] = true
	}
	names := map[string]string{}
	for id, n := range c.cache.networks {
		names[n.Name] = id
	}
	c.cache.mu.RUnlock()
	location := func(path string, l *model.Location) {
		if l == nil {
			return
		}
		p := model.Problem{Position: l.Position, Path: path}
		switch {
		case l.Kind != "fleet" && l.Kind != "localhost":
			p.Text = fmt.Sprintf("location %q is a %s, and this fleet has only hosts with Docker", l.Name, l.Kind)
			p.Remedy = "name the fleet: " + c.fleet
		case l.Kind == "fleet" && l.Name != "" && l.Name != c.fleet:
			p.Text = fmt.Sprintf("there is no fleet %q", l.Name)
			p.Remedy = "this one is called " + c.fleet
		case l.Host != "" && !hosts[l.Host]:
			p.Text = fmt.Sprintf("fleet %s has no host %q", c.fleet, l.Host)
			p.Remedy = "docker clocker host ls shows them"
		default:
			return
		}
		out = append(out, p.String())
	}
	location("location", app.Location)
	app.Walk(func(_, e *model.Entity) { location("services["+e.ID+"].location", e.Location) })
	for _, n := range app.Networks {
		if n.External && names[n.ExternalName] == "" {
			out = append(out, model.Problem{
				Position: n.Position, Path: "networks." + n.Name,
				Text:   fmt.Sprintf("external network %q does not exist in this fleet", n.ExternalName),
				Remedy: "make it with docker network create -d clocker " + n.ExternalName,
			}.String())
		}
	}
	return out
}

func conflictList(message string, problems []string) error {
	return &api.CallError{Status: 409, Body: api.Error{Message: message, Problems: problems}}
}

// networkName is the name of an application's network on every host.
func networkName(app string, n *model.Network) string {
	if n.External {
		return n.ExternalName
	}
	if n.ExternalName != "" { // a name of its own, not external
		return n.ExternalName
	}
	return app + "_" + n.Name
}

// networkID finds a declared network that exists; "" when it does not.
func (c *Controller) networkID(app string, n *model.Network) string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return c.cache.networkID(app, n)
}

// networkID is [Controller.networkID]; the cache is locked.
func (c *cache) networkID(app string, n *model.Network) string {
	name := networkName(app, n)
	for id, have := range c.networks {
		if have.Name == name && (n.External || have.App == app) {
			return id
		}
	}
	return ""
}

// begin records a release and everything it needs. Before its last write
// nothing is done by anyone; a leader that dies in between leaves a release
// in phase planning, which the next one takes back.
func (c *Controller) begin(ctx context.Context, user string, r api.DeployRequest) (int, error) {
	c.placing.Lock()
	defer c.placing.Unlock()
	fence, _ := c.lead.get()
	if fence == nil {
		return 0, unavailable("this controller no longer leads: try again")
	}
	app := r.Application
	d, err := c.draft(app) // under the lock, so that no port or slot is given twice
	if err != nil {
		return 0, err
	}
	k, n := c.store.Keys, d.release.Number
	d.release.By = user
	state := d.state.Value
	if d.state.Revision == 0 {
		state = record.AppState{Name: app.Name, CreatedAt: c.now()}
	}
	state.Pending, state.Last, state.Desired, state.Stopped = n, n, record.DesiredRunning, nil
	stateKey, statusKey := k.AppCurrent(app.Name), k.ReleaseStatus(app.Name, n)
	status := record.ReleaseStatus{Phase: record.ReleasePlanning, Wait: r.Wait, UpdatedAt: c.now()}
	revision, err := c.store.Txn(fence...).Unchanged(stateKey, d.state.Revision).Put(stateKey, state).Put(statusKey, status).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return 0, conflict("application %s has just been changed by somebody else: deploy again", app.Name)
	}
	var last int64
	if err == nil {
		last, err = c.write(ctx, d, state, revision, status, fence)
	}
	if err != nil {
		c.takeBack(ctx, app.Name, n, status, fence, err)
		return 0, err
	}
	c.emit(ctx, "application", "deploying", app.Name, fmt.Sprintf("release %d", n))
	return n, c.cache.wait(ctx, last)
}

// write makes the networks, decides all over again with their ids, and writes
// the release and its assignments. What moves the release on comes last.
func (c *Controller) write(ctx context.Context, d *draft, state record.AppState, revision int64, status record.ReleaseStatus, fence fence) (int64, error) {
	k, n := c.store.Keys, d.release.Number
	for _, net := range d.newNetworks {
		id, err := c.createNetwork(ctx, d.app.Name, net, fence)
		if err != nil {
			return 0, err
		}
		d.release.Networks[net.Name] = id
	}
	v := c.view(d.app.Name)
	templates := plan.Templates(c.fleet, d.release)
	diff := plan.Diff(templates, n, v.Assignments)
	c.displace(d.app.Name, templates, &diff)
	placed := c.decide(d.app.Name, diff.Missing)
	parts, err := splitRelease(d.release)
	if err != nil {
		return 0, err
	}
	stateKey, statusKey := k.AppCurrent(d.app.Name), k.ReleaseStatus(d.app.Name, n)
	begin := func() *store.Txn { return c.store.Txn(fence...).Unchanged(stateKey, revision) }
	t := begin()
	for i, p := range parts {
		t.Put(k.ReleasePart(d.app.Name, n, i), p)
		if len(parts) > 1 { // each is near what one request takes
			if _, err := t.Commit(ctx); err != nil {
				return 0, err
			}
			t = begin()
		}
	}
	for i, p := range placed {
		if err := p.Err(); err != nil {
			return 0, conflictList(fmt.Sprintf("application %s cannot be placed:", d.app.Name), []string{err.Error()})
		}
		a := c.assignment(d.app.Name, state, n, diff.Missing[i], p)
		t.Put(k.Assignment(a.Host, a.Task), a)
		if t.Full() {
			if _, err := t.Commit(ctx); err != nil {
				return 0, err
			}
			t = begin()
		}
	}
	status.Phase = record.ReleasePreparing
	return t.Put(statusKey, status).Commit(ctx)
}

// takeBackPatience bounds how long a caller whose deploy has failed waits for
// what was written of it to be taken back.
const takeBackPatience = 15 * time.Second

// takeBack ends release n whose writing failed half way with cause: also when
// all of it was written and only the answer was lost, for its caller is told
// that it failed.
func (c *Controller) takeBack(ctx context.Context, app string, n int, status record.ReleaseStatus, fence fence, cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackPatience)
	defer cancel()
	if err := c.tryTakeBack(ctx, app, n, status, fence); err != nil {
		c.log.Error("release cannot be taken back now; the next leader will", "app", app, "release", n, "cause", cause, "error", err)
	}
}

func (c *Controller) tryTakeBack(ctx context.Context, app string, n int, status record.ReleaseStatus, fence fence) error {
	k := c.store.Keys
	state, err := store.Get[record.AppState](ctx, c.store, k.AppCurrent(app))
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && state.Value.Pending != n:
		return nil // it was never begun, or is brought to its end by others
	case err != nil:
		return err
	}
	// What was written must be seen before it can be taken back: one more
	// write comes after all of it, and makes what is still under way too late.
	last, err := c.store.Txn(fence...).Unchanged(state.Key, state.Revision).
		Put(state.Key, state.Value).Put(k.ReleaseStatus(app, n), status).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return nil // another leader has it, and begins its term by taking it back
	}
	if err != nil {
		return err
	}
	if err := c.cache.wait(ctx, last); err != nil {
		return err
	}
	v := c.view(app)
	if last, err = c.carryOut(ctx, v, plan.Abandon(v.Snapshot)); err != nil {
		return err
	}
	return c.cache.wait(ctx, last) // the next deploy must not meet this one
}

// createNetwork makes one of an application's networks.
func (c *Controller) createNetwork(ctx context.Context, app string, n *model.Network, fence fence) (string, error) {
	r, err := networkRequest(app, n)
	if err != nil {
		return "", invalid(err.Error())
	}
	r.Avoid = c.hostRoutes()
	made, err := registry.Create(ctx, c.store, c.now(), r, fence...)
	switch {
	case errors.Is(err, registry.ErrOverlap), errors.Is(err, registry.ErrPoolExhausted):
		return "", conflict("network %s cannot be made: %v", r.Name, err)
	case err != nil:
		return "", err
	}
	return made.ID, nil
}

// hostRoutes are the destinations that hosts reach by routes of their own.
func (c *Controller) hostRoutes() []netip.Prefix {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	seen := map[netip.Prefix]bool{}
	for _, f := range c.cache.facts {
		for _, r := range f.Routes {
			if p, err := netip.ParsePrefix(r); err == nil && p.Bits() > 0 {
				seen[p.Masked()] = true
			}
		}
	}
	out := make([]netip.Prefix, 0, len(seen))
	for p := range seen {
		out = append(out, p)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].String() < out[j].String() })
	return out
}

// hostName is a host's name, or its id when it is not known.
func (c *Controller) hostName(id string) string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	if h, ok := c.cache.hosts[id]; ok {
		return h.Value.Name
	}
	return id
}
