package placement

import "slices"

func (c *class) beginHeap() {
	f := c.fleet
	n := len(f.machines)
	c.keys = slices.Grow(c.keys[:0], n*c.width)[:n*c.width]
	c.at = slices.Grow(c.at[:0], n)[:n]
	clear(c.at)
	zones := 1
	if len(c.levels) > 0 {
		zones = len(c.levels[len(c.levels)-1].names)
	}
	c.heaps = slices.Grow(c.heaps[:0], zones)[:zones]
	for i := range c.heaps {
		c.heaps[i] = c.heaps[i][:0]
	}
	simple := c.simple()
	c.hosts.each(func(h int32) {
		for i := range c.moving {
			if !c.moving[i].ok(h) {
				return
			}
		}
		if c.group0 != nil && !c.begins(h, c.group0.exclusive) {
			return
		}
		if simple {
			c.keys[h] = packed(0, 0, int(f.loads[h].containers), f.rank[h])
		} else {
			c.key(h, c.keys[int(h)*c.width:][:c.width])
		}
		z := c.zone(h)
		c.heaps[z] = append(c.heaps[z], h)
		c.at[h] = int32(len(c.heaps[z]))
	})
	if simple {
		c.scatter(&f.apps.all[c.ref.app], appBits, allBits+rankBits)
		c.scatter(&f.services.all[c.ref.service], serviceBits, appBits+allBits+rankBits)
	}
	c.begun, c.heaped = true, false
}

// heap puts the heaps in order. Until something is chosen for the second time
// they are but lists: going through one is quicker than putting it in order.
func (c *class) heap() {
	for z := range c.heaps {
		for i := len(c.heaps[z])/2 - 1; i >= 0; i-- {
			c.down(z, i)
		}
	}
	c.heaped = true
}

// simple reports whether the order is the one without a chain.
func (c *class) simple() bool { return c.width == 1 && c.ranking[0].name == leastLoaded }

// scatter adds counts to the keys of hosts.
func (c *class) scatter(t *tally, bits, shift int) {
	for _, s := range t.slots {
		if s.n > 0 && c.at[s.host1-1] != 0 {
			c.keys[s.host1-1] += uint64(min(s.n, 1<<bits-1)) << shift
		}
	}
}

func (c *class) zone(h int32) int32 {
	if len(c.levels) == 0 {
		return 0
	}
	return c.levels[len(c.levels)-1].of[h]
}

// key works a host's key out.
func (c *class) key(h int32, to []uint64) {
	i := 0
	if len(c.wishes) > 0 {
		to[0], i = c.unmet(h), 1
	}
	for j := range c.ranking {
		s := &c.ranking[j]
		switch {
		case s.key != nil:
			to[i] = s.key(h)
		case s.name == leastLoaded:
			to[i] = c.load(h)
		default:
			to[i] = uint64(c.fleet.rank[h])
		}
		i++
	}
}

func (c *class) less(a, b int32) bool {
	if c.width == 1 {
		return c.keys[a] < c.keys[b]
	}
	return slices.Compare(c.keys[int(a)*c.width:][:c.width], c.keys[int(b)*c.width:][:c.width]) < 0
}

func (c *class) up(z int32, i int) {
	heap := c.heaps[z]
	h := heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if !c.less(h, heap[parent]) {
			break
		}
		heap[i] = heap[parent]
		c.at[heap[i]] = int32(i + 1)
		i = parent
	}
	heap[i] = h
	c.at[h] = int32(i + 1)
}

func (c *class) down(z int, i int) {
	heap := c.heaps[z]
	h := heap[i]
	for {
		child := 2*i + 1
		if child >= len(heap) {
			break
		}
		if child+1 < len(heap) && c.less(heap[child+1], heap[child]) {
			child++
		}
		if !c.less(heap[child], h) {
			break
		}
		heap[i] = heap[child]
		c.at[heap[i]] = int32(i + 1)
		i = child
	}
	heap[i] = h
	c.at[h] = int32(i + 1)
}

// refresh looks at a host again that has changed.
func (c *class) refresh(h int32) {
	if c.by == byRing {
		if r := int32(c.fleet.rank[h]); c.passes(h) {
			c.passing.put(r)
		} else {
			c.passing.drop(r)
		}
		return
	}
	z := c.zone(h)
	if !c.open(h) {
		if c.at[h] == 0 {
			return
		}
		i, heap := int(c.at[h])-1, c.heaps[z]
		last := len(heap) - 1
		moved := heap[last]
		heap[i], c.heaps[z], c.at[h] = moved, heap[:last], 0
		if i < last {
			c.at[moved] = int32(i + 1)
			c.move(z, moved)
		}
		return
	}
	c.key(h, c.keys[int(h)*c.width:][:c.width])
	if c.at[h] == 0 {
		c.heaps[z] = append(c.heaps[z], h)
		c.at[h] = int32(len(c.heaps[z]))
	}
	c.move(z, h)
}

// move puts a host where its key belongs.
func (c *class) move(z, h int32) {
	if c.heaped {
		c.down(int(z), int(c.at[h])-1)
		c.up(z, int(c.at[h])-1)
	}
}

// top is the best host of all heaps.
func (c *class) top() int32 {
	if !c.begun && c.simple() && len(c.levels) == 0 {
		if h := c.fresh(); h >= 0 {
			return h
		}
	}
	if !c.begun {
		c.beginHeap()
	} else if !c.heaped {
		c.heap()
	}
	best := int32(-1)
	for _, heap := range c.heaps {
		if len(heap) == 0 {
			continue
		}
		first := heap[0]
		if !c.heaped {
			for _, h := range heap[1:] {
				if c.less(h, first) {
					first = h
				}
			}
		}
		if best < 0 || c.before(first, best) {
			best = first
		}
	}
	return best
}

// before orders hosts of different zones: by wishes, then by how many replicas
// the zones have, then by the rest.
func (c *class) before(a, b int32) bool {
	ka, kb := c.keys[int(a)*c.width:][:c.width], c.keys[int(b)*c.width:][:c.width]
	if len(c.wishes) > 0 && ka[0] != kb[0] {
		return ka[0] < kb[0]
	}
	for _, l := range c.levels {
		if x, y := l.counts[l.of[a]], l.counts[l.of[b]]; x != y {
			return x < y
		}
	}
	return slices.Compare(ka, kb) < 0
}
