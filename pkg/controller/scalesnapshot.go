package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/headroom"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// manyOffers is how many of an offer that can be given often are weighed at
// once.
const manyOffers = 16

// offer is what a provider could give, with the provider.
type offer struct {
	location.Offer
	provider store.Item[record.Provider]
}

// basis is what a decision about the number of hosts rests on.
type basis struct {
	snapshot headroom.Snapshot
	// offers are those of the snapshot's free machines, by id.
	offers   map[string]offer
	machines []store.Item[record.Machine]
	// hosts are those of machines, by the machines' ids.
	hosts map[string]location.HostSight
	// waits are deploys that wait; first is where each one's placements are
	// among the refused.
	waits []*hostWait
	first []int
	// restsUntil is when a provider that rests may be asked again.
	restsUntil time.Time
}

// scaleSnapshot gathers what a decision about the number of hosts rests on.
func (c *Controller) scaleSnapshot(waits []*hostWait) basis {
	b := basis{waits: waits, hosts: map[string]location.HostSight{}, offers: map[string]offer{}}
	hosts := c.placementHosts("", nil)
	s := &b.snapshot
	s.Now, s.Placement = c.now(), c.placementPolicy()
	s.Blocked, b.first = c.refused(waits)

	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	s.Policy = c.cache.policies.headroom.Value
	s.Wants = c.cache.wants(s.Policy.For)
	b.machines = slices.SortedFunc(maps.Values(c.cache.machines), func(x, y store.Item[record.Machine]) int {
		return strings.Compare(x.Key, y.Key)
	})
	providers := c.openProviders()
	coming := b.match(c.cache)
	for _, h := range hosts {
		if m, way := coming[h.ID]; way && !h.Up {
			_ = m // it counts as a machine on its way until it is up
			continue
		}
		s.Hosts = append(s.Hosts, b.host(c.cache, h))
	}
	slices.SortFunc(s.Hosts, func(x, y headroom.Host) int { return strings.Compare(x.Name, y.Name) })
	e := expected{ports: c.cache.publishedPorts(), capacity: meanCapacity(s.Hosts)}
	for _, it := range b.machines {
		m := it.Value
		switch m.State {
		case record.MachineRequested, record.MachineCreating, record.MachineAdopting:
			if m.Ordered || b.hosts[m.ID].Up {
				continue
			}
			o := offerOf(providers[m.Provider], m.Offer)
			w := headroom.Machine{ID: m.ID, Host: e.host("machine:"+m.ID, machineName(m), o), For: m.For}
			if m.Attempts > 0 {
				s.Trying++
			} else {
				s.Coming = append(s.Coming, w)
			}
		}
	}
	b.free(c.cache, providers, e)
	return b
}

// openProviders opens those of a kind that this program knows; the cache is
// locked.
func (c *Controller) openProviders() map[string]location.Provider {
	open := c.scale.open
	if open == nil {
		open = location.Open
	}
	out := map[string]location.Provider{}
	for name, it := range c.cache.providers {
		if p, err := open(it.Value); err == nil {
			out[name] = p
		}
	}
	return out
}

func offerOf(p location.Provider, id string) location.Offer {
	if p != nil {
		for _, o := range p.Offers() {
			if o.ID == id {
				return o
			}
		}
	}
	return location.Offer{ID: id}
}

// match finds the hosts of machines. It returns the machines that are about
// to become hosts, by those hosts' ids.
func (b *basis) match(c *cache) map[string]string {
	byEndpoint := map[string]string{}
	for id, h := range c.hosts {
		byEndpoint[h.Value.Endpoint] = id
	}
	tasks := map[string]int{}
	for _, a := range c.assignments {
		tasks[a.Value.Host]++
	}
	seen := map[string]int{}
	for _, o := range c.observed {
		seen[o.Host]++
	}
	coming := map[string]string{}
	for _, it := range b.machines {
		m := it.Value
		id := m.Host
		if id == "" && m.Endpoint != "" {
			id = byEndpoint[m.Endpoint]
		}
		h, known := c.hosts[id]
		if !known {
			continue
		}
		up, _, _ := c.takesWork(id)
		b.hosts[m.ID] = location.HostSight{ID: id, State: h.Value.State, Up: up, Tasks: max(tasks[id], seen[id])}
		if m.State == record.MachineAdopting {
			coming[id] = m.ID
		}
	}
	return coming
}

// host is a host as headroom sees it; the cache is locked.
func (b *basis) host(c *cache, h placement.Host) headroom.Host {
	spec := c.hosts[h.ID].Value
	out := headroom.Host{Host: h, AddedAt: spec.AddedAt, Leaving: spec.State == record.HostDraining || spec.State == record.HostRemoving}
	if health := c.health[h.ID].Value; health.State == record.HealthLost && !h.Up {
		out.LostSince = health.Since
	}
	for _, it := range b.machines {
		m := it.Value
		if b.hosts[m.ID].ID != h.ID {
			continue
		}
		out.Machine, out.For = m.ID, m.For
		out.Leaving = out.Leaving || m.State == record.MachineDraining || m.State == record.MachineReleasing || m.Ordered
	}
	return out
}

// wants are the services that room is kept for; the cache is locked.
func (c *cache) wants(fs []record.HeadroomFor) []headroom.Want {
	var out []headroom.Want
	for _, f := range fs {
		w := headroom.Want{App: f.App, Service: f.Service, N: f.N}
		a := c.apps[f.App]
		if a == nil || a.releases[a.state.Value.Release] == nil {
			w.Problem = "there is no application " + f.App
			out = append(out, w)
			continue
		}
		for _, t := range a.releases[a.state.Value.Release].templates {
			if t.Service == f.Service {
				r := request(f.App, plan.Missing{Template: t})
				w.Request = &r
				break
			}
		}
		if w.Request == nil {
			w.Problem = fmt.Sprintf("application %s has no service %s", f.App, f.Service)
		}
		out = append(out, w)
	}
	return out
}
