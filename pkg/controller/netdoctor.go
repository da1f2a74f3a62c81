package controller

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/hostview"
)

// Doctor implements [api.Backend]: every host's network plugin and agent, and
// etcd, compare what is with what must be, all at the same time.
func (c *Controller) Doctor(ctx context.Context, q api.DoctorRequest) (api.DoctorReport, error) {
	s, err := c.netState(ctx)
	if err != nil {
		return api.DoctorReport{}, err
	}
	ids, err := s.chosen(q.Hosts)
	if err != nil {
		return api.DoctorReport{}, err
	}
	r := api.DoctorReport{Hosts: []string{}, Findings: []api.Finding{}}
	var mu sync.Mutex
	add := func(host string, fs ...finding.Finding) {
		mu.Lock()
		defer mu.Unlock()
		for _, f := range fs {
			r.Findings = append(r.Findings, api.Finding{Host: host, Finding: f})
		}
	}
	for _, id := range ids {
		r.Hosts = append(r.Hosts, s.hostName(id))
	}
	eachHost(ids, func(id string) { add(s.hostName(id), c.examine(ctx, s, id, q.Fix)...) })
	if len(q.Hosts) == 0 { // what is in etcd is of no one host
		fs, err := c.auditNetworks(ctx, s, q.Fix)
		if err != nil {
			return api.DoctorReport{}, err
		}
		add("", fs...)
	}
	slices.SortStableFunc(r.Findings, func(a, b api.Finding) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Part, b.Part), cmp.Compare(a.Subject, b.Subject))
	})
	return r, ctx.Err()
}

// chosen are the hosts that are named, by id; all when none is.
func (s *netState) chosen(names []string) ([]string, error) {
	if len(names) == 0 {
		return s.hostIDs(), nil
	}
	var ids []string
	for _, name := range names {
		i := slices.IndexFunc(s.hostIDs(), func(id string) bool { return s.hosts[id].Name == name || id == name })
		if i < 0 {
			return nil, notFound("there is no host %s (docker clocker host ls shows them)", name)
		}
		if id := s.hostIDs()[i]; !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// examine asks one host's plugin and agent at the same time. One that does not
// answer is a finding too.
func (c *Controller) examine(ctx context.Context, s *netState, id string, fix bool) []finding.Finding {
	if !s.up[id] {
		return []finding.Finding{{
			Part: "host", Subject: s.hostName(id), Text: "the host does not answer: its agent has not been heard of",
			Hint: "start the host, or look at docker logs clocker-agent there; docker clocker host rm --force gives it up",
		}}
	}
	type part struct{ name, path, hint string }
	parts := []part{
		{"agent", hostview.AgentCheck, "look at docker logs clocker-agent on the host"},
		{"plugin", hostview.AgentPlugin + hostview.PathCheck, "look at docker plugin ls on the host, and enable clocker-net"},
	}
	found := make([][]finding.Finding, len(parts))
	var all sync.WaitGroup
	for i, p := range parts {
		all.Go(func() {
			err := c.callHost(ctx, id, http.MethodPost, p.path, hostview.CheckRequest{Fix: fix}, &found[i])
			if err != nil {
				found[i] = []finding.Finding{{Part: p.name, Subject: s.hostName(id), Text: fmt.Sprintf("cannot be asked: %v", err), Hint: p.hint}}
			}
		})
	}
	all.Wait()
	return slices.Concat(found...)
}

// auditNetworks finds what is wrong in etcd itself.
func (c *Controller) auditNetworks(ctx context.Context, s *netState, fix bool) ([]finding.Finding, error) {
	out, err := registry.Audit(ctx, c.store)
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(s.Pools) {
		fs, err := c.CheckPool(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, fs...)
	}
	k := c.store.Keys
	for _, r := range s.rules() {
		if (s.has(r.To) || isPrefix(r.To)) && (s.has(r.From) || isPrefix(r.From)) {
			continue
		}
		f := finding.Finding{Part: "rules", Subject: r.ID, Text: fmt.Sprintf("it opens %s to %s, and one of the two is no more", r.ToName, r.FromName)}
		if fix {
			_, err := c.store.Txn().Delete(k.Rule(r.ID)).Commit(ctx)
			if f.Fixed = err == nil; err != nil {
				return nil, err
			}
		}
		out = append(out, f)
	}
	for network, hosts := range s.Attached {
		for host := range hosts {
			if _, known := s.hosts[host]; known && s.has(network) {
				continue
			}
			f := finding.Finding{Part: "networks", Subject: network, Text: fmt.Sprintf("host %s is attached to it, and one of the two is no more", s.hostName(host))}
			if fix {
				_, err := c.store.Txn().Delete(k.Attached(network, host)).Commit(ctx)
				if f.Fixed = err == nil; err != nil {
					return nil, err
				}
			}
			out = append(out, f)
		}
	}
	return out, nil
}

func (s *netState) has(network string) bool {
	_, ok := s.Networks[network]
	return ok
}
