package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// RemoveNetwork implements [api.Backend]. It refuses while anything is on the
// network, and names it; else nothing of the network is left.
func (c *Controller) RemoveNetwork(ctx context.Context, name string) (api.NetworkChange, error) {
	var none api.NetworkChange
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	s, err := c.netState(ctx)
	if err != nil {
		return none, err
	}
	n, err := s.find(name)
	if err != nil {
		return none, err
	}
	if n.App != "" {
		return none, conflict("network %s belongs to application %s: docker clocker rm %s removes both", title(n), n.App, n.App)
	}
	if users := c.networkUsers(ctx, s, n); len(users) > 0 {
		return none, conflictList(fmt.Sprintf("network %s is in use:", title(n)), users)
	}
	k := c.store.Keys
	// An endpoint that came meanwhile keeps the network.
	unused := clientv3.Compare(clientv3.CreateRevision(k.Endpoint(n.ID, "")), "=", 0).WithPrefix()
	err = registry.Delete(ctx, c.store, n.ID, append(slices.Clone(fence), unused)...)
	if errors.Is(err, store.ErrConflict) {
		return none, conflict("a container was put on network %s meanwhile: docker clocker network inspect %s shows which", title(n), title(n))
	}
	if err != nil {
		return none, err
	}
	if err := c.forgetNetwork(ctx, n.ID, fence); err != nil {
		return none, err
	}
	c.emit(ctx, "network", "remove", title(n), "")
	return api.NetworkChange{Network: n, Behind: c.settle(ctx, n, false)}, ctx.Err()
}

// forgetNetwork takes away what names a network that is gone.
func (c *Controller) forgetNetwork(ctx context.Context, id string, fence fence) error {
	k := c.store.Keys
	rules, _, err := store.List[record.Rule](ctx, c.store, k.Rules())
	if err != nil {
		return err
	}
	t := c.store.Txn(fence...).DeletePrefix(k.NetworkServices(id)).DeletePrefix(k.NetworkPins(id)).DeletePrefix(k.Attachments() + id + "/")
	for _, it := range rules {
		if it.Value.From != id && it.Value.To != id {
			continue
		}
		if t.Delete(it.Key); t.Full() {
			if _, err := t.Commit(ctx); err != nil {
				return err
			}
			t = c.store.Txn(fence...)
		}
	}
	if t.Len() == 0 {
		return nil
	}
	_, err = t.Commit(ctx)
	return err
}

// networkUsers are who is on a network, one line for each host: containers by
// name, as etcd and the engines know them, and machines.
func (c *Controller) networkUsers(ctx context.Context, s *netState, n record.Network) []string {
	var mu sync.Mutex
	var problems []string
	byHost := map[string]map[string]bool{}
	add := func(host, who string) {
		mu.Lock()
		defer mu.Unlock()
		if byHost[host] == nil {
			byHost[host] = map[string]bool{}
		}
		byHost[host][who] = true
	}
	for _, e := range s.inUse(n.ID, c.replicas(s, n.ID)) {
		if e.Machine {
			continue // named by its attachment
		}
		who := e.Container
		if who == "" {
			who = e.Address
		}
		add(e.Host, who)
	}
	for host := range s.Attached[n.ID] {
		add(s.hostName(host), "the machine itself (docker clocker network detach "+title(n)+" --host "+s.hostName(host)+")")
	}
	var up []string
	for id := range s.hosts {
		if s.up[id] {
			up = append(up, id)
		}
	}
	eachHost(up, func(id string) {
		// Containers that are stopped hold no address and keep the network.
		var all []hostview.EngineNetwork
		if err := c.callHost(ctx, id, http.MethodGet, hostview.AgentNetworks, nil, &all); err != nil {
			mu.Lock()
			problems = append(problems, fmt.Sprintf("host %s cannot be asked whether containers are on it: %v", s.hostName(id), err))
			mu.Unlock()
			return
		}
		for _, e := range all {
			if e.ID == n.ID {
				for _, who := range e.Containers {
					add(s.hostName(id), who)
				}
			}
		}
	})
	for host, who := range byHost {
		problems = append(problems, fmt.Sprintf("on host %s: %s", host, strings.Join(slices.Sorted(maps.Keys(who)), ", ")))
	}
	slices.Sort(problems)
	return problems
}
