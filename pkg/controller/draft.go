package controller

import (
	"encoding/json"
	"fmt"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// draft is a deploy thought through but not written.
type draft struct {
	app     *model.Application
	state   store.Item[record.AppState]
	current *record.Release
	release *record.Release
	diff    plan.Difference
	// failed are those kept tasks that have failed.
	failed map[string]bool
	// newNetworks are the declared networks that do not exist yet.
	newNetworks []*model.Network
	// placed are the decisions for diff.Missing, verdicts what every host has
	// to say to each, when that was asked for.
	placed   []placement.Decision
	verdicts [][]api.HostVerdict
}

// draft plans and places without writing. It refuses what cannot be placed,
// naming every host and its reason.
func (c *Controller) draft(app *model.Application) (*draft, error) {
	d, err := c.think(app, false)
	if err != nil {
		return nil, err
	}
	err = d.unplaced()
	return d, err
}

// unplaced is the error that names every replica without a host.
func (d *draft) unplaced() error {
	var problems []string
	for _, p := range d.placed {
		if err := p.Err(); err != nil {
			problems = append(problems, err.Error())
		}
	}
	if len(problems) > 0 {
		return conflictList(fmt.Sprintf("application %s cannot be placed:", d.app.Name), problems)
	}
	return nil
}

// think plans and places without writing; explain keeps what every host says
// to each new replica.
func (c *Controller) think(app *model.Application, explain bool) (*draft, error) {
	v := c.view(app.Name)
	d := &draft{app: app, state: v.state}
	if v.state.Revision > 0 {
		if v.App.Desired == record.DesiredRemoved {
			return nil, conflict("application %s is being removed: wait until it is gone", app.Name)
		}
		if v.App.Pending != 0 {
			return nil, conflict("release %d of application %s is under way: wait for it, or interrupt the deploy that makes it", v.App.Pending, app.Name)
		}
		d.current = v.Release
	}
	d.release = &record.Release{App: app.Name, Number: v.App.Last + 1, Application: app, Networks: map[string]string{}, CreatedAt: c.now()}
	for _, n := range app.Networks {
		if id := c.networkID(app.Name, n); id != "" {
			d.release.Networks[n.Name] = id
		} else {
			d.newNetworks = append(d.newNetworks, n)
		}
	}
	templates := plan.Templates(c.fleet, d.release)
	d.diff = plan.Diff(templates, d.release.Number, v.Assignments)
	c.displace(app.Name, templates, &d.diff)
	d.failed = map[string]bool{}
	for _, a := range d.diff.Keep {
		if v.Observed[a.Task].State == record.StateFailed {
			d.failed[a.Task] = true
		}
	}
	d.placed, d.verdicts = c.placeAll(app.Name, d.diff.Missing, explain, false)
	return d, nil
}

// dryRun tells what a deploy would do, and why, without doing it.
func (c *Controller) dryRun(app *model.Application, explain bool, send func(api.Progress) error) error {
	d, err := c.think(app, explain)
	if err != nil {
		return err
	}
	for _, s := range d.steps(c.hostName) {
		if err := send(api.Progress{Step: &s}); err != nil {
			return err
		}
	}
	if d.unplaced() != nil {
		if err := send(api.Progress{Problem: fmt.Sprintf("application %s cannot be placed", app.Name)}); err != nil {
			return err
		}
		return send(api.Progress{Done: "conflict"})
	}
	return send(api.Progress{Done: "ok"})
}

// unchanged reports whether the deploy asks for what is there already.
func (d *draft) unchanged() bool {
	if d.current == nil || d.state.Value.Desired != record.DesiredRunning || len(d.state.Value.Stopped) > 0 ||
		len(d.diff.Missing)+len(d.diff.Obsolete)+len(d.newNetworks) > 0 {
		return false
	}
	if len(d.failed) > 0 {
		return false // they are started again
	}
	a, errA := json.Marshal(d.current.Application)
	b, errB := json.Marshal(d.app)
	return errA == nil && errB == nil && string(a) == string(b)
}

// steps describes the draft for a user.
func (d *draft) steps(hostName func(string) string) []api.Step {
	var out []api.Step
	for _, n := range d.newNetworks {
		out = append(out, api.Step{Action: "create", Kind: "network", Subject: networkName(d.app.Name, n), Cause: "it does not exist"})
	}
	for _, a := range d.diff.Keep {
		cause := "it is as the file says"
		if d.failed[a.Task] {
			cause += "; it has failed and is started again"
		}
		out = append(out, api.Step{Action: "keep", Kind: "task", Subject: a.Container.Name, Host: hostName(a.Host), Cause: cause})
	}
	replaced := map[string]bool{}
	for i, m := range d.diff.Missing {
		p := d.placed[i]
		s := api.Step{Action: "create", Kind: "task", Subject: m.Spec.Name, Host: hostName(p.Host), Cause: m.Cause + "; " + p.Reason}
		if m.Replaces != nil {
			s.Action = "replace"
			replaced[m.Replaces.Task] = true
		}
		if p.Host == "" {
			s.Action, s.Cause, s.Hosts = "refuse", m.Cause+"; no host takes it", refusals(p)
		}
		if len(d.verdicts) > 0 {
			s.Hosts = d.verdicts[i]
		}
		out = append(out, s)
	}
	for _, a := range d.diff.Obsolete {
		if !replaced[a.Task] {
			out = append(out, api.Step{Action: "remove", Kind: "task", Subject: a.Container.Name, Host: hostName(a.Host), Cause: "the file no longer has it"})
		}
	}
	return out
}
