package placement

import (
	"fmt"
	"math"
	"strings"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

// sorter orders hosts: those with a smaller key come first. A nil key stands
// for the order of the hosts' names.
type sorter struct {
	name string
	key  func(h int32) uint64
	// value and text are the key for a reader.
	value func(h int32) float64
	text  func(h int32) string
	// total means that no two hosts have the same key, so that what the chain
	// had before does not matter.
	total bool
	// ring is breadth-first's turn; zone the label of zone-spread.
	ring *ring
	zone string
}

// ring goes round the hosts by name, one further with each decision.
type ring struct{ owner string }

// sorterOf makes the sorter of a strategy; false when it is a filter.
func (c *class) sorterOf(s *model.Strategy, owner string) (sorter, bool) {
	f := c.fleet
	number := func(of func(h int32) float64, text func(v float64) string) sorter {
		return sorter{
			name: s.Name, key: func(h int32) uint64 { return ascending(of(h)) },
			value: func(h int32) float64 { return of(h) },
			text:  func(h int32) string { return text(of(h)) },
		}
	}
	containers := func(h int32) float64 { return float64(f.loads[h].containers) }
	switch s.Name {
	case strategy.DepthFirst:
		return sorter{
			name: s.Name, total: true, value: func(h int32) float64 { return float64(f.rank[h] + 1) },
			text: func(int32) string { return "first by name that fits" },
		}, true
	case strategy.BreadthFirst:
		return sorter{
			name: s.Name, total: true, ring: &ring{owner}, text: func(int32) string { return "next in turn" },
			value: func(h int32) float64 { return float64(f.rank[h] + 1) },
		}, true
	case strategy.Random:
		return c.dice(), true
	case strategy.LeastContainers:
		return number(containers, func(v float64) string { return fmt.Sprintf("%.0f containers", v) }), true
	case strategy.LowestCPU:
		return number(func(h int32) float64 { return max(-1, f.machines[h].Usage) }, func(v float64) string {
			if v < 0 {
				return "how busy its CPUs are is not known"
			}
			return fmt.Sprintf("CPUs %.0f%% busy", v*100)
		}), true
	case strategy.Spread:
		return number(func(h int32) float64 { return f.reserved(h, 2) }, shareText), true
	case strategy.Binpack:
		pack := number(func(h int32) float64 { return -f.reserved(h, -1) }, func(v float64) string { return shareText(-v) })
		// Of hosts that have the same reserved, the one with more on it.
		byShare := pack.key
		pack.key = func(h int32) uint64 {
			return byShare(h)&^0xfffff | (0xfffff - min(0xfffff, uint64(int(f.loads[h].containers))))
		}
		return pack, true
	case strategy.ZoneSpread:
		zone := strategy.DefaultZone
		if len(s.Labels) > 0 {
			zone = s.Labels[0]
		}
		return sorter{name: s.Name, zone: zone}, true
	}
	return sorter{}, false
}

func shareText(v float64) string {
	if v < 0 || v > 1 {
		return "what it can hold is not known"
	}
	return fmt.Sprintf("%.0f%% reserved", v*100)
}

// ascending maps numbers to bits in the same order.
func ascending(v float64) uint64 {
	b := math.Float64bits(v + 0) // -0 becomes 0
	if b>>63 != 0 {
		return ^b
	}
	return b | 1<<63
}

// reserved is the mean share of a host's CPUs and memory that is reserved;
// unknown where it is not known what the host has.
func (f *Fleet) reserved(h int32, unknown float64) float64 {
	sum, n := 0.0, 0
	used, left := &f.machines[h].used, &f.loads[h].left
	for _, a := range [][2]int64{{used.NanoCPUs, left.NanoCPUs}, {used.MemoryBytes, left.MemoryBytes}} {
		if has := a[0] + a[1]; has > 0 {
			sum += min(1, float64(a[0])/float64(has))
			n++
		}
	}
	if n == 0 {
		return unknown
	}
	return sum / float64(n)
}

// dice picks a host at random. Each host has a clock that goes off after a
// random time, exponentially distributed; the first is taken and its clock set
// anew. As such clocks have no memory, every host is as likely each time.
func (c *class) dice() sorter {
	f := c.fleet
	var clocks []float64
	c.rolled = func(h int32) {
		if int(h) < len(clocks) && !math.IsNaN(clocks[h]) {
			clocks[h] += f.exponential()
		}
	}
	at := func(h int32) float64 {
		for len(clocks) < len(f.machines) {
			clocks = append(clocks, math.NaN())
		}
		if math.IsNaN(clocks[h]) {
			clocks[h] = f.exponential()
		}
		return clocks[h]
	}
	return sorter{
		name: strategy.Random, key: func(h int32) uint64 { return ascending(at(h)) },
		value: func(int32) float64 { return 0 }, text: func(int32) string { return "by chance" },
	}
}

func (f *Fleet) exponential() float64 { return -math.Log1p(-float64(f.random()>>11) / (1 << 53)) }

// zoning divides hosts by the values of labels.
type zoning struct {
	of    []int32 // the zone of each host
	names []string
}

// zoned divides the hosts by labels; within each value of the first label by
// the second, and so on.
func (f *Fleet) zoned(labels []string) *zoning {
	key := strings.Join(labels, "\x00")
	if z, known := f.zones[key]; known {
		return z
	}
	z := &zoning{of: make([]int32, len(f.machines))}
	ids := map[string]int32{}
	for i := range f.machines {
		m := &f.machines[i]
		if !m.live {
			continue
		}
		values := make([]string, len(labels))
		for j, l := range labels {
			values[j], _ = m.label(l)
		}
		name := strings.Join(values, "\x00")
		id, known := ids[name]
		if !known {
			id = int32(len(z.names))
			ids[name] = id
			z.names = append(z.names, name)
		}
		z.of[i] = id
	}
	f.zones[key] = z
	return z
}

// level is a division over which the replicas of the service are spread.
type level struct {
	*zoning
	label  string
	counts []int32 // replicas of the service by zone
}

func (c *class) level(labels []string) *level {
	z := c.fleet.zoned(labels)
	l := &level{zoning: z, label: labels[len(labels)-1], counts: make([]int32, len(z.names))}
	for _, s := range c.fleet.services.all[c.ref.service].slots {
		if s.n != 0 {
			l.counts[z.of[s.host1-1]] += s.n
		}
	}
	return l
}

func (l *level) sorter() sorter {
	return sorter{
		name: strategy.ZoneSpread, zone: l.label,
		key:   func(h int32) uint64 { return uint64(l.counts[l.of[h]]) },
		value: func(h int32) float64 { return float64(l.counts[l.of[h]]) },
		text: func(h int32) string {
			name := l.names[l.of[h]]
			name = name[strings.LastIndexByte(name, 0)+1:]
			return fmt.Sprintf("%d of this service where %s is %s", l.counts[l.of[h]], l.label, orElse(name, "not set"))
		},
	}
}
