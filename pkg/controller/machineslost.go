package controller

import (
	"context"
	"errors"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// giveUp writes down that a machine goes because its host is lost, unless the
// host has just come back: it takes no work any more in the same moment.
func (s *scaler) giveUp(ctx context.Context, it store.Item[record.Machine], m record.Machine, host string) {
	c := s.c
	c.placing.Lock()
	defer c.placing.Unlock()
	fence, _ := c.lead.get()
	c.cache.mu.RLock()
	h, ok := c.cache.hosts[host]
	c.cache.mu.RUnlock()
	if !ok || fence == nil {
		return // it is looked at again
	}
	spec := h.Value
	if spec.State != record.HostRemoving {
		spec.Before, spec.State = spec.State, record.HostRemoving
	}
	revision, err := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Unchanged(h.Key, h.Revision).
		Absent(c.store.Keys.HostLease(host)).Put(it.Key, m).Put(h.Key, spec).Commit(ctx)
	switch {
	case errors.Is(err, store.ErrConflict), ctx.Err() != nil:
		return // it is looked at again as it is now
	case err != nil:
		c.log.Warn("lost machine cannot be given up, trying again", "machine", machineName(m), "error", err)
		return
	}
	c.emit(ctx, "machine", "lost", machineName(m), m.Leave+": it is given back")
	_ = c.cache.wait(ctx, revision) // only ctx's end ends it
}
