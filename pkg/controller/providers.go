package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Providers implements [api.Backend].
func (c *Controller) Providers(context.Context) ([]api.Provider, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := []api.Provider{}
	for _, name := range slices.Sorted(maps.Keys(c.cache.providers)) {
		out = append(out, c.providerLocked(name))
	}
	return out, nil
}

// Provider implements [api.Backend].
func (c *Controller) Provider(_ context.Context, name string) (api.Provider, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	if _, ok := c.cache.providers[name]; !ok {
		return api.Provider{}, noProvider(name)
	}
	return c.providerLocked(name), nil
}

func noProvider(name string) error {
	return notFound("there is no provider %s (docker clocker provider ls shows them)", name)
}

// providerLocked describes a provider; the cache is locked.
func (c *Controller) providerLocked(name string) api.Provider {
	p := c.cache.providers[name].Value
	out := api.Provider{
		Name: p.Name, Kind: p.Kind, Machines: p.Machines, InstallEngine: p.InstallEngine, Labels: p.Labels, Config: p.Config,
		Sealed: p.Secret != "", CreatedAt: p.CreatedAt,
	}
	used := map[string]bool{}
	for _, h := range c.cache.hosts {
		used[h.Value.Endpoint] = true
	}
	for _, it := range c.cache.machines {
		m := it.Value
		used[m.Handle] = true
		switch {
		case m.Provider != name:
		case m.State == record.MachineFailed:
			out.Failed++
		case m.State == record.MachineRequested, m.State == record.MachineCreating, m.State == record.MachineAdopting:
			out.Coming++
		default:
			out.Hosts++
		}
	}
	open := c.openProviders()[name]
	if open == nil {
		out.Problem = fmt.Sprintf("this controller does not know providers of kind %s", p.Kind)
		return out
	}
	for _, o := range open.Offers() {
		if !o.Single || !used[o.ID] {
			out.Free++
		}
	}
	return out
}

// AddProvider implements [api.Backend]. Credentials are sealed before they
// reach etcd.
func (c *Controller) AddProvider(ctx context.Context, r api.ProviderRequest) (api.Provider, error) {
	var none api.Provider
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	if ps := providerProblems(r); len(ps) > 0 {
		return none, invalid(fmt.Sprintf("provider %s cannot be added:", r.Name), ps...)
	}
	if ps := c.providerConflicts(r); len(ps) > 0 {
		return none, conflictList(fmt.Sprintf("provider %s cannot be added:", r.Name), ps)
	}
	p := record.Provider{
		Name: r.Name, Kind: r.Kind, Machines: r.Machines, InstallEngine: r.InstallEngine, Labels: r.Labels,
		Config: map[string]string{}, CreatedAt: c.now(),
	}
	if r.CPU > 0 {
		p.Config[location.ConfigCPU] = strconv.FormatInt(r.CPU, 10)
	}
	if r.Memory > 0 {
		p.Config[location.ConfigMemory] = strconv.FormatInt(r.Memory, 10)
	}
	id, err := c.identity()
	if err != nil {
		return none, err
	}
	access := location.Credentials{SSHKey: r.SSHKey, CA: r.CA, Cert: r.Cert, Key: r.Key}
	if p.Secret, err = access.Seal(id); err != nil {
		return none, err
	}
	key := c.store.Keys.Provider(p.Name)
	revision, err := c.store.Txn(fence...).Absent(key).Put(key, p).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, conflict("there is a provider %s already", p.Name)
	}
	if err != nil {
		return none, err
	}
	c.emit(ctx, "provider", "added", p.Name, fmt.Sprintf("%s, %d machines", p.Kind, len(p.Machines)))
	if err := c.cache.wait(ctx, revision); err != nil {
		return none, err
	}
	return c.Provider(ctx, p.Name)
}

// RemoveProvider implements [api.Backend].
func (c *Controller) RemoveProvider(ctx context.Context, name string) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	c.cache.mu.RLock()
	it, ok := c.cache.providers[name]
	seen := c.cache.revision
	t := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Delete(it.Key)
	var used []string
	for _, m := range c.cache.machines {
		switch {
		case m.Value.Provider != name:
		case m.Value.State == record.MachineFailed:
			t.Delete(m.Key)
		default:
			used = append(used, fmt.Sprintf("%s (%s)", machineName(m.Value), m.Value.State))
		}
	}
	c.cache.mu.RUnlock()
	if !ok {
		return noProvider(name)
	}
	if len(used) > 0 {
		slices.Sort(used)
		return conflictList(fmt.Sprintf("provider %s cannot be removed while machines of it are in use: let them go with docker clocker provider release", name), used)
	}
	// No machine was asked for since this was looked at.
	t.If(clientv3.Compare(clientv3.ModRevision(c.store.Keys.Machines()), "<", seen+1).WithPrefix())
	revision, err := t.Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return conflict("machines of provider %s have just changed: try again", name)
	}
	if err != nil {
		return err
	}
	c.emit(ctx, "provider", "removed", name, "")
	return c.cache.wait(ctx, revision)
}
