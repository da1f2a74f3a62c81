package placement

import "clocker.io/clocker/pkg/strategy"

// grouping is the strategy group in a class.
type grouping struct {
	exclusive bool
	// at is where it is among the class's filters.
	at int
}

// shares says whether a host runs the application, and the same parent.
func (c *class) shares(h int32) (app, parent bool) {
	f := c.fleet
	if f.apps.all[c.ref.app].get(h) == 0 {
		return false, false
	}
	for _, k := range f.machines[h].kinds {
		if f.refs[k.kind].app == c.ref.app && f.kinds[k.kind].parent == c.self.parent {
			return true, true
		}
	}
	return true, false
}

// begins reports whether a group may begin on a host.
func (c *class) begins(h int32, exclusive bool) bool {
	return c.fleet.apps.all[c.ref.app].get(h) == 0 && (!exclusive || c.fleet.loads[h].containers == 0)
}

// group keeps the services of one parent together and applications apart: if a
// host runs what has the same application and parent, only such hosts are
// left; otherwise those that run nothing of the application, and, when
// exclusive, nothing at all.
func (c *class) group(exclusive bool) filter {
	f := c.fleet
	var together string // a host that the group is on
	return filter{
		name:  strategy.Group,
		group: &grouping{exclusive: exclusive},
		among: func(hosts []int32) []int32 {
			var same, other []int32
			for _, h := range hosts {
				switch _, parent := c.shares(h); {
				case parent:
					same = append(same, h)
				case c.begins(h, exclusive):
					other = append(other, h)
				}
			}
			together = ""
			if len(same) > 0 {
				together = f.machines[same[0]].Name
				return same
			}
			return other
		},
		why: func(h int32) reason {
			switch app, _ := c.shares(h); {
			case together != "":
				return plainReason("its group is on host " + together)
			case app:
				return plainReason("another group of application " + c.self.app + " is there")
			}
			return plainReason("it is not empty, and the group wants a host of its own")
		},
	}
}

// onlyGroup finds the group of a class for which nothing else chooses of several
// hosts at once; nil when there is none.
func (c *class) onlyGroup() *grouping {
	var g *grouping
	for i := range c.filters {
		switch f := &c.filters[i]; {
		case f.among == nil:
		case g != nil || f.group == nil:
			return nil
		default:
			g = f.group
			g.at = i
		}
	}
	return g
}

// chooseGroup is the best host for a class with a group: of those where the
// group is, which are few, else of those where it may begin, by the heap.
func (c *class) chooseGroup(stay int32) int32 {
	f := c.fleet
	c.list = c.list[:0]
	begun := false
	for _, s := range f.apps.all[c.ref.app].slots {
		h := s.host1 - 1
		if s.n <= 0 || !c.passUpTo(h, c.group0.at) {
			continue
		}
		if _, parent := c.shares(h); parent {
			begun = true
			if c.passes(h) {
				c.list = append(c.list, h)
			}
		}
	}
	switch {
	case begun && len(c.list) == 0:
		return -1
	case begun:
		for _, h := range c.list {
			if h == stay {
				return h
			}
		}
		return c.first(c.list)
	case stay >= 0 && c.open(stay):
		return stay
	}
	return c.top()
}

// passUpTo reports whether a host passes the filters before one.
func (c *class) passUpTo(h int32, filter int) bool {
	for i := range c.filters[:filter] {
		if !c.filters[i].passes(h) {
			return false
		}
	}
	return true
}

// open reports whether the heap has a host.
func (c *class) open(h int32) bool {
	return c.passes(h) && (c.group0 == nil || c.begins(h, c.group0.exclusive))
}
