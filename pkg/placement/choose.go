package placement

import (
	"fmt"
	"slices"
)

// How a class finds its best host.
const (
	// byHeap keeps the hosts in a heap for each zone: a host's place depends on
	// itself alone.
	byHeap = iota
	// byRing goes round the hosts that pass.
	byRing
	// byGroup looks at the hosts where the class's group is, or else takes the
	// heap of those where it may begin.
	byGroup
	// byList looks at all hosts each time: for what depends on others of them
	// (group; breadth-first and zone-spread under another sorter).
	byList
)

// chooser is what a class chooses from.
type chooser struct {
	by int
	// keys has width numbers for each host, compared one after the other; no
	// two hosts have the same.
	keys  []uint64
	width int
	// heaps are those of the zones of the last level, at where a host is in
	// its heap, counted from 1.
	heaps  [][]int32
	at     []int32
	begun  bool // the heaps are filled
	heaped bool // and in order
	steps  int  // that were made so far to do without them
	// passing are the ranks of the hosts that pass, for byRing.
	passing set
	// lesser are levels that a sorter comes before.
	lesser []*level
	// group0 is the class's group, for byGroup; nil otherwise.
	group0 *grouping
	buffer []uint64
	list   []int32
}

// Widths of the counts in the last number of a key: replicas of the service,
// of the application, containers in all, and the host's rank.
const (
	serviceBits, appBits, allBits, rankBits = 14, 14, 16, 20
)

func packed(service, app, all int, rank uint32) uint64 {
	clip := func(v, bits int) uint64 { return uint64(min(max(v, 0), 1<<bits-1)) }
	return clip(service, serviceBits)<<(appBits+allBits+rankBits) | clip(app, appBits)<<(allBits+rankBits) |
		clip(all, allBits)<<rankBits | uint64(rank)
}

// fewest is the order without a chain: fewest replicas of the service, then of
// the application, then containers in all, then by name.
func (c *class) fewest() sorter {
	f := c.fleet
	return sorter{
		name: leastLoaded, total: true,
		value: func(h int32) float64 { return float64(f.services.all[c.ref.service].get(h)) },
		text: func(h int32) string {
			return fmt.Sprintf("%d of this service, %d of this application, %d in all",
				f.services.all[c.ref.service].get(h), f.apps.all[c.ref.app].get(h), int(f.loads[h].containers))
		},
	}
}

// begin chooses how to choose, and looks at all hosts once.
func (c *class) begin() {
	f := c.fleet
	c.seen = len(f.log)
	c.by, c.group0 = byHeap, c.onlyGroup()
	for i := range c.filters {
		if c.filters[i].among != nil {
			c.by = byList
		}
	}
	if c.group0 != nil {
		c.by = byGroup
	}
	for i := range c.wishes {
		if c.wishes[i].among != nil {
			c.by = byList
		}
	}
	for i, s := range c.ranking {
		switch {
		case s.ring != nil && i == 0 && c.by == byHeap && len(c.wishes)+len(c.levels) == 0:
			c.by = byRing
		case s.ring != nil:
			c.by = byList
		}
	}
	if len(c.lesser) > 0 {
		c.by = byList
	}
	if c.by != byGroup {
		c.group0 = nil
	}
	c.width = len(c.ranking)
	if len(c.wishes) > 0 {
		c.width++
	}
	switch c.by {
	case byHeap, byGroup:
		c.begun, c.steps = false, 0
	case byRing:
		c.passing = append(c.passing[:0], make(set, (len(f.order)+63)/64)...)
		for _, h := range f.order {
			if c.passes(h) {
				c.passing.put(int32(f.rank[h]))
			}
		}
	}
}

