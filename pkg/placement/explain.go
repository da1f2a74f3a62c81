package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Verdict is what becomes of one host for a request: a filter refuses it, or
// parts of a score rank it, the best first from 1.
type Verdict struct {
	// Host is its name.
	Host           string
	Filter, Reason string
	Rank           int
	// Score has the most significant part first; less is better.
	Score []Part
}

// Part is one criterion of a host's rank.
type Part struct {
	Name  string
	Value float64
	// Text says it in words.
	Text string
}

const leastLoaded = "least-loaded"

// Explain says of every host why it is refused or how it is ranked: the ranked
// ones first, in order, then the others by name. Nothing is reserved. The first
// is where Place would put the request.
func (f *Fleet) Explain(r Request) []Verdict {
	f.begin()
	defer f.end()
	if len(f.order) == 0 {
		return nil
	}
	c := f.classOf(&r)
	var refused []Verdict
	list := c.order(c.walk(func(h int32, flt *filter) {
		why := flt.refusal(h, f.machines[h].Name)
		refused = append(refused, Verdict{Host: why.Host, Filter: why.Filter, Reason: why.Reason})
	}))
	slices.SortFunc(refused, func(a, b Verdict) int { return cmp.Compare(a.Host, b.Host) })
	stays := false
	if stay, known := f.byID[r.Prefer]; known && r.Prefer != "" {
		if i := slices.Index(list, stay); i >= 0 {
			stays = true
			list = slices.Insert(slices.Delete(list, i, i+1), 0, stay)
		}
	}
	out := make([]Verdict, 0, len(f.order))
	for i, h := range list {
		v := Verdict{Host: f.machines[h].Name, Rank: i + 1, Score: c.score(h)}
		if i == 0 && stays {
			v.Score = append([]Part{{"stays", 0, "it runs there already"}}, v.Score...)
		}
		out = append(out, v)
	}
	return append(out, refused...)
}

// score is what orders a host, the most significant part first.
func (c *class) score(h int32) []Part {
	var parts []Part
	if len(c.wishes) > 0 {
		var unmet []string
		for i := range c.wishes {
			w := &c.wishes[i]
			if met := w.among == nil && w.passes(h); !met && w.why != nil {
				if w.among != nil && slices.Contains(w.among(c.walk(nil)), h) {
					continue
				}
				unmet = append(unmet, w.why(h).text)
			}
		}
		text := "every wish is met"
		if len(unmet) > 0 {
			text = fmt.Sprintf("%d of %d wishes not met (%s)", len(unmet), len(c.wishes), strings.Join(unmet, "; "))
		}
		parts = append(parts, Part{"wishes", float64(len(unmet)), text})
	}
	for _, l := range c.levels {
		s := l.sorter()
		parts = append(parts, Part{s.name, s.value(h), s.text(h)})
	}
	f := c.fleet
	for _, s := range c.ranking {
		if s.name != leastLoaded {
			parts = append(parts, Part{s.name, s.value(h), s.text(h)})
			continue
		}
		service, app, all := f.services.all[c.ref.service].get(h), f.apps.all[c.ref.app].get(h), int(f.loads[h].containers)
		parts = append(parts,
			Part{"service", float64(service), fmt.Sprintf("%d of this service", service)},
			Part{"application", float64(app), fmt.Sprintf("%d of this application", app)},
			Part{"containers", float64(all), fmt.Sprintf("%d in all", all)})
	}
	return parts
}

// Unbounded is the room where nothing bounds it.
const Unbounded = math.MaxInt32

// Room is how many more of a request would fit, up to [Unbounded].
func (f *Fleet) Room(r Request) int {
	f.begin()
	defer f.end()
	if len(f.order) == 0 {
		return 0
	}
	c := f.classOf(&r)
	list := c.walk(nil)
	// A group goes to one host, unless it is on several already.
	if grouped := slices.ContainsFunc(c.filters, func(f filter) bool { return f.among != nil }); grouped && len(list) > 0 && !c.grouped(list) {
		best := 0
		for _, h := range list {
			best = max(best, c.room(h))
		}
		return best
	}
	sum := 0
	for _, h := range list {
		sum = min(Unbounded, sum+c.room(h))
	}
	return sum
}

// grouped reports whether a host has replicas of the same parent already.
func (c *class) grouped(hosts []int32) bool {
	f := c.fleet
	return slices.ContainsFunc(hosts, func(h int32) bool {
		return slices.ContainsFunc(f.machines[h].kinds, func(k kindCount) bool {
			return f.refs[k.kind].app == c.ref.app && f.kinds[k.kind].parent == c.self.parent
		})
	})
}

// room is how many replicas more would fit on a host. What counts bounds them
// says by how many; for the rest one is put there and taken away again.
func (c *class) room(h int32) int {
	if !c.passes(h) {
		return 0
	}
	f := c.fleet
	n, tries := Unbounded, 0
	for i := range c.moving {
		switch m := &c.moving[i]; {
		case m.room != nil:
			n = min(n, m.room(h))
		case m.name == filterDevices:
			tries = Unbounded
		default:
			tries = max(tries, 1)
		}
	}
	r := c.req
	r.Task = ""
	var made []string
	for len(made) < min(tries, n) && c.passes(h) {
		var d Decision
		f.reserve(c, h, &r, &d)
		made = append(made, d.Task)
	}
	if len(made) > 0 && !c.passes(h) {
		n = min(n, len(made))
	}
	for _, id := range made {
		f.RemoveTask(id)
	}
	return n
}
