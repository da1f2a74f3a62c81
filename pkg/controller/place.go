package controller

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"

	clientv3 "go.etcd.io/etcd/client/v3"
)

type fence = []clientv3.Cmp

// place asks pkg/placement for hosts and changes nothing: it is for who wants
// to know where replicas would go.
//
// An assignment of the application itself that is about to go keeps nothing of
// its host: its successor may take it, and starts when it is gone.
func (c *Controller) place(app string, missing []plan.Missing) []placement.Decision {
	out, _ := c.placeAll(app, missing, false, false)
	return out
}

// decide is place for who writes what comes out of it, and holds c.placing
// until the cache has seen it.
func (c *Controller) decide(app string, missing []plan.Missing) []placement.Decision {
	out, _ := c.placeAll(app, missing, false, true)
	return out
}

// placeAll decides. With explain it tells what every host says to each replica
// at the moment of its decision; with real, breadth-first has come round so far.
func (c *Controller) placeAll(app string, missing []plan.Missing, explain, real bool) (out []placement.Decision, verdicts [][]api.HostVerdict) {
	if len(missing) == 0 {
		return nil, nil
	}
	requests := make([]placement.Request, len(missing))
	var leaving []string
	for i, m := range missing {
		requests[i] = request(app, m)
		if replaced(m) {
			leaving = append(leaving, m.Replaces.Task)
		}
	}
	ask := func(r *room) {
		r.real = real
		r.without(leaving...)
		if !explain {
			out = r.place(requests)
			return
		}
		for _, q := range requests {
			verdicts = append(verdicts, hostVerdicts(r.explain(q)))
			out = append(out, r.place([]placement.Request{q})...)
		}
	}
	if c.ownPorts(app, requests) {
		ask(&room{fleet: placement.NewFleet(c.placementPolicy(), c.placementHosts(app, missing))})
	} else {
		c.withRoom(ask)
	}
	return out, verdicts
}

// replaced reports whether what a replica replaces goes before it starts. One
// that moves to another host may run on until its successor is up.
func replaced(m plan.Missing) bool { return m.Replaces != nil && len(m.Avoid) == 0 }

// request is a missing replica in placement's terms.
func request(app string, m plan.Missing) placement.Request {
	r := placement.Request{
		App: app, Service: m.Service, Slot: m.Slot, Ports: m.Spec.Ports, Host: m.Host, Resources: m.Spec.Resources, Avoid: m.Avoid,
	}
	if m.Replaces != nil {
		r.Prefer = m.Replaces.Host
	}
	for _, v := range m.Spec.Mounts {
		if v.Type == model.MountVolume && v.Source != "" {
			r.Volumes = append(r.Volumes, v.Source)
		}
	}
	if e := m.Entity; e != nil {
		r.Parent, r.Type, r.Title = m.Parent, typeOf(e), e.Name
		if e.Service != nil {
			r.Placement = e.Service.Placement
		}
	}
	return r
}

// typeOf is what affinity rules know a service by: its type in a blueprint, its
// image in a compose file.
func typeOf(e *model.Entity) string {
	if e.Type == "" && e.Service != nil {
		return e.Service.Image
	}
	return e.Type
}

// placementTask is an assignment in placement's terms, with the host ports that
// it has. t may be nil; the cache is locked.
func (c *cache) placementTask(a record.Assignment, t *plan.Template) (placement.Task, []string) {
	out := placement.Task{ID: a.Task, App: a.App, Service: a.Service}
	var p model.Placement
	if t != nil && t.Entity != nil {
		out.Parent, out.Type, out.Title = t.Parent, typeOf(t.Entity), t.Entity.Name
		if t.Entity.Service != nil {
			p = t.Entity.Service.Placement
		}
	}
	r := a.Container.Resources
	out.Reserve = placement.Reservation(policyOf(c.policies.placement.Value), p, r)
	if len(r.Devices)+len(r.Generic) > 0 {
		out.Devices, out.Generic = placement.Taken(c.placementHost(a.Host, ""), r)
	}
	var ports []string
	for _, p := range a.Container.Ports {
		ports = append(ports, placement.PortKey(p))
	}
	return out, ports
}

// placementHosts are the hosts with their replicas, for who looks at them all.
func (c *Controller) placementHosts(app string, missing []plan.Missing) []placement.Host {
	leaving := map[string]bool{}
	for _, m := range missing {
		if replaced(m) {
			leaving[m.Replaces.Task] = true
		}
	}
	c.index.mu.Lock()
	defer c.index.mu.Unlock()
	c.cache.mu.Lock()
	defer c.cache.mu.Unlock()
	c.index.sync(c.cache)
	out := make([]placement.Host, 0, len(c.cache.hosts))
	for id := range c.cache.hosts {
		h := c.cache.placementHost(id, app)
		for task := range c.index.onHost[id] {
			a := c.cache.assignments[task].Value
			if leaving[task] && a.App == app {
				continue
			}
			t, ports := c.cache.placementTask(a, c.index.templateOf(c.cache, a))
			h.Tasks = append(h.Tasks, t)
			for _, key := range ports {
				h.Ports[key] = a.App + "/" + a.Service
			}
		}
		out = append(out, h)
	}
	return out
}

// placementPolicy is what holds for the whole fleet.
func (c *Controller) placementPolicy() placement.Policy {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return policyOf(c.cache.policies.placement.Value)
}

// ownPorts reports whether a request is for a port that the application itself
// publishes on every host, which does not keep it from the port. It is rare: a
// port that changes from every host to the replicas' own.
func (c *Controller) ownPorts(app string, requests []placement.Request) bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for _, q := range c.cache.published {
		for _, r := range requests {
			for _, p := range r.Ports {
				if q.App == app && q.Protocol == p.Protocol && q.HostPort == p.HostPort {
					return true
				}
			}
		}
	}
	return false
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
		Container: spec, CreatedAt: c.now(), Reason: d.Reason,
	}
}

// randomBits are for the strategy random.
func randomBits() uint64 {
	var b [8]byte
	rand.Read(b[:]) //nolint:errcheck // crypto/rand.Read never fails
	return binary.LittleEndian.Uint64(b[:])
}

// newID returns 12 random hexadecimal digits.
func newID() string {
	b := make([]byte, 6)
	rand.Read(b) //nolint:errcheck // crypto/rand.Read never fails
	return strings.ToLower(hex.EncodeToString(b))
}