// catchUp takes into account what has been reserved since the last look.
func (c *class) catchUp() {
	log := c.fleet.log
	for ; c.seen < len(log); c.seen++ {
		e := log[c.seen]
		if e.service == c.ref.service {
			for _, l := range c.levels {
				l.counts[l.of[e.host]] += e.n
			}
			for _, l := range c.lesser {
				l.counts[l.of[e.host]] += e.n
			}
		}
		if c.by == byRing || c.begun {
			c.refresh(e.host)
		}
	}
}

// choose is the best host, the preferred one if it passes; -1 when none does.
func (c *class) choose(prefer string) int32 {
	c.catchUp()
	f := c.fleet
	stay, known := f.byID[prefer]
	known = known && prefer != ""
	switch c.by {
	case byRing:
		n := c.passing.size()
		switch {
		case n == 0:
			return -1
		case known && c.passing.has(int32(f.rank[stay])):
			return stay
		}
		return f.order[c.passing.nth(int(f.turned(c.ranking[0].ring.owner)%uint64(n)))]
	case byGroup:
		if !known {
			stay = -1
		}
		return c.chooseGroup(stay)
	case byList:
		list := c.walk(nil)
		switch {
		case len(list) == 0:
			return -1
		case known && slices.Contains(list, stay):
			return stay
		}
		best := c.first(list)
		for _, s := range c.ranking {
			if s.ring != nil {
				f.turned(s.ring.owner)
			}
		}
		return best
	}
	if known && c.passes(stay) {
		return stay
	}
	return c.top()
}

// turned moves a ring on.
func (f *Fleet) turned(owner string) uint64 {
	f.turn[owner]++
	return f.turn[owner]
}

// rows works out the keys of hosts that pass, where they depend on the others of
// them: a row for each, as wide as the second result.
func (c *class) rows(hosts []int32) (keys []uint64, width int) {
	f, n := c.fleet, len(hosts)
	width = 1 + len(c.levels) + len(c.ranking)
	c.buffer = slices.Grow(c.buffer[:0], n*width)[:n*width]
	for i, h := range hosts {
		row := c.buffer[i*width:][:width]
		row[0] = 0
		for j, l := range c.levels {
			row[1+j] = uint64(l.counts[l.of[h]])
		}
		for j := range c.ranking {
			at := &row[1+len(c.levels)+j]
			switch s := &c.ranking[j]; {
			case s.ring != nil:
				turn := (f.turn[s.ring.owner] + 1) % uint64(n)
				*at = (uint64(i) + uint64(n) - turn) % uint64(n)
			case s.key != nil:
				*at = s.key(h)
			case s.name == leastLoaded:
				*at = c.load(h)
			default:
				*at = uint64(f.rank[h])
			}
		}
	}
	for i := range c.wishes {
		met := newSet(len(f.machines))
		for _, h := range c.wishes[i].apply(slices.Clone(hosts), nil) {
			met.put(h)
		}
		for j, h := range hosts {
			if !met.has(h) {
				c.buffer[j*width]++
			}
		}
	}
	return c.buffer, width
}

// first is the best of hosts that pass; there is one.
func (c *class) first(hosts []int32) int32 {
	keys, width := c.rows(hosts)
	best := 0
	for i := range hosts {
		if slices.Compare(keys[i*width:][:width], keys[best*width:][:width]) < 0 {
			best = i
		}
	}
	return hosts[best]
}

// order puts hosts that pass in order, the best first.
func (c *class) order(hosts []int32) []int32 {
	keys, width := c.rows(hosts)
	at := make([]int, len(hosts))
	for i := range at {
		at[i] = i
	}
	slices.SortFunc(at, func(a, b int) int { return slices.Compare(keys[a*width:][:width], keys[b*width:][:width]) })
	out := make([]int32, len(hosts))
	for i, j := range at {
		out[i] = hosts[j]
	}
	return out
}

// load is a host's key without a chain.
func (c *class) load(h int32) uint64 {
	f := c.fleet
	return packed(int(f.services.all[c.ref.service].get(h)), int(f.apps.all[c.ref.app].get(h)), int(f.loads[h].containers), f.rank[h])
}
