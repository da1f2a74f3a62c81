package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

// ourDriver is the name of the fleet's network driver on every engine.
const ourDriver = "clocker"

// CreateNetwork implements [api.Backend]. Everything that is wrong is said at
// once; when it answers, every host that is heard of has the network or is
// named.
func (c *Controller) CreateNetwork(ctx context.Context, q api.NetworkRequest) (api.NetworkChange, error) {
	var none api.NetworkChange
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	s, err := c.netState(ctx)
	if err != nil {
		return none, err
	}
	asked, problems := s.checkNetwork(&q)
	for _, n := range s.Networks {
		if n.Name == q.Name && q.Name != "" {
			return none, conflictList(fmt.Sprintf("network %s exists already (subnet %s)", q.Name, cmp.Or(n.Subnet, n.Subnet6)), problems)
		}
	}
	if len(problems) > 0 {
		return none, invalid(fmt.Sprintf("network %s cannot be made:", q.Name), problems...)
	}
	n, err := registry.Create(ctx, c.store, c.now(), c.registryRequest(q, asked), fence...)
	switch {
	case errors.Is(err, registry.ErrOverlap), errors.Is(err, registry.ErrPoolExhausted), errors.Is(err, registry.ErrNameTaken):
		return none, conflict("network %s cannot be made: %v", q.Name, err)
	case err != nil:
		return none, err
	}
	c.emit(ctx, "network", "create", n.Name, cmp.Or(n.Subnet, n.Subnet6))
	return api.NetworkChange{Network: n, Behind: c.settle(ctx, n, true)}, ctx.Err()
}

// settle waits until every host that is heard of has a network, or has it no
// more, and names those that have not followed in time.
func (c *Controller) settle(ctx context.Context, n record.Network, present bool) []api.HostBehind {
	ctx, cancel := context.WithTimeout(ctx, api.SettleTime)
	defer cancel()
	c.cache.mu.RLock()
	var ids []string
	for id := range c.cache.hosts {
		ids = append(ids, id)
	}
	c.cache.mu.RUnlock()
	var mu sync.Mutex
	var behind []api.HostBehind
	eachHost(ids, func(id string) {
		if b := c.follow(ctx, n, id, present); b != nil {
			mu.Lock()
			behind = append(behind, *b)
			mu.Unlock()
		}
	})
	slices.SortFunc(behind, func(a, b api.HostBehind) int { return cmp.Compare(a.Host, b.Host) })
	return behind
}

// follow waits for one host; nil when it is as it should be.
func (c *Controller) follow(ctx context.Context, n record.Network, host string, present bool) *api.HostBehind {
	began := c.now()
	for {
		if !c.isUp(host) {
			return &api.HostBehind{Host: c.hostName(host), Down: true, Reason: "does not answer; it follows when it is back"}
		}
		var why string
		if on, err := c.onEngine(ctx, host, n.ID); err != nil {
			why = "cannot be asked: " + err.Error()
		} else if on == present {
			return nil
		}
		if told := c.networkProblem(n.ID, host); told != "" && c.toldAfter(n.ID, host, began.Add(-time.Second)) {
			return &api.HostBehind{Host: c.hostName(host), Reason: told}
		}
		if pause(ctx, lookAgain) != nil {
			return &api.HostBehind{Host: c.hostName(host), Reason: cmp.Or(why, "has not followed within "+api.SettleTime.String())}
		}
	}
}

// onEngine asks a host's agent whether its engine has a network.
func (c *Controller) onEngine(ctx context.Context, host, network string) (bool, error) {
	var all []hostview.EngineNetwork
	if err := c.callHost(ctx, host, http.MethodGet, hostview.AgentNetworks, nil, &all); err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(e hostview.EngineNetwork) bool { return e.ID == network }), nil
}

// toldAfter reports whether a host has told something of a network since.
func (c *Controller) toldAfter(network, host string, since time.Time) bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for _, e := range c.cache.events {
		if e.Type == "network" && e.Attrs["network"] == network && e.Attrs["host"] == host && e.At.After(since) {
			return true
		}
	}
	return false
}
