package controller

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"

	clientv3 "go.etcd.io/etcd/client/v3"
)

type fence = []clientv3.Cmp

// place asks pkg/placement for hosts. The caller holds c.placing.
//
// An assignment of the application itself that is about to go still counts
// against its host, but its ports do not: its successor may take them.
func (c *Controller) place(app string, missing []plan.Missing) []placement.Decision {
	hosts := c.placementHosts(app, missing)
	requests := make([]placement.Request, len(missing))
	for i, m := range missing {
		r := placement.Request{App: app, Service: m.Service, Slot: m.Slot, Ports: m.Spec.Ports, Host: m.Host}
		if m.Replaces != nil {
			r.Prefer = m.Replaces.Host
		}
		requests[i] = r
	}
	return placement.Place(hosts, requests)
}

func (c *Controller) placementHosts(app string, missing []plan.Missing) []placement.Host {
	leaving := map[string]bool{}
	for _, m := range missing {
		if m.Replaces != nil {
			leaving[m.Replaces.Task] = true
		}
	}
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	byID := map[string]*placement.Host{}
	var hosts []*placement.Host
	for id, h := range c.cache.hosts {
		_, up := c.cache.leases[id]
		_, joined := c.cache.underlays[id] // its network plugin has been up
		up = up && joined
		p := &placement.Host{
			ID: id, Name: h.Value.Name, Up: up, Cordoned: h.Value.State != record.HostActive,
			Labels: h.Value.Labels, Ports: map[string]string{},
		}
		byID[id] = p
		hosts = append(hosts, p)
	}
	for _, a := range c.cache.assignments {
		h := byID[a.Value.Host]
		if h == nil {
			continue
		}
		h.Tasks = append(h.Tasks, placement.Task{App: a.Value.App, Service: a.Value.Service})
		if leaving[a.Value.Task] && a.Value.App == app {
			continue
		}
		for _, p := range a.Value.Container.Ports {
			h.Ports[placement.PortKey(p)] = a.Value.App + "/" + a.Value.Service
		}
	}
	for _, p := range c.cache.published {
		if p.App != app {
			c.publishedOn(hosts, p)
		}
	}
	for id, f := range c.cache.facts {
		h := byID[id]
		if h == nil {
			continue
		}
		for _, key := range f.Listening {
			if _, taken := h.Ports[key]; !taken {
				h.Ports[key] = "another program on the host"
			}
		}
	}
	out := make([]placement.Host, len(hosts))
	for i, h := range hosts {
		out[i] = *h
	}
	return out
}

// assignment makes the task for a replica that has found its host. It begins
// in phase prepare; its gate opens it.
func (c *Controller) assignment(app string, state record.AppState, release int, m plan.Missing, d placement.Decision) record.Assignment {
	spec := m.Spec
	spec.Ports = d.Ports
	spec.Env = append([]string(nil), spec.Env...)
	return record.Assignment{
		Task: newID(), App: app, Release: release, Service: m.Service, Slot: m.Slot, Host: d.Host,
		Phase: record.PhasePrepare, Hash: m.Hash, Restarts: state.Restarts[""] + state.Restarts[m.Service],
		Container: spec, CreatedAt: c.now(),
	}
}

// newID returns 12 random hexadecimal digits.
func newID() string {
	b := make([]byte, 6)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails
	return strings.ToLower(hex.EncodeToString(b))
}
