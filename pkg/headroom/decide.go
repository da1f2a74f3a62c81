package headroom

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/record"
)

// Decide says what the fleet should do about its hosts. The history is that
// of the decision before; the one returned goes into the next.
func Decide(s Snapshot, h History) (Decision, History) {
	hosts := s.counted()
	d := Decision{Hosts: len(hosts), Coming: len(s.Coming), Dimensions: dimensions(&s, hosts)}
	d.Desired = desired(&s, d.Dimensions)
	up, down := delays(s.Policy)
	h = h.add(Sample{s.Now, d.Desired}, max(up, down))
	h.Empty = s.emptySince(h.Empty)
	size := d.Hosts + d.Coming
	d.Target = s.clamp(h.Stabilise(s.Now, size, up, down))
	d.Event = event(&s, d.Dimensions)
	h.Event = d.Event

	free := s.blocked(&d)
	free = s.grow(&d, size, free)
	s.shrink(&d, hosts, h)
	d.Recheck = s.recheck(h, d, up, down)
	if again := s.lost(&d); !again.IsZero() && (d.Recheck.IsZero() || again.Before(d.Recheck)) {
		d.Recheck = again
	}
	d.Reason = s.reason(&d, size, free)
	return d, h
}

func delays(p record.HeadroomPolicy) (up, down time.Duration) {
	up, down = p.UpDelay, p.DownDelay
	if up == 0 {
		up = DefaultUpDelay
	}
	if down == 0 {
		down = DefaultDownDelay
	}
	return up, down
}

// desired is the most that any dimension asks for, within the bounds.
func desired(s *Snapshot, ds []Dimension) int {
	n := 0
	for _, d := range ds {
		n = max(n, d.Desired)
	}
	return s.clamp(n)
}

// clamp keeps a size within the policy's bounds; hosts there are do not make
// the fleet go below one.
func (s *Snapshot) clamp(n int) int {
	if s.Policy.MaxHosts > 0 {
		n = min(n, s.Policy.MaxHosts)
	}
	n = max(n, s.Policy.MinHosts)
	if len(s.Hosts) > 0 {
		n = max(n, 1)
	}
	return n
}

// total is how many hosts the fleet has or is about to have, those that do
// not count included: that is what its maximum bounds.
func (s *Snapshot) total() int {
	n := len(s.Coming) + s.Trying
	for _, h := range s.Hosts {
		if !h.Leaving {
			n++
		}
	}
	return n
}

// mayAsk is how many more hosts the maximum allows.
func (s *Snapshot) mayAsk(asked int) bool {
	return s.Policy.MaxHosts == 0 || s.total()+asked < s.Policy.MaxHosts
}

func event(s *Snapshot, ds []Dimension) string {
	hot, cold := false, s.Policy.RemoveEmpty && len(ds) > 0
	for _, d := range ds {
		hot = hot || d.Needed > 0
		cold = cold && d.Possible > 0 && d.Utilisation < d.Low
	}
	switch {
	case hot:
		return Hot
	case cold:
		return Cold
	}
	return OK
}

// grow asks for the machines that room lacks, and returns those left.
func (s *Snapshot) grow(d *Decision, size int, free []Machine) []Machine {
	if s.Policy.Suspended {
		return free
	}
	for lacks := d.Target - size - len(d.Ask); lacks > 0 && len(free) > 0 && s.mayAsk(len(d.Ask)); lacks-- {
		d.Ask = append(d.Ask, Ask{Machine: free[0].ID, Why: s.lack(d)})
		free = free[1:]
	}
	return free
}

// lack says what hosts are asked for.
func (s *Snapshot) lack(d *Decision) string {
	for _, m := range d.Dimensions {
		if m.Desired == d.Desired && m.Needed > 0 {
			return fmt.Sprintf("headroom (%s): %s", m.Name, m.lacks())
		}
	}
	return fmt.Sprintf("the fleet has %s of at least %d", count(d.Hosts, "host"), s.Policy.MinHosts)
}

// emptySince keeps track of which hosts are empty.
func (s *Snapshot) emptySince(was map[string]time.Time) map[string]time.Time {
	now := map[string]time.Time{}
	for _, h := range s.Hosts {
		if len(h.Tasks) > 0 {
			continue
		}
		if since, ok := was[h.ID]; ok {
			now[h.ID] = since
		} else {
			now[h.ID] = s.Now
		}
	}
	return now
}

