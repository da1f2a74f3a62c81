package plan

import (
	"fmt"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// gate says what a prepared task waits for, or "" when it may run; its link
// variables are then in place. A problem is something that waiting cannot
// solve.
func (n *next) gate(a *record.Assignment) (waits, problem string) {
	if o := n.predecessor(*a); o != "" {
		return o + " to go", ""
	}
	e := n.Release.Application.Entity(a.Service)
	if e == nil || e.Service == nil {
		return "", ""
	}
	for _, d := range e.Service.DependsOn {
		waits, problem := n.dependency(a.Service, d.Entity, d.Condition)
		if waits != "" || problem != "" {
			return waits, problem
		}
	}
	var links []string
	for _, l := range e.Service.Links {
		waits, problem := n.dependency(a.Service, l.Target, model.ConditionStarted)
		if waits != "" || problem != "" {
			return waits, problem
		}
		t := n.Release.Application.Entity(l.Target)
		if t == nil || t.Service == nil || t.Service.Replicas == 0 {
			return "", fmt.Sprintf("%s links to %s, which has no replicas", a.Container.Name, l.Target)
		}
		addr := n.sharedAddress(a.Container.Networks, l.Target)
		if addr == "" {
			return "the address of " + l.Target, ""
		}
		links = append(links, LinkVariables(a.Container.Name, l, LinkTarget{Entity: t, Address: addr})...)
		if l.Alias != l.Target {
			a.Container.ExtraHosts = append(a.Container.ExtraHosts, l.Alias+":"+addr)
		}
	}
	a.Container.Env = mergeEnv(a.Container.Env, links)
	return "", ""
}

// predecessor names the container that a task replaces while it is still
// there, on a host that can still take it away.
func (n *next) predecessor(a record.Assignment) string {
	if exclusive(a.Container) {
		return n.former(a)
	}
	for _, o := range n.Observed {
		if o.Task != a.Task && o.Task != a.Replaces && o.Service == a.Service && o.Slot == a.Slot && n.HostUp[o.Host] && o.Container != "" {
			return "the former " + a.Container.Name
		}
	}
	return ""
}

// dependency says what is missing for target to meet a condition.
func (n *next) dependency(source, target string, c model.Condition) (waits, problem string) {
	for _, a := range n.diff.Keep {
		if a.Service != target {
			continue
		}
		o := n.Observed[a.Task]
		switch c {
		case model.ConditionCompleted:
			if o.State == record.StateFailed {
				return "", fmt.Sprintf("%s waits for %s to complete, but it failed: %s", source, a.Container.Name, o.Error)
			}
			if o.State != record.StateComplete {
				return target + " to complete", ""
			}
		case model.ConditionHealthy:
			if o.State == record.StateRunning && o.Health == "" {
				return "", fmt.Sprintf("%s waits for %s to be healthy, but it has no healthcheck", source, a.Container.Name)
			}
			if o.State != record.StateRunning || o.Health != "healthy" {
				return target + " to be healthy", ""
			}
		default:
			if o.State != record.StateRunning && o.State != record.StateComplete {
				return target + " to start", ""
			}
		}
	}
	for _, m := range n.diff.Missing {
		if m.Service == target {
			return target + " to start", ""
		}
	}
	return "", ""
}

// sharedAddress is the address of target's first replica in the first of the
// given networks that it is in.
func (n *next) sharedAddress(joins []record.NetworkJoin, target string) string {
	for _, a := range n.diff.Keep {
		if a.Service != target {
			continue
		}
		for _, j := range joins {
			if addr := n.Observed[a.Task].Addresses[j.ID]; addr != "" {
				addr, _, _ = strings.Cut(addr, "/")
				return addr
			}
		}
	}
	return ""
}
