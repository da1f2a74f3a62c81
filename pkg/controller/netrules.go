package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// rules lists the openings with the names of their networks.
func (s *netState) rules() []api.Rule {
	out := []api.Rule{}
	for id, r := range s.Topology.Rules {
		x := api.Rule{ID: id, Rule: r, FromName: r.From, ToName: r.To}
		if n, ok := s.Networks[r.From]; ok {
			x.FromName = title(n)
		}
		if n, ok := s.Networks[r.To]; ok {
			x.ToName = title(n)
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b api.Rule) int {
		return cmp.Or(cmp.Compare(a.FromName, b.FromName), cmp.Compare(a.ToName, b.ToName),
			cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Rules implements [api.Backend].
func (c *Controller) Rules(ctx context.Context) ([]api.Rule, error) {
	s, err := c.netState(ctx)
	if err != nil {
		return nil, err
	}
	return s.rules(), nil
}

// AddRule implements [api.Backend]. The same opening twice is one.
func (c *Controller) AddRule(ctx context.Context, q api.RuleRequest) (api.Rule, error) {
	s, err := c.netState(ctx)
	if err != nil {
		return api.Rule{}, err
	}
	r, problems := s.rule(q)
	if len(problems) > 0 {
		return api.Rule{}, invalid(fmt.Sprintf("%s cannot be opened to %s:", q.To, q.From), problems...)
	}
	for _, had := range s.rules() {
		if had.From == r.From && had.To == r.To && had.Protocol == r.Protocol && had.Port == r.Port {
			return had, nil
		}
	}
	fence, _ := c.lead.get()
	if fence == nil {
		return api.Rule{}, unavailable("this controller no longer leads: try again")
	}
	id := newID()
	r.CreatedAt = c.now()
	t := c.store.Txn(fence...).Absent(c.store.Keys.Rule(id)).Put(c.store.Keys.Rule(id), r)
	for _, side := range []string{r.From, r.To} {
		if _, err := netip.ParsePrefix(side); err != nil {
			t.Exists(c.store.Keys.Network(side))
		}
	}
	_, err = t.Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return api.Rule{}, conflict("one of the networks %s and %s was removed meanwhile", q.From, q.To)
	}
	if err != nil {
		return api.Rule{}, err
	}
	s.Topology.Rules[id] = r
	for _, made := range s.rules() {
		if made.ID == id {
			c.emit(ctx, "network", "open", made.ToName, "to "+made.FromName)
			return made, nil
		}
	}
	return api.Rule{ID: id, Rule: r}, nil
}

// machine reads what is no network to open something to: a host of the fleet
// (host:NAME), an address, or a range.
func (s *netState) machine(to string) (netip.Prefix, bool) {
	if name, ok := strings.CutPrefix(to, "host:"); ok {
		for _, h := range s.hosts {
			if h.Name == name {
				to = h.Address
			}
		}
	}
	if a, err := netip.ParseAddr(to); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(to)
	return p.Masked(), err == nil
}

// rule turns a request into a rule, with everything that speaks against it.
func (s *netState) rule(q api.RuleRequest) (r record.Rule, problems []string) {
	r = record.Rule{Protocol: q.Protocol, Port: q.Port}
	if p, err := netip.ParsePrefix(q.From); err == nil {
		r.From = p.Masked().String()
	} else if n, err := s.find(q.From); err == nil {
		r.From = n.ID
	} else {
		problems = append(problems, fmt.Sprintf("there is no network %s, and it is no address range either (docker clocker network ls shows the networks)", q.From))
	}
	if to, ok := s.machine(q.To); ok {
		r.To = to.String()
	} else if n, err := s.find(q.To); err == nil {
		r.To = n.ID
	} else {
		problems = append(problems, err.Error()+"; a host is host:NAME, a machine elsewhere its address")
	}
	if r.From != "" && strings.Contains(r.From, "/") && strings.Contains(r.To, "/") {
		problems = append(problems, "one of the two must be a network of the fleet")
	}
	if r.From != "" && r.From == r.To {
		problems = append(problems, "a network is open to itself already")
	}
	switch q.Protocol {
	case "", "tcp", "udp":
		if q.Port != 0 && q.Protocol == "" {
			problems = append(problems, "a port needs a protocol: say /tcp or /udp")
		}
	case "icmp":
		if q.Port != 0 {
			problems = append(problems, "icmp has no ports")
		}
	default:
		problems = append(problems, fmt.Sprintf("protocol %q is not tcp, udp or icmp", q.Protocol))
	}
	return r, problems
}

// RemoveRule implements [api.Backend].
func (c *Controller) RemoveRule(ctx context.Context, id string) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	key := c.store.Keys.Rule(id)
	_, err := c.store.Txn(fence...).Exists(key).Delete(key).Commit(ctx)
	if !errors.Is(err, store.ErrConflict) {
		return err
	}
	if _, err := store.Get[record.Rule](ctx, c.store, key); !errors.Is(err, store.ErrNotFound) {
		return errors.Join(err, unavailable("this controller no longer leads: try again"))
	}
	return notFound("there is no rule %s (docker clocker network rule ls shows them)", id)
}
