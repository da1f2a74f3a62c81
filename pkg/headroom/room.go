package headroom

import (
	"fmt"
	"math"
	"slices"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
)

// MaxContainers is how many containers a host is taken to hold (M of
// spec/clocker.md §3.1): the fleet's bound, else its own max-containers
// strategy's, else [DefaultContainers].
func MaxContainers(p placement.Policy) int {
	if p.MaxContainers > 0 {
		return p.MaxContainers
	}
	for _, s := range p.Strategies {
		if s.Name == "max-containers" && s.Containers > 0 {
			return s.Containers
		}
	}
	return DefaultContainers
}

// dimensions measures the room on the hosts that count.
func dimensions(s *Snapshot, hosts []Host) []Dimension {
	var out []Dimension
	p := s.Policy
	if p.Count > 0 || p.Percent > 0 {
		out = append(out, containers(s, hosts))
	}
	if p.CPU > 0 {
		out = append(out, amount(s, "cpu", hosts, p.CPU, func(a model.Amounts) int64 { return a.NanoCPUs }))
	}
	if p.Memory > 0 {
		out = append(out, amount(s, "memory", hosts, p.Memory, func(a model.Amounts) int64 { return a.MemoryBytes }))
	}
	for _, w := range s.Wants {
		out = append(out, want(s, hosts, w))
	}
	return out
}

func containers(s *Snapshot, hosts []Host) Dimension {
	m, used := int64(MaxContainers(s.Placement)), int64(0)
	for _, h := range hosts {
		used += int64(len(h.Tasks) + h.Strangers)
	}
	d := Dimension{Name: "count", Possible: m * int64(len(hosts)), Used: used, Headroom: int64(s.Policy.Count)}
	if s.Policy.Count == 0 {
		d.Name, d.Headroom = "percent", ceil(s.Policy.Percent*float64(d.Possible))
	}
	d.measure(m)
	if s.Policy.Count > 0 {
		d.Desired = int((used + d.Headroom + m - 1) / m)
		return d
	}
	// The smallest n with M*n - C >= percent*M*n; rounding cannot lead astray,
	// as the result is checked by that very condition.
	n := int64(float64(used) / (float64(m) * (1 - s.Policy.Percent)))
	for m*n-used < ceil(s.Policy.Percent*float64(m*n)) {
		n++
	}
	d.Desired = int(n)
	return d
}

// ceil rounds up what is not a whole number but for the error of its
// computation.
func ceil(x float64) int64 { return int64(math.Ceil(x - 1e-9)) }

// measure works out what follows from possible, used and headroom; m is what
// one host adds.
func (d *Dimension) measure(m int64) {
	d.Available = d.Possible - d.Used
	d.Needed = d.Headroom - d.Available
	if d.Possible > 0 {
		possible := float64(d.Possible)
		d.Utilisation = float64(d.Used) / possible
		d.Low = max(0, (possible-float64(d.Headroom+m))/possible)
		d.High = max(0, (possible-float64(d.Headroom))/possible)
	}
}

// amount is the room in CPUs or memory: capacity less what is reserved.
func amount(s *Snapshot, name string, hosts []Host, headroom int64, of func(model.Amounts) int64) Dimension {
	d := Dimension{Name: name, Headroom: headroom}
	var each []int64
	for _, h := range hosts {
		has := max(0, of(h.Capacity)-of(s.Placement.Reserve))
		each = append(each, has)
		d.Possible += has
		for _, t := range h.Tasks {
			d.Used += of(t.Reserve)
		}
	}
	fresh := s.fresh(func(h placement.Host) int64 { return max(0, of(h.Capacity)-of(s.Placement.Reserve)) })
	d.measure(fresh)
	d.Desired = len(hosts)
	switch {
	case d.Needed > 0 && fresh > 0:
		d.Desired += int((d.Needed + fresh - 1) / fresh)
	case d.Needed > 0: // how large the next one is will be seen
		d.Desired++
	default:
		slices.Sort(each)
		for spare, i := -d.Needed, 0; i < len(each) && each[i] <= spare; i++ {
			spare -= each[i]
			d.Desired--
		}
	}
	return d
}

// fresh is what the next host is expected to add: the first machine's that a
// provider could give, 0 when that is not known.
func (s *Snapshot) fresh(of func(placement.Host) int64) int64 {
	for _, m := range slices.Concat(s.Free, s.Coming) {
		if n := of(m.Host); n > 0 {
			return n
		}
	}
	return 0
}

// want is the room for replicas of a service.
func want(s *Snapshot, hosts []Host, w Want) Dimension {
	d := Dimension{Name: "for " + ForKey(w.App, w.Service), Headroom: int64(w.N), Desired: len(hosts)}
	if w.Request == nil {
		d.Headroom, d.Problem = 0, w.Problem
		return d
	}
	d.Possible = int64(room(s.Placement, plain(hosts), *w.Request))
	fresh := s.fresh(func(h placement.Host) int64 { return int64(room(s.Placement, []placement.Host{h}, *w.Request)) })
	d.measure(fresh)
	switch {
	case d.Needed <= 0 && fresh > 0:
		d.Desired -= int(min(int64(len(hosts)), -d.Needed/fresh))
	case d.Needed <= 0:
	case fresh > 0:
		d.Desired += int((d.Needed + fresh - 1) / fresh)
	default:
		d.Problem = fmt.Sprintf("no machine that a provider could give has room for %s", ForKey(w.App, w.Service))
	}
	return d
}

func plain(hosts []Host) []placement.Host {
	out := make([]placement.Host, len(hosts))
	for i, h := range hosts {
		out[i] = h.Host
	}
	return out
}

func (s *Snapshot) counted() []Host {
	return slices.DeleteFunc(slices.Clone(s.Hosts), func(h Host) bool { return !h.counts() })
}
