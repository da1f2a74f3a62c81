package controller

import (
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// noteGone begins to count for how long a host has had no lease. A host's spec
// is put whenever its state changes: what counts already goes on. The cache is
// locked.
func (c *cache) noteGone(id string) {
	_, there := c.leases[id]
	_, known := c.hosts[id]
	if _, counts := c.leaseGone[id]; known && !there && !counts {
		c.leaseGone[id] = time.Now()
	}
}

// regone begins anew: a host's fence has changed, so it has had a lease since it
// was seen to have none, or is guarded no more. The cache is locked.
func (c *cache) regone(id string) {
	delete(c.leaseGone, id)
	c.seenHosts.up = nil
	c.noteGone(id)
	c.wakes.touch(topicHosts)
}

// gone says of each host that has no lease and an agent with a fence since when
// that is so. The cache is locked for writing.
func (c *cache) gone(now time.Time) map[string]time.Duration {
	var out map[string]time.Duration
	for id, at := range c.leaseGone {
		f, fenced := c.fences[id]
		if _, up := c.leases[id]; up || !fenced || f.Value.Unguarded {
			continue
		}
		if out == nil {
			out = map[string]time.Duration{}
		}
		out[id] = now.Sub(at)
	}
	return out
}

// forgets adds the deletion of reports to a transaction. That of a replica which
// has a fence holds only while its host has no lease, and has taken none since
// the decision was made: the agent may run it again otherwise.
func (c *Controller) forgets(t *store.Txn, v view, o record.Observed) {
	if o.Fence > 0 && v.App.Desired != record.DesiredRemoved {
		k := c.store.Keys
		t.Absent(k.HostLease(o.Host)).Unchanged(k.HostFence(o.Host), v.fences[o.Host])
	}
	t.Delete(c.store.Keys.Observed(o.Host, o.Task))
}
