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
)

// maxLabel bounds key and value of a host's label.
const maxLabel = 256

// LabelHost implements [api.Backend]. A change that finds its labels as wanted
// writes nothing.
func (c *Controller) LabelHost(ctx context.Context, name string, change api.LabelChange) (api.Host, error) {
	var none api.Host
	if problems := checkLabels(change); len(problems) > 0 {
		return none, invalid(strings.Join(problems, "; "))
	}
	id := c.findHost(name)
	if id == "" {
		return none, notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	it, err := store.Get[record.Host](ctx, c.store, c.store.Keys.HostSpec(id))
	if errors.Is(err, store.ErrNotFound) {
		return none, notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	if err != nil {
		return none, err
	}
	labels := maps.Clone(it.Value.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, k := range change.Remove {
		delete(labels, k)
	}
	maps.Copy(labels, change.Set)
	if !maps.Equal(labels, it.Value.Labels) {
		it.Value.Labels = labels
		revision, err := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Put(it.Key, it.Value).Commit(ctx)
		if errors.Is(err, store.ErrConflict) {
			return none, conflict("host %s is being changed by somebody else: try again", it.Value.Name)
		}
		if err != nil {
			return none, err
		}
		if err := c.cache.wait(ctx, revision); err != nil {
			return none, err
		}
		c.emit(ctx, "host", "labelled", it.Value.Name, "")
	}
	return c.Host(ctx, id)
}

// checkLabels says what is wrong with a change of labels.
func checkLabels(change api.LabelChange) []string {
	var out []string
	for _, k := range slices.Concat(slices.Sorted(maps.Keys(change.Set)), change.Remove) {
		switch {
		case k == "" || len(k) > maxLabel || strings.ContainsAny(k, "=\n\t "):
			out = append(out, fmt.Sprintf("%q is not the key of a label: no blanks, no =, at most %d characters", k, maxLabel))
		case len(change.Set[k]) > maxLabel || strings.ContainsAny(change.Set[k], "\n"):
			out = append(out, fmt.Sprintf("label %s: a value has one line and at most %d characters", k, maxLabel))
		}
	}
	for _, k := range change.Remove {
		if _, both := change.Set[k]; both {
			out = append(out, fmt.Sprintf("label %s is both set and removed", k))
		}
	}
	if len(change.Set)+len(change.Remove) == 0 {
		out = append(out, "no label is changed")
	}
	return out
}

// tellHealth adds how a host is to what is told of it. It needs the cache's
// lock held, and runs after the lease has been looked at.
func (c *Controller) tellHealth(h *api.Host) {
	if u, ok := c.cache.usage[h.ID]; ok {
		h.Usage = &u
	}
	if it, ok := c.cache.health[h.ID]; ok {
		h.Health = &it.Value
	}
	if h.Status == "ready" && h.State == record.HostDraining {
		h.Status = "draining"
	}
	if h.Health == nil || h.Health.State == "" || h.Health.State == record.HealthReady {
		return
	}
	// A lease that is back says more than what was made of the last one.
	switch h.Status {
	case "down":
		h.Status = h.Health.State
	case "ready", "cordoned", "draining":
		if h.Health.State == record.HealthQuarantined {
			h.Status = h.Health.State
		}
	}
}
