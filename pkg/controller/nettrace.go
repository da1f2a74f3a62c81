package controller

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/trace"
)

// Trace implements [api.Backend]: it collects what etcd and the hosts on the
// way say; package trace does the reasoning.
func (c *Controller) Trace(ctx context.Context, q trace.Query) (trace.Result, error) {
	if problems := checkQuery(q); len(problems) > 0 {
		return trace.Result{}, invalid("this cannot be followed:", problems...)
	}
	s, err := c.netState(ctx)
	if err != nil {
		return trace.Result{}, err
	}
	f, err := c.traceFleet(ctx, s)
	if err != nil {
		return trace.Result{}, err
	}
	p := trace.Prepare(f, q)
	answers := map[trace.Asked]trace.Answer{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, a := range p.Questions() {
		all.Go(func() {
			var v hostview.View
			var answer trace.Answer
			switch {
			case !s.up[a.Host]:
				answer.Error = "its agent has not been heard of"
			default:
				if err := c.callHost(ctx, a.Host, http.MethodPost, hostview.AgentPlugin+hostview.PathTrace, a.Question, &v); err != nil {
					answer.Error = err.Error()
				} else {
					answer.View = &v
				}
			}
			mu.Lock()
			defer mu.Unlock()
			answers[a] = answer
		})
	}
	all.Wait()
	return trace.Follow(f, p, answers), ctx.Err()
}

func checkQuery(q trace.Query) (problems []string) {
	if q.From == "" || q.To == "" {
		problems = append(problems, "two ends are needed: FROM and TO")
	}
	if q.Protocol != "" && !slices.Contains([]string{"tcp", "udp", "icmp"}, q.Protocol) {
		problems = append(problems, fmt.Sprintf("protocol %q is not tcp, udp or icmp", q.Protocol))
	}
	if q.Protocol == "icmp" && q.Port != 0 {
		problems = append(problems, "icmp has no ports")
	}
	return problems
}

// traceFleet is what etcd says, as package trace takes it.
func (c *Controller) traceFleet(ctx context.Context, s *netState) (trace.Fleet, error) {
	f := trace.Fleet{
		Hosts: map[string]trace.Host{}, Networks: s.Networks, Endpoints: s.Endpoints, Services: s.Services,
		Names: s.Names, Attached: s.Attached, Blocks: s.Blocks,
	}
	ids := map[string]string{} // by name
	for id, h := range s.hosts {
		f.Hosts[id] = trace.Host{ID: id, Name: h.Name, Address: h.Address, Up: s.up[id]}
		ids[h.Name] = id
	}
	tasks, err := c.Tasks(ctx, "")
	if err != nil {
		return f, err
	}
	for _, t := range tasks {
		if t.Desired == "remove" {
			continue
		}
		f.Tasks = append(f.Tasks, traceTask(t, ids[t.Host]))
	}
	return f, nil
}

func traceTask(t api.Task, host string) trace.Task {
	x := trace.Task{
		Name: t.Name, App: t.App, Service: t.Service, Host: host,
		State: t.State, Health: t.Health, Error: t.Error, Addresses: t.Addresses,
	}
	if x.Error == "" {
		x.Error = t.Waiting
	}
	return x
}
