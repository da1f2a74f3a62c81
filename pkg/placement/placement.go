// Package placement decides which host runs which replica: filters that say
// why they refuse a host, then scores that order the rest. It is pure: a
// snapshot of hosts and a list of requests in, decisions and reasons out. It
// never talks to anything and keeps nothing between calls.
//
// A decision reserves what it uses at once, so requests placed in one call
// never overbook a host. Callers that place at the same time must be
// serialised, as the leading controller does.
//
// Design page: docs/design/placement.md.
package placement

import (
	"fmt"
	"sort"
	"strings"

	"clocker.io/clocker/pkg/model"
)

// Host is a host as placement sees it.
type Host struct {
	ID, Name string
	// Up means that its agent lives; Cordoned that it takes no new work.
	Up, Cordoned bool
	Labels       map[string]string
	// Ports are taken host ports, "tcp/80" or "tcp/10.0.0.1:80", with who
	// holds them.
	Ports map[string]string
	// Tasks are the replicas assigned to the host.
	Tasks []Task
}

// Task is a replica that a host has already.
type Task struct{ App, Service string }

// Request asks for a host for one replica.
type Request struct {
	App, Service string
	Slot         int
	// Ports are what the replica publishes; HostPort 0 takes any free port.
	Ports []model.Port
	// Host pins to a host by name; empty means any.
	Host string
	// Prefer names a host to stay on, by id, when it is still eligible.
	Prefer string
}

// Decision is a request's outcome. Either Host is set or Refusals is.
type Decision struct {
	Request Request
	// Host is the id of the chosen host.
	Host string
	// Ports are the request's ports with every HostPort decided.
	Ports []model.Port
	// Reason says why the host was chosen.
	Reason string
	// Refusals says for each host why it was not eligible.
	Refusals []Refusal
}

// Refusal is why a filter turned a host away.
type Refusal struct{ Host, Filter, Reason string }

// String renders "h1: port-free: port tcp/80 is taken by web".
func (r Refusal) String() string { return r.Host + ": " + r.Reason }

// Err describes a decision without a host; nil when it has one.
func (d Decision) Err() error {
	if d.Host != "" {
		return nil
	}
	if len(d.Refusals) == 0 {
		return fmt.Errorf("no host for %s.%d: the fleet has no hosts (add one with docker clocker host add)", d.Request.Service, d.Request.Slot)
	}
	parts := make([]string, len(d.Refusals))
	for i, r := range d.Refusals {
		parts[i] = r.String()
	}
	return fmt.Errorf("no host for %s.%d: %s", d.Request.Service, d.Request.Slot, strings.Join(parts, "; "))
}

// DynamicPorts is the range that a HostPort of 0 is taken from. It lies below
// the kernel's ephemeral ports, so outgoing connections never meet it.
const (
	DynamicPortFirst = 30000
	DynamicPortLast  = 32767
)

// Place decides all requests in order. Hosts are not changed.
func Place(hosts []Host, requests []Request) []Decision {
	work := make([]*candidate, len(hosts))
	for i := range hosts {
		work[i] = newCandidate(&hosts[i])
	}
	sort.SliceStable(work, func(i, j int) bool { return work[i].host.Name < work[j].host.Name })
	out := make([]Decision, len(requests))
	for i, r := range requests {
		out[i] = place(work, r)
	}
	return out
}

func place(work []*candidate, r Request) Decision {
	d := Decision{Request: r}
	var best *candidate
	for _, c := range work {
		if f, reason := refuse(c, &r); f != "" {
			d.Refusals = append(d.Refusals, Refusal{Host: c.host.Name, Filter: f, Reason: reason})
			continue
		}
		if best == nil || better(c, best, &r) {
			best = c
		}
	}
	if best == nil {
		return d
	}
	d.Host, d.Refusals = best.host.ID, nil
	d.Reason = explain(best, &r)
	d.Ports = best.reserve(&r)
	return d
}