// maxLeave bounds the hosts that leave by one decision.
const maxLeave = 10

// shrink decides which empty hosts go: one after the other, so that each is
// weighed as if those before it were gone.
func (s *Snapshot) shrink(d *Decision, hosts []Host, h History) {
	var empty []Host
	for _, x := range hosts {
		if len(x.Tasks) == 0 && x.Machine != "" {
			empty = append(empty, x)
		}
	}
	// The latest go first: they were asked for last.
	slices.SortFunc(empty, func(a, b Host) int {
		return cmp.Or(b.AddedAt.Compare(a.AddedAt), strings.Compare(b.Name, a.Name))
	})
	left, needed := hosts, ""
	for _, x := range empty {
		without := slices.DeleteFunc(slices.Clone(left), func(y Host) bool { return y.ID == x.ID })
		why := s.stays(d, x)
		switch {
		case why != "":
		case len(d.Leave) == maxLeave:
			why = "others go first"
		case needed == "":
			if why = s.needs(d, without); why != "" {
				needed = x.Name
			}
		default:
			// What an older and smaller host frees would else be what the
			// newer one was asked for.
			why = "host " + needed + " came later and must stay"
		}
		if why == "" {
			why = s.grace(x, h)
		}
		if why != "" {
			d.Stay = append(d.Stay, Leave{x.ID, x.Name, why})
			continue
		}
		left = without
		d.Leave = append(d.Leave, Leave{x.ID, x.Name, "nothing runs on it, and the headroom is kept without it"})
	}
}

// stays says why an empty host does not go; empty when it may, as far as it
// alone is concerned.
func (s *Snapshot) stays(d *Decision, x Host) string {
	p := s.Policy
	switch {
	case !p.RemoveEmpty:
		return "empty hosts are not removed (headroom set --remove-empty)"
	case p.Suspended:
		return "the policy is suspended"
	case x.Strangers > 0 && !p.EvenWithStrangers:
		return fmt.Sprintf("%s on it that Clocker did not make", count(x.Strangers, "container"))
	case len(x.Volumes) > 0 && !p.EvenWithStrangers:
		return "volumes are on it alone: " + strings.Join(x.Volumes, ", ")
	case len(s.Blocked) > 0:
		return "replicas wait for a host"
	case len(s.Coming) > 0 || len(d.Ask) > 0:
		return "machines are on their way"
	}
	return ""
}

// needs says why hosts would not do without one more.
func (s *Snapshot) needs(d *Decision, without []Host) string {
	switch {
	case len(without) == 0:
		return "it is the fleet's last host"
	case len(without) < s.Policy.MinHosts:
		return fmt.Sprintf("the fleet keeps at least %s", count(s.Policy.MinHosts, "host"))
	}
	for _, m := range dimensions(s, without) {
		if m.Needed > 0 {
			return fmt.Sprintf("headroom (%s) would lack: %s", m.Name, m.lacks())
		}
	}
	if _, down := delays(s.Policy); len(without) < d.Target {
		return fmt.Sprintf("%s were wanted within the last %s", count(d.Target, "host"), down)
	}
	return ""
}

// grace says how long an empty host stays yet.
func (s *Snapshot) grace(x Host, h History) string {
	_, down := delays(s.Policy)
	since := h.Empty[x.ID]
	if wait := since.Add(down).Sub(s.Now); wait > 0 {
		return fmt.Sprintf("it is empty since %s and goes in %s at the earliest", since.UTC().Format("15:04:05"), round(wait))
	}
	return ""
}

// recheck is when time alone may change what is decided.
func (s *Snapshot) recheck(h History, d Decision, up, down time.Duration) time.Time {
	if s.Policy.Suspended {
		return time.Time{}
	}
	var next time.Time
	if size := d.Hosts + d.Coming; size != d.Desired {
		next = h.settles(s.Now, up, down)
	}
	for _, l := range d.Stay {
		t := h.Empty[l.Host].Add(down + time.Millisecond)
		if s.Policy.RemoveEmpty && t.After(s.Now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}
