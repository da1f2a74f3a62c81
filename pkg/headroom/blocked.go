package headroom

import (
	"fmt"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/placement"
)

// maxBlocked bounds the refused placements that are looked at in one
// decision; the rest comes next time.
const maxBlocked = 200

// blocked says what becomes of each refused placement and asks for the
// machines that would take them, at once and by the filters that hold for
// every host. It returns the machines that are left.
func (s *Snapshot) blocked(d *Decision) []Machine {
	free := slices.Clone(s.Free)
	if len(s.Blocked) == 0 {
		return free
	}
	rs := s.Blocked[:min(len(s.Blocked), maxBlocked)]
	d.Blocked = make([]Outcome, len(s.Blocked))
	for i := range d.Blocked {
		d.Blocked[i] = Outcome{Request: s.Blocked[i], Coming: "its turn comes"}
	}
	hosts := plain(s.Hosts)
	for i, h := range s.Hosts {
		hosts[i].Cordoned = h.Cordoned || h.Leaving
	}
	now := place(s.Placement, hosts, rs)
	for _, m := range s.Coming {
		hosts = append(hosts, m.Host)
	}
	best := place(s.Placement, hosts, rs)
	for len(free) > 0 && !s.Policy.Suspended && s.mayAsk(len(d.Ask)) {
		open := s.open(now, best)
		if len(open) == 0 {
			break
		}
		// The first machine that would take one more of them.
		i, with := -1, best
		for j := range free {
			if taken(place(s.Placement, []placement.Host{free[j].Host}, pick(rs, open)), nil) == 0 {
				continue // refused on its own already, which costs less to find out
			}
			try := place(s.Placement, append(slices.Clone(hosts), free[j].Host), rs)
			if taken(try, open) > 0 {
				i, with = j, try
				break
			}
		}
		if i < 0 {
			break
		}
		r := rs[firstTaken(with, open)]
		d.Ask = append(d.Ask, Ask{
			Machine: free[i].ID, For: ForKey(r.App, r.Service),
			Why: fmt.Sprintf("%s.%d of %s cannot be placed", r.Service, r.Slot, r.App),
		})
		hosts, best = append(hosts, free[i].Host), with
		free = slices.Delete(free, i, i+1)
	}
	for i := range rs {
		d.Blocked[i] = s.outcome(d, now[i], best[i], free)
	}
	return free
}

// open are those that nothing takes so far and that a new host may help.
func (s *Snapshot) open(now, best []placement.Decision) []int {
	var out []int
	for i := range best {
		if best[i].Host == "" && s.disappointed(now[i]) == "" {
			out = append(out, i)
		}
	}
	return out
}

// taken counts the decisions that have a host; of nil means all of them.
func taken(ds []placement.Decision, of []int) int {
	n := 0
	for i, d := range ds {
		if d.Host != "" && (of == nil || slices.Contains(of, i)) {
			n++
		}
	}
	return n
}

func pick(rs []placement.Request, of []int) []placement.Request {
	out := make([]placement.Request, len(of))
	for i, j := range of {
		out[i] = rs[j]
	}
	return out
}

func firstTaken(ds []placement.Decision, of []int) int {
	for _, i := range of {
		if ds[i].Host != "" {
			return i
		}
	}
	return of[0]
}

// disappointed says that a machine came for a service and cannot take it
// after all: another one would be no better.
func (s *Snapshot) disappointed(d placement.Decision) string {
	key := ForKey(d.Request.App, d.Request.Service)
	for _, h := range s.Hosts {
		if h.For != key || !h.counts() || slices.ContainsFunc(h.Tasks, func(t placement.Task) bool { return ForKey(t.App, t.Service) == key }) {
			continue
		}
		for _, r := range d.Refusals {
			if r.Host == h.Name {
				return fmt.Sprintf("host %s came for it and cannot take it: %s", h.Name, r.Reason)
			}
		}
	}
	return ""
}

// outcome sums up what becomes of one refused placement.
func (s *Snapshot) outcome(d *Decision, now, best placement.Decision, free []Machine) Outcome {
	o := Outcome{Request: now.Request}
	switch {
	case now.Host != "":
		o.Fits = true
	case best.Host != "":
		o.Coming = s.comes(d, best.Host)
	default:
		o.Hopeless = s.hopeless(d, now, best, free)
	}
	return o
}

// comes names the machine that would take a placement.
func (s *Snapshot) comes(d *Decision, id string) string {
	for _, m := range s.Coming {
		if m.Host.ID == id {
			return fmt.Sprintf("machine %s is on its way", m.Host.Name)
		}
	}
	for _, m := range s.Free {
		if m.Host.ID == id {
			return fmt.Sprintf("machine %s is asked for", m.Host.Name)
		}
	}
	// A host that is there has its room back once others of the list are
	// placed on the new one.
	return fmt.Sprintf("%s on their way", count(len(s.Coming)+len(d.Ask), "machine"))
}

func (s *Snapshot) hopeless(d *Decision, now, best placement.Decision, free []Machine) string {
	if why := s.disappointed(now); why != "" {
		return "no host is asked for: " + why
	}
	switch {
	case s.Policy.Suspended:
		return "no host is asked for: the headroom policy is suspended (docker clocker headroom resume)"
	case !s.mayAsk(len(d.Ask)):
		return fmt.Sprintf("no host is asked for: the fleet has %s, and headroom allows no more", count(s.total(), "host"))
	case len(free) == 0:
		why := s.NoFree
		if why == "" {
			why = "no provider has a machine left"
		}
		return "no host is asked for: " + why
	}
	var each []string
	for _, m := range free {
		one := place(s.Placement, []placement.Host{m.Host}, []placement.Request{best.Request})[0]
		for _, r := range one.Refusals {
			if r.Host == m.Host.Name {
				each = append(each, r.String())
			}
		}
	}
	if len(each) > 5 {
		each = append(each[:5], fmt.Sprintf("and %d more", len(each)-5))
	}
	return "no host is asked for, as none could take it: " + strings.Join(each, "; ")
}
