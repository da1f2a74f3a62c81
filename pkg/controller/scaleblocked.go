package controller

import (
	"slices"

	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
)

// refused lists the placements that are refused: replicas that current
// releases lack, and those that deploys wait for; first is where each wait's
// begin.
func (c *Controller) refused(waits []*hostWait) (all []placement.Request, first []int) {
	for _, app := range c.lacking() {
		v := c.view(app)
		if v.Release == nil || v.App.Pending != 0 || v.App.Desired != record.DesiredRunning {
			continue
		}
		for _, m := range missing(v) {
			if !slices.Contains(v.App.Stopped, m.Service) {
				all = append(all, request(app, m))
			}
		}
	}
	for _, w := range waits {
		first = append(first, len(all))
		all = append(all, w.requests...)
	}
	return all, first
}

// lacking lists the applications that may have fewer replicas than their
// current release wants.
func (c *Controller) lacking() []string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	have := map[string]int{}
	for _, it := range c.cache.assignments {
		a := it.Value
		if a.Replaces != "" {
			if _, both := c.cache.assignments[a.Replaces]; both {
				continue // the one that it succeeds counts
			}
		}
		if c.cache.health[a.Host].Value.State == record.HealthLost && !plan.Waits(a.Container) {
			continue // it is replaced elsewhere
		}
		have[a.App]++
	}
	var out []string
	for name, a := range c.cache.apps {
		st := a.state.Value
		if rel := a.releases[st.Release]; st.Pending == 0 && rel != nil && have[name] < len(rel.templates) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// missing are the replicas that the current release lacks.
func missing(v view) []plan.Missing {
	return plan.Current(v.Snapshot).Missing
}
