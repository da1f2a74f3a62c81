package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// RegisterHost implements [api.Backend]. The same engine under the same name
// gets new credentials: adopting a host may be repeated.
func (c *Controller) RegisterHost(ctx context.Context, r api.HostRequest) (api.HostCredentials, error) {
	var none api.HostCredentials
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	id, problems := c.checkHost(r)
	if len(problems) > 0 {
		return none, conflictList(fmt.Sprintf("host %s cannot join fleet %s:", r.Name, c.fleet), problems)
	}
	if id == "" {
		id = newID()
	}
	cert, err := c.signer().IssueHost([]byte(r.CSR), id, []string{r.Address, r.Name})
	if errors.Is(err, ca.ErrRequest) {
		return none, invalid(err.Error())
	}
	if err != nil {
		return none, err
	}
	if err := c.grantHost(ctx, id); err != nil {
		return none, err
	}
	key := c.store.Keys.HostSpec(id)
	c.cache.mu.RLock()
	was := c.cache.hosts[id]
	c.cache.mu.RUnlock()
	h := record.Host{ID: id, Name: r.Name, Endpoint: r.Endpoint, Address: r.Address, Labels: r.Labels, EngineID: r.EngineID, State: record.HostActive, AddedAt: c.now()}
	if was.Revision > 0 {
		// What was decided about the host stays decided.
		h.AddedAt, h.Affinity, h.Provider, h.Machine = was.Value.AddedAt, was.Value.Affinity, was.Value.Provider, was.Value.Machine
		if s := was.Value.State; s == record.HostCordoned || s == record.HostDraining {
			h.State = s
		}
	}
	revision, err := c.store.Txn(fence...).Unchanged(key, was.Revision).Put(key, h).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, conflict("host %s is being changed by somebody else: try again", r.Name)
	}
	if err != nil {
		return none, err
	}
	if was.Revision == 0 {
		c.emit(ctx, "host", "added", r.Name, r.Address)
	}
	return api.HostCredentials{
		ID: id, Fleet: c.fleet, CA: string(c.signer().Bundle()), Certificate: string(cert),
		Etcd: c.etcd.urls, Controllers: c.controllerURLs(),
		EtcdCA: c.etcd.hostCA, EtcdCert: c.etcd.hostCert, EtcdKey: c.etcd.hostKey,
	}, c.cache.wait(ctx, revision)
}

// checkHost returns the id of a host that is known already, and everything
// that speaks against it joining.
func (c *Controller) checkHost(r api.HostRequest) (id string, problems []string) {
	if !hostName.MatchString(r.Name) {
		problems = append(problems, fmt.Sprintf("name %q is not a host name: use a to z, 0 to 9, - and .", r.Name))
	}
	addr, err := netip.ParseAddr(r.Address)
	if err != nil {
		problems = append(problems, fmt.Sprintf("address %q is not an IP address", r.Address))
	}
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for _, h := range c.cache.hosts {
		same := h.Value.EngineID == r.EngineID && r.EngineID != ""
		switch {
		case h.Value.Name == r.Name && same:
			id = h.Value.ID
		case h.Value.Name == r.Name:
			problems = append(problems, fmt.Sprintf("the fleet has another host called %s, at %s: give --name", r.Name, h.Value.Address))
		case same:
			problems = append(problems, fmt.Sprintf("this engine is in the fleet already, as host %s", h.Value.Name))
		case h.Value.Address == r.Address && !addr.IsLoopback():
			problems = append(problems, fmt.Sprintf("host %s has the address %s already: give --address", h.Value.Name, r.Address))
		}
		if addr.IsValid() && h.Value.Name != r.Name {
			if other, err := netip.ParseAddr(h.Value.Address); err == nil && other.IsLoopback() != addr.IsLoopback() {
				problems = append(problems, fmt.Sprintf("host %s is at %s and this one at %s: hosts cannot reach each other over a loopback address", h.Value.Name, h.Value.Address, r.Address))
			}
		}
	}
	for _, text := range r.Routes {
		route, err := netip.ParsePrefix(text)
		if err != nil || route.Bits() == 0 {
			continue
		}
		for _, p := range c.cache.pools {
			// A machine that joins by itself does not know the pools.
			if pool, err := netip.ParsePrefix(p.CIDR); err == nil && pool.Overlaps(route) && id == "" {
				problems = append(problems, fmt.Sprintf("its route to %s meets the fleet's address pool %s: remove the route, or make a fleet with another pool", route, pool))
			}
		}
		for _, n := range c.cache.networks {
			if subnet, err := netip.ParsePrefix(n.Subnet); err == nil && subnet.Overlaps(route) && !route.Contains(addr) {
				if id == "" { // a member's routes into the fleet's networks are ours
					problems = append(problems, fmt.Sprintf("its route to %s meets network %s (%s)", route, n.Name, subnet))
				}
			}
		}
	}
	return id, problems
}
