package controller

import (
	"fmt"
	"slices"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/strategy"
)

// displacing are the filters by which a file says on which hosts a service may
// be at all. A deploy moves a replica from a host that they refuse; what else
// would refuse it there, such as the host's load, leaves it.
var displacing = []string{"pinned", "platform", "constraint", strategy.Label, strategy.Hostname}

// displace makes those of a release's kept replicas missing that are on hosts
// which the release does not allow.
func (c *Controller) displace(app string, all []plan.Template, d *plan.Difference) {
	type slot struct {
		service string
		n       int
	}
	templates := map[slot]plan.Template{}
	for _, t := range all {
		if t.Host != "" || choosy(t.Entity) {
			templates[slot{t.Service, t.Slot}] = t
		}
	}
	if len(templates) == 0 {
		return
	}
	refused := map[string]map[string]string{} // service → host's name → reason
	c.withRoom(func(room *room) {
		for _, a := range d.Keep { // what a replica keeps of its host does not speak against it
			if _, choosy := templates[slot{a.Service, a.Slot}]; choosy {
				room.without(a.Task)
			}
		}
		for at, t := range templates {
			if refused[at.service] != nil {
				continue
			}
			refused[at.service] = map[string]string{}
			for _, v := range room.explain(request(app, plan.Missing{Template: t})) {
				if slices.Contains(displacing, v.Filter) {
					refused[at.service][v.Host] = v.Reason
				}
			}
		}
	})
	d.Keep = slices.DeleteFunc(d.Keep, func(a record.Assignment) bool {
		t, choosy := templates[slot{a.Service, a.Slot}]
		host := c.hostName(a.Host)
		reason := refused[a.Service][host]
		if !choosy || reason == "" {
			return false
		}
		d.Missing = append(d.Missing, plan.Missing{Template: t, Replaces: &a, Cause: fmt.Sprintf("it may no longer be on %s: %s", host, reason)})
		d.Obsolete = append(d.Obsolete, a)
		return true
	})
}

// choosy reports whether a service says on which hosts it may be.
func choosy(e *model.Entity) bool {
	if e == nil || e.Service == nil {
		return false
	}
	p := e.Service.Placement
	return len(p.Constraints) > 0 || p.Platform != "" || slices.ContainsFunc(p.Strategies, func(s model.Strategy) bool {
		return !s.Soft && (s.Name == strategy.Label || s.Name == strategy.Hostname)
	})
}
