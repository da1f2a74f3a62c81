package controller

import (
	"context"
	"errors"
	"path"
	"slices"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// membershipEvery is how often every host's membership is compared with
	// what it should be; new hosts are seen at once.
	membershipEvery = 2 * time.Second
	// orphansEvery is how often addresses of services are looked for whose
	// network a host has removed: hosts may not write them.
	orphansEvery = time.Minute
)

// keepMembership tells every host, for as long as this controller leads, where
// controllers and etcd are and which authority the fleet has.
func (c *Controller) keepMembership(ctx context.Context) {
	if c.etcd.auth {
		c.grantHosts(ctx)
	}
	changed := c.cache.wakes.subscribe(topicHosts)
	defer changed.end()
	tick := time.NewTicker(membershipEvery)
	defer tick.Stop()
	var swept time.Time
	for {
		if err := c.tellHosts(ctx); err != nil && !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			c.log.Warn("hosts cannot be told where controllers are, trying again", "error", err)
		}
		if now := c.now(); now.Sub(swept) >= orphansEvery {
			swept = now
			if err := c.sweepServices(ctx); err != nil && !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
				c.log.Warn("addresses of services without a network cannot be removed, trying again", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed.C:
		case <-tick.C:
		}
	}
}

// membership is what hosts are to know.
func (c *Controller) membership() (record.Membership, error) {
	a := c.signer()
	signer, err := ca.Fingerprint(a.Certificate())
	if err != nil {
		return record.Membership{}, err
	}
	m := record.Membership{Etcd: slices.Clone(c.etcd.urls), Controllers: c.controllerURLs(), CA: string(a.Bundle()), Signer: signer}
	if c.etcd.kind == embedded {
		c.cache.mu.RLock()
		for _, o := range c.cache.controllers {
			if u := o.Value.EtcdURL; u != "" && !slices.Contains(m.Etcd, u) {
				m.Etcd = append(m.Etcd, u)
			}
		}
		c.cache.mu.RUnlock()
	}
	slices.Sort(m.Etcd)
	slices.Sort(m.Controllers)
	return m, nil
}

// tellHosts writes the membership of hosts that were told something else.
func (c *Controller) tellHosts(ctx context.Context) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return store.ErrConflict
	}
	want, err := c.membership()
	if err != nil {
		return err
	}
	c.cache.mu.RLock()
	stale := map[string]int64{}
	for id := range c.cache.hosts {
		if had := c.cache.memberships[id]; had.Revision == 0 || !sameMembership(had.Value, want) {
			stale[id] = had.Revision
		}
	}
	c.cache.mu.RUnlock()
	var errs []error
	var last int64
	for id, revision := range stale {
		key := c.store.Keys.HostMembership(id)
		made, err := c.store.Txn(fence...).Exists(c.store.Keys.HostSpec(id)).Unchanged(key, revision).Put(key, want).Commit(ctx)
		last = max(last, made)
		if !errors.Is(err, store.ErrConflict) { // it was removed, or told already
			errs = append(errs, err)
		}
	}
	if last > 0 {
		errs = append(errs, c.cache.wait(ctx, last))
	}
	return errors.Join(errs...)
}

func sameMembership(a, b record.Membership) bool {
	return slices.Equal(a.Etcd, b.Etcd) && slices.Equal(a.Controllers, b.Controllers) && a.CA == b.CA && a.Signer == b.Signer
}

// sweepServices removes the addresses of services in networks that are gone.
func (c *Controller) sweepServices(ctx context.Context) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return store.ErrConflict
	}
	prefix := c.store.Keys.Services()
	r, err := c.etcd.client.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return err
	}
	gone := map[string]bool{}
	c.cache.mu.RLock()
	for _, kv := range r.Kvs {
		id := path.Base(path.Dir(string(kv.Key)))
		if _, ok := c.cache.networks[id]; !ok {
			gone[id] = true
		}
	}
	c.cache.mu.RUnlock()
	var errs []error
	for id := range gone {
		_, err := c.store.Txn(fence...).Absent(c.store.Keys.Network(id)).DeletePrefix(c.store.Keys.NetworkServices(id)).Commit(ctx)
		if !errors.Is(err, store.ErrConflict) { // the network is new
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
