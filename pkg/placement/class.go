package placement

import (
	"reflect"

	"clocker.io/clocker/pkg/model"
)

// class is what the requests have in common that differ in their slot and the
// host they prefer. It lives for one call of Place: what is chosen from is
// worked out once and kept in step with what is reserved.
type class struct {
	fleet *Fleet
	req   Request
	self  kind
	ref   kindRef
	need  model.Amounts
	ports asked

	filters []filter
	wishes  []filter
	// sorters are the chain's, in order; those that count are in ranking, the
	// most significant first. levels come before them.
	sorters []sorter
	ranking []sorter
	levels  []*level
	// rolled is called when a host is chosen by chance; nil without random.
	rolled func(h int32)

	// moving are the filters whose answer replicas change, hosts those that
	// pass the others.
	moving []filter
	hosts  set

	chooser
	// seen is how much of the call's log the class has taken into account.
	seen int
	// refusals are those of refusedAt, when no host was found.
	refusals  []Refusal
	refusedAt int
}

// compile makes the class of a request.
func (f *Fleet) compile(c *class, r *Request) {
	*c = class{
		fleet: f, req: *r, self: kind{r.App, r.Service, r.Parent, r.Type, r.Title}, need: Reservation(f.policy, r.Placement, r.Resources),
		filters: c.filters[:0], wishes: c.wishes[:0], sorters: c.sorters[:0], ranking: c.ranking[:0], moving: c.moving[:0],
		hosts: c.hosts, chooser: c.chooser, refusedAt: -1,
	}
	c.ref = f.kindOf(c.self)
	c.baseFilters(&c.req)
	c.chain(&c.req)
	c.rank(&c.req)
	c.hosts = append(c.hosts[:0], c.filters[0].hosts...) // host-up has a set
	for _, flt := range c.filters[1:] {
		if flt.hosts == nil {
			if flt.ok != nil {
				c.moving = append(c.moving, flt)
			}
			continue
		}
		for i := range c.hosts {
			c.hosts[i] &= flt.hosts[i]
		}
	}
	c.begin()
}

// rank finds which sorters count, the most significant first: the last of the
// chain orders, those before it part what it leaves equal.
func (c *class) rank(r *Request) {
	var over []string
	for _, text := range r.Placement.Spread {
		if key, err := ParsePreference(text); err == nil {
			over = append(over, key)
			c.levels = append(c.levels, c.level(over))
		}
	}
	leading := true
	for i := len(c.sorters) - 1; i >= 0; i-- {
		s := c.sorters[i]
		if s.zone != "" {
			if leading {
				over = append(over, s.zone)
				c.levels = append(c.levels, c.level(over))
				continue
			}
			l := c.level([]string{s.zone})
			c.lesser = append(c.lesser, l)
			s = l.sorter()
		}
		leading = false
		c.ranking = append(c.ranking, s)
		if s.total {
			return
		}
	}
	c.ranking = append(c.ranking, c.fewest())
}

// passes reports whether a host passes all filters that look at one host.
func (c *class) passes(h int32) bool {
	if !c.hosts.has(h) {
		return false
	}
	for i := range c.moving {
		if !c.moving[i].ok(h) {
			return false
		}
	}
	return true
}

// unmet counts the wishes that a host does not meet.
func (c *class) unmet(h int32) uint64 {
	n := uint64(0)
	for i := range c.wishes {
		if !c.wishes[i].passes(h) {
			n++
		}
	}
	return n
}

// walk takes the hosts, by name, through the filters one after the other.
// refused, unless nil, is told of each host that one of them refuses. What is
// left stands until the next walk.
func (c *class) walk(refused func(h int32, f *filter)) []int32 {
	c.list = append(c.list[:0], c.fleet.order...)
	left := c.list
	for i := range c.filters {
		left = c.filters[i].apply(left, refused)
	}
	return left
}

// apply leaves the hosts that pass.
func (f *filter) apply(hosts []int32, refused func(h int32, f *filter)) []int32 {
	if f.among != nil {
		keep := f.among(hosts)
		if refused != nil {
			in := map[int32]bool{}
			for _, h := range keep {
				in[h] = true
			}
			for _, h := range hosts {
				if !in[h] {
					refused(h, f)
				}
			}
		}
		return keep
	}
	keep := hosts[:0]
	for _, h := range hosts {
		switch {
		case f.passes(h):
			keep = append(keep, h)
		case refused != nil:
			refused(h, f)
		}
	}
	return keep
}

// refuse lists why no host is left, in the order of their names.
func (c *class) refuse() []Refusal {
	f := c.fleet
	if c.refusedAt == len(f.log) {
		return c.refusals
	}
	by := make([]Refusal, len(f.machines))
	c.walk(func(h int32, flt *filter) { by[h] = flt.refusal(h, f.machines[h].Name) })
	c.refusals, c.refusedAt = make([]Refusal, 0, len(f.order)), len(f.log)
	for _, h := range f.order {
		if by[h].Filter != "" {
			c.refusals = append(c.refusals, by[h])
		}
	}
	return c.refusals
}

func (f *filter) refusal(h int32, host string) Refusal {
	why := f.why(h)
	return Refusal{Host: host, Filter: orElse(why.name, f.name), Reason: why.text, Group: why.group, Free: why.free}
}

// alike reports whether two requests are of one class.
func alike(a, b *Request) bool {
	return a.Service == b.Service && a.App == b.App && a.Host == b.Host &&
		a.Parent == b.Parent && a.Type == b.Type && a.Title == b.Title &&
		same(a.Ports, b.Ports) && same(a.Avoid, b.Avoid) && same(a.Volumes, b.Volumes) &&
		alikePlacement(&a.Placement, &b.Placement) && alikeResources(&a.Resources, &b.Resources)
}

func alikePlacement(a, b *model.Placement) bool {
	return a.MaxPerHost == b.MaxPerHost && a.Platform == b.Platform && a.MinCores == b.MinCores && a.MinMemory == b.MinMemory &&
		same(a.Constraints, b.Constraints) && same(a.Affinity, b.Affinity) && same(a.Spread, b.Spread) && same(a.Strategies, b.Strategies)
}

func alikeResources(a, b *model.Resources) bool {
	return a.Reserve == b.Reserve && a.Limit.NanoCPUs == b.Limit.NanoCPUs && same(a.Devices, b.Devices) && same(a.Generic, b.Generic)
}

// same compares lists; those that are the very same at once.
func same[T any](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || reflect.DeepEqual(a, b)
}
