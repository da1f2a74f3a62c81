package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"clocker.io/clocker/ipam/registry"
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
	cert, err := c.authority.IssueHost([]byte(r.CSR), id, []string{r.Address, r.Name})
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
		h.AddedAt = was.Value.AddedAt
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
		ID: id, Fleet: c.fleet, CA: string(c.authority.Certificate()), Certificate: string(cert),
		Etcd: c.etcd.urls, Controllers: []string{c.url},
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

// RemoveHost implements [api.Backend]. The host takes no new work, its
// replicas are placed elsewhere, then everything of it leaves etcd. With
// force, a host that does not answer is forgotten at once.
func (c *Controller) RemoveHost(ctx context.Context, name string, force bool, send func(api.Progress) error) error {
	id := c.findHost(name)
	if id == "" {
		return notFound("there is no host %s (docker clocker host ls shows them)", name)
	}
	if err := c.setHostState(ctx, id, record.HostRemoving); err != nil {
		return err
	}
	if err := c.emptyHost(ctx, id, force, send); err != nil {
		return err
	}
	if err := c.forgetHost(ctx, id); err != nil {
		return err
	}
	c.emit(ctx, "host", "removed", name, "")
	return send(api.Progress{Done: "ok"})
}

func (c *Controller) setHostState(ctx context.Context, id, state string) error {
	fence, _ := c.lead.get()
	it, err := store.Get[record.Host](ctx, c.store, c.store.Keys.HostSpec(id))
	if err != nil {
		return err
	}
	it.Value.State = state
	revision, err := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Put(it.Key, it.Value).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return conflict("host %s is being changed by somebody else: try again", it.Value.Name)
	}
	if err != nil {
		return err
	}
	return c.cache.wait(ctx, revision)
}

// emptyHost takes a host's work away and waits until its agent has.
func (c *Controller) emptyHost(ctx context.Context, id string, force bool, send func(api.Progress) error) error {
	for {
		changed := c.cache.next()
		fence, _ := c.lead.get()
		if fence == nil {
			return unavailable("this controller no longer leads: try again")
		}
		t := c.store.Txn(fence...)
		left := 0
		c.cache.mu.RLock()
		_, up := c.cache.leases[id]
		hostName := c.cache.hosts[id].Value.Name
		for _, a := range c.cache.assignments {
			if a.Value.Host == id && !t.Full() {
				t.Delete(a.Key)
			}
		}
		for _, o := range c.cache.observed {
			if o.Host == id {
				left++
			}
		}
		for network, hosts := range c.cache.uses {
			// One made by hand goes with the host.
			if hosts[id] && c.cache.networks[network].App != "" {
				left++
			}
		}
		c.cache.mu.RUnlock()
		if t.Len() > 0 {
			revision, err := t.Commit(ctx)
			if err != nil {
				return err
			}
			if err := c.cache.wait(ctx, revision); err != nil {
				return err
			}
			continue
		}
		if left == 0 || !up && force {
			return nil
		}
		if !up {
			return conflict("host %s does not answer, so what it runs cannot be taken away: start it, or forget it with --force", hostName)
		}
		if err := send(api.Progress{Step: &api.Step{Action: "remove", Kind: "host", Subject: hostName, Cause: fmt.Sprintf("%d things left on it", left)}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// forgetHost deletes everything of a host from etcd and its right to come
// back.
func (c *Controller) forgetHost(ctx context.Context, id string) error {
	if err := c.revokeHost(ctx, id); err != nil {
		return err
	}
	if err := registry.RemoveHost(ctx, c.store, id); err != nil {
		return err
	}
	fence, _ := c.lead.get()
	k := c.store.Keys
	t := c.store.Txn(fence...).
		DeletePrefix(k.Hosts() + id + "/").DeletePrefix(k.HostAssignments(id)).DeletePrefix(k.HostObserved(id)).
		DeletePrefix(k.HostNames(id)).Delete(k.Underlay(id))
	revision, err := t.Commit(ctx)
	if err != nil {
		return err
	}
	return c.cache.wait(ctx, revision)
}
