package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Snapshot implements [api.Backend]. Any controller can give one; it is of
// what its member of etcd has.
func (c *Controller) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	// What was written before the call must be in it: this reads through the
	// majority first.
	if _, err := c.etcd.client.Get(ctx, c.store.Keys.Schema()); err != nil {
		return nil, fmt.Errorf("read etcd: %w", err)
	}
	r, err := c.etcd.client.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("take snapshot of etcd: %w", err)
	}
	return r, nil
}

// Restored implements [api.Backend].
func (c *Controller) Restored(ctx context.Context) ([]api.RestoredHost, error) {
	items, err := c.restored(ctx)
	if err != nil {
		return nil, err
	}
	out := []api.RestoredHost{}
	for id, it := range items {
		h := api.RestoredHost{Host: id, ID: it.Value.ID, At: it.Value.At, Snapshot: it.Value.Snapshot, Looked: it.Value.Looked}
		c.cache.mu.RLock()
		if host, ok := c.cache.hosts[id]; ok {
			h.Host = host.Value.Name
		}
		c.cache.mu.RUnlock()
		for _, k := range it.Value.Kept {
			h.Kept = append(h.Kept, api.RestoredTask{
				Task: k.Task, Container: k.Container, Name: k.Name, Application: k.App, Service: k.Service, Why: k.Why,
			})
		}
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b api.RestoredHost) int { return strings.Compare(a.Host, b.Host) })
	return out, nil
}

// restored reads the marks of hosts that have not settled, by host.
func (c *Controller) restored(ctx context.Context) (map[string]store.Item[record.Restored], error) {
	out := map[string]store.Item[record.Restored]{}
	c.cache.mu.RLock()
	var ids []string
	for id := range c.cache.hosts {
		ids = append(ids, id)
	}
	c.cache.mu.RUnlock()
	for _, id := range ids {
		it, err := store.Get[record.Restored](ctx, c.store, c.store.Keys.HostRestored(id))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out[id] = it
	}
	return out, nil
}

// Settle implements [api.Backend].
func (c *Controller) Settle(ctx context.Context) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	items, err := c.restored(ctx)
	if err != nil {
		return err
	}
	for _, it := range items {
		if _, err := c.store.Txn(fence...).Delete(it.Key).Commit(ctx); err != nil {
			return err
		}
	}
	if len(items) > 0 {
		c.emit(ctx, "controller", "settled", c.config.Name, fmt.Sprintf("%d hosts follow the restored state", len(items)))
	}
	return nil
}
