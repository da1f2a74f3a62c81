package placement

import (
	"fmt"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

// chain adds the members of the fleet's chain and of the service's own, in
// order (spec/clocker.md §2.1).
func (c *class) chain(r *Request) {
	p := &c.fleet.policy
	if n := p.MaxContainers; n > 0 {
		c.filters = append(c.filters, c.maxContainers(n))
	}
	if p.MaxCPU > 0 {
		c.filters = append(c.filters, c.maxCPU(p.MaxCPU))
	}
	service := r.App + "/" + r.Service
	for _, s := range p.Strategies {
		c.member(&s, "")
	}
	for _, s := range r.Placement.Strategies {
		c.member(&s, service)
	}
	c.affinity(r.Placement.Affinity, p.Affinity)
}

// member adds a strategy of the chain of owner: "" for the fleet's.
func (c *class) member(s *model.Strategy, owner string) {
	if sort, ok := c.sorterOf(s, owner); ok {
		c.sorters = append(c.sorters, sort)
		return
	}
	f, ok := c.filterOf(s)
	switch {
	case !ok:
	case s.Soft:
		c.wishes = append(c.wishes, f)
	default:
		c.filters = append(c.filters, f)
	}
}

// filterOf makes the filter of a strategy; false when it does not filter, or
// does so elsewhere.
func (c *class) filterOf(s *model.Strategy) (filter, bool) {
	p := &c.fleet.policy
	switch s.Name {
	case strategy.MaxContainers:
		if p.MaxContainers > 0 {
			return filter{}, false // the fleet's bound is there already
		}
		return c.maxContainers(orDefault(s.Containers, strategy.DefaultContainers)), true
	case strategy.MaxPerHost:
		return c.maxPerHost(s.Containers), true
	case strategy.MaxCPU:
		if p.MaxCPU > 0 {
			return filter{}, false
		}
		return c.maxCPU(orDefault(s.CPU, strategy.DefaultCPU)), true
	case strategy.Hostname:
		return c.hostname(s.Hostname), true
	case strategy.Label:
		return c.labels(s.Labels), len(s.Labels) > 0
	case strategy.Group:
		return c.group(s.Exclusive), true
	case strategy.ProvisioningFlags:
		need := Reservation(Policy{}, model.Placement{MinCores: s.Cores, MinMemory: s.MemoryBytes}, model.Resources{})
		f := c.fleet
		return filter{
			name: s.Name,
			ok: func(h int32) bool {
				return enough(need.NanoCPUs, f.loads[h].left.NanoCPUs) && enough(need.MemoryBytes, f.loads[h].left.MemoryBytes)
			},
			why: func(h int32) reason { return lacking(need, &f.machines[h].Capacity, &f.loads[h].left) },
		}, s.Soft // otherwise it is part of what the replica reserves
	case strategy.Affinity:
		rules, err := readRules(s.Rules)
		return c.rules(rules, err), true
	}
	return c.fixed("strategy", "", func(*machine) bool { return false }, func(*machine) string { return fmt.Sprintf("strategy %q is not known", s.Name) }), true
}

func orDefault[T int | float64](v, other T) T {
	if v == 0 {
		return other
	}
	return v
}

func readRules(texts []string) ([]Rule, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	return ParseAffinity(strings.Join(texts, "\n"))
}

// affinity adds the service's rules, the hosts' and the fleet's: a host passes
// when every replica on it meets every one.
func (c *class) affinity(service, fleet []string) {
	own, err := readRules(slices.Concat(service, fleet))
	if len(own) == 0 && err == nil && c.fleet.ruled == 0 {
		return
	}
	rules := c.rules(own, err)
	f := filter{name: rules.name}
	mine, test := rules.why, rules.passes
	machines := c.fleet.machines
	f.ok = func(h int32) bool {
		m := &machines[h]
		return test(h) && m.unread == "" && (len(m.rules) == 0 || c.broken(m, m.rules) == "")
	}
	f.why = func(h int32) reason {
		switch m := &machines[h]; {
		case !test(h):
			return mine(h)
		case m.unread != "":
			return plainReason("the host's own rules cannot be read: " + m.unread)
		}
		return plainReason("the host's own " + c.broken(&machines[h], machines[h].rules))
	}
	c.filters = append(c.filters, f)
}

// rules makes a filter of affinity rules. What a rule says of a kind is worked
// out once for all hosts.
func (c *class) rules(rules []Rule, err error) filter {
	f := c.fleet
	if err != nil {
		return c.fixed(strategy.Affinity, "", func(*machine) bool { return false }, func(*machine) string { return err.Error() })
	}
	var known []uint8 // by kind: 0 not yet, 1 accepted, 2 refused
	shared := slices.ContainsFunc(rules, func(r Rule) bool { return !r.Not && r.Verb != VerbEmpty })
	filled := slices.ContainsFunc(rules, func(r Rule) bool { return r.Not && r.Verb == VerbEmpty })
	return filter{
		name: strategy.Affinity,
		ok: func(h int32) bool {
			m := &f.machines[h]
			if m.containers() == 0 {
				return !filled
			}
			if shared && m.Strangers > 0 {
				return false
			}
			for len(known) < len(f.kinds) {
				known = append(known, 0)
			}
			for _, k := range m.kinds {
				if known[k.kind] == 0 {
					known[k.kind] = 1
					if slices.ContainsFunc(rules, func(r Rule) bool { return !r.accepts(&f.kinds[k.kind], &c.self) }) {
						known[k.kind] = 2
					}
				}
				if known[k.kind] == 2 {
					return false
				}
			}
			return true
		},
		why: func(h int32) reason { return plainReason(c.broken(&f.machines[h], rules)) },
	}
}

// broken says which rule a host breaks, and by what; "" when it breaks none.
func (c *class) broken(m *machine, rules []Rule) string {
	for _, r := range rules {
		if m.containers() == 0 {
			if r.Not && r.Verb == VerbEmpty {
				return "rule NOT EMPTY: nothing is on it"
			}
			continue
		}
		by := ""
		for _, k := range m.kinds {
			on := &c.fleet.kinds[k.kind]
			if name := on.app + "/" + on.service; !r.accepts(on, &c.self) && (by == "" || name < by) {
				by = name
			}
		}
		if by != "" {
			return fmt.Sprintf("rule %s: %s is on it", r, by)
		}
		// What is not the fleet's meets no rule that asks for something, and
		// is let be by those that refuse something (spec/clocker.md §2.4).
		if m.Strangers > 0 && !r.Not && r.Verb != VerbEmpty {
			return fmt.Sprintf("rule %s: containers that are not the fleet's are on it", r)
		}
	}
	return ""
}
