package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// Move is a replica that shall run on another host. By default its successor
// starts there first.
type Move struct {
	Missing
	// StopFirst removes the replica before its successor starts: the two cannot
	// be at the same time.
	StopFirst bool
	// Ended means that it has done its work, so that its successor only says so.
	Ended bool
}

// Abandoned is a successor that did not come up.
type Abandoned struct {
	Assignment record.Assignment
	Reason     string
}

// The causes of moves, as in [record.Assignment.Cause].
const (
	CauseDrain     = "drain"
	CauseRemove    = "remove"
	CauseRebalance = "rebalance"
	CauseLost      = "lost"
)

// Lingering is how long a replica runs on without names once its successor is
// up, so that nobody is sent to it any more when it stops.
const Lingering = time.Second

// MoveKey names a replica in [Snapshot.Resting].
func MoveKey(app, service string, slot int) string {
	return fmt.Sprintf("%s/%s.%d", app, service, slot)
}

// moves are an application's assignments, sorted by what becomes of them.
type moves struct {
	// current are those that count as the application's replicas.
	current []record.Assignment
	// successors are by the task that they replace.
	successors map[string]record.Assignment
	// lost are on hosts that are lost, and replaced.
	lost []record.Assignment
}

// all are the assignments that go on.
func (m moves) all() []record.Assignment {
	out := slices.Clone(m.current)
	for _, s := range m.successors {
		out = append(out, s)
	}
	return out
}

// sort tells replicas, their successors and lost ones apart.
func (n *next) sort() moves {
	m := moves{successors: map[string]record.Assignment{}}
	byTask := map[string]record.Assignment{}
	for _, a := range n.Assignments {
		byTask[a.Task] = a
	}
	for _, a := range sorted(n.Assignments) {
		switch {
		case n.HostLost[a.Host] && !Waits(a.Container) && !Ended(a, n.Observed[a.Task]):
			m.lost = append(m.lost, a)
			continue
		case a.Replaces != "":
			was, there := byTask[a.Replaces]
			if there && (!n.HostLost[was.Host] || Waits(was.Container)) {
				if _, twice := m.successors[a.Replaces]; !twice {
					m.successors[a.Replaces] = a
					continue
				}
			}
		}
		m.current = append(m.current, a)
	}
	return m
}

// successor reports whether a replaces another of the same replica.
func successor(a record.Assignment, of []record.Assignment) bool {
	return a.Replaces != "" && slices.ContainsFunc(of, func(b record.Assignment) bool { return b.Task == a.Replaces })
}

// finish brings moves under way to their end. It returns the tasks that are on
// their way out, which nothing else is done about.
func (n *next) finish(m moves) (going map[string]bool) {
	going = map[string]bool{}
	for _, was := range n.diff.Keep {
		s, moving := m.successors[was.Task]
		if !moving {
			if was.Phase == record.PhaseLeave {
				// Its successor is gone: it stays after all.
				was.Phase, was.LeftAt = record.PhaseRun, time.Time{}
				n.d.Put = append(n.d.Put, was)
				going[was.Task] = true
			}
			continue
		}
		delete(m.successors, was.Task)
		o := n.Observed[s.Task]
		if why := n.hopeless(s, was, o); why != "" || n.pointless(s, was) {
			n.d.Remove = append(n.d.Remove, s)
			if why != "" && !n.pointless(s, was) {
				n.d.Abandoned = append(n.d.Abandoned, Abandoned{s, why})
			}
			continue
		}
		m.successors[was.Task] = s // it counts as under way
		if !n.up(s, o) {
			n.release([]record.Assignment{s})
			continue
		}
		going[was.Task] = true
		switch {
		case was.Phase != record.PhaseLeave:
			was.Phase, was.LeftAt = record.PhaseLeave, n.Now
			n.d.Put = append(n.d.Put, was)
		case n.Now.Sub(was.LeftAt) >= Lingering || !n.HostUp[was.Host]:
			n.d.Remove = append(n.d.Remove, was)
		default:
			n.again(Lingering - n.Now.Sub(was.LeftAt))
		}
	}
	// Successors of replicas that the release does not want.
	for task, s := range m.successors {
		if !slices.ContainsFunc(n.diff.Keep, func(a record.Assignment) bool { return a.Task == task }) {
			n.d.Remove = append(n.d.Remove, s)
		}
	}
	return going
}

// hopeless says why a successor is given up, or "".
func (n *next) hopeless(s, was record.Assignment, o record.Observed) string {
	switch {
	case was.Phase == record.PhaseLeave && n.HostUp[s.Host]:
		return "" // it was up
	case !n.HostUp[s.Host]:
		return "host " + n.hostName(s.Host) + " stopped answering"
	case o.State == record.StateFailed:
		return o.Error
	case o.State == record.StateComplete:
		return "it ended by itself"
	case n.Now.Sub(s.CreatedAt) > moveTime(n.entity(s.Service)):
		return "it was not up in time"
	}
	return ""
}

// pointless reports whether nobody wants a move any more: that is no failure.
// What has gone so far that the predecessor leaves comes to its end.
func (n *next) pointless(s, was record.Assignment) bool {
	switch {
	case s.Hash != was.Hash, n.stopped(s.Service):
		return true
	case was.Phase == record.PhaseLeave:
		return false
	}
	return (s.Cause == CauseDrain || s.Cause == CauseRemove) && n.Leaving[was.Host] == ""
}

// up reports whether a successor may take over.
func (n *next) up(s record.Assignment, o record.Observed) bool {
	if o.State != record.StateRunning || o.Health != "" && o.Health != "healthy" || s.Phase != record.PhaseRun {
		return false
	}
	monitor := Lingering
	if u := n.update(s.Service); u != nil && u.Monitor > 0 {
		monitor = u.Monitor
	}
	if o.Health != "" {
		return true
	}
	// Hosts' clocks differ a little; that shortens the look, no more.
	if left := monitor - n.Now.Sub(o.StartedAt); left > 0 && left <= monitor {
		n.again(left)
		return false
	}
	return true
}

// moveTime is how long a successor may take to come up: images are pulled, and
// health checks have their time.
func moveTime(s *model.Service) time.Duration {
	t := 10 * time.Minute
	if s != nil && s.Healthcheck != nil {
		t += s.Healthcheck.StartPeriod
	}
	return t
}

func (n *next) again(in time.Duration) {
	if n.d.Again == 0 || in < n.d.Again {
		n.d.Again = max(in, time.Millisecond)
	}
}

func (n *next) entity(service string) *model.Service {
	if n.Release == nil {
		return nil
	}
	if e := n.Release.Application.Entity(service); e != nil {
		return e.Service
	}
	return nil
}

func (n *next) update(service string) *model.Update {
	if s := n.entity(service); s != nil {
		return s.Update
	}
	return nil
}

// move asks for successors of the replicas on hosts that work leaves, as many
// of a service at a time as its rules allow.
func (n *next) move(m moves) {
	if len(n.Leaving)+len(n.HostLost) == 0 {
		return
	}
	n.d.Blocked = map[string]string{}
	under := map[string]int{}
	for _, s := range m.successors {
		under[s.Service]++
	}
	for _, x := range n.diff.Missing {
		under[x.Service]++ // below its number already
	}
	down := n.down()
	templates := map[slotKey]Template{}
	for _, t := range n.Templates {
		templates[slotKey{t.Service, t.Slot}] = t
	}
	for _, a := range n.diff.Keep {
		cause := n.Leaving[a.Host]
		ended := Ended(a, n.Observed[a.Task])
		if ended && n.HostLost[a.Host] {
			cause = cmp.Or(cause, CauseLost) // what is known of it goes elsewhere
		}
		if _, moving := m.successors[a.Task]; cause == "" || moving {
			continue
		}
		t := templates[slotKey{a.Service, a.Slot}]
		if why := n.blocks(a); why != "" {
			n.d.Blocked[a.Task] = why
			continue
		}
		if !n.HostUp[a.Host] && !ended || a.Phase == record.PhasePrepare {
			continue // it is not there, or not yet
		}
		at := 1
		if u := n.update(a.Service); u != nil && u.Parallelism > 0 {
			at = u.Parallelism
		}
		if under[a.Service] >= at && !ended {
			continue // others of its service first
		}
		x := n.moveOf(a, t, cause)
		if x.StopFirst && !ended && !n.mayStop(a, down[a.Service], at-under[a.Service]) {
			continue
		}
		under[a.Service]++
		n.d.Moves = append(n.d.Moves, x)
	}
}

// down are the replicas that should be up and are not, by service. Those that
// are missing are not among them.
func (n *next) down() map[string][]record.Assignment {
	out := map[string][]record.Assignment{}
	for _, a := range n.diff.Keep {
		if !n.stopped(a.Service) && !n.serves(a) {
			out[a.Service] = append(out[a.Service], a)
		}
	}
	return out
}

func (n *next) serves(a record.Assignment) bool {
	o := n.Observed[a.Task]
	return n.HostUp[a.Host] && (o.State == record.StateComplete || o.State == record.StateRunning && (o.Health == "" || o.Health == "healthy"))
}

// mayStop reports whether a replica may stop before its successor starts: so
// many of its service may be down at a time. One that does not serve is no loss.
func (n *next) mayStop(a record.Assignment, down []record.Assignment, most int) bool {
	if n.stopped(a.Service) || !n.serves(a) || len(down) < most {
		return true
	}
	for _, other := range down {
		o := n.Observed[other.Task]
		if !n.HostUp[other.Host] || o.State == record.StateFailed || o.Health == "unhealthy" {
			n.d.Blocked[a.Task] = "it would stop before its successor starts, and " + other.Container.Name + " is not up"
			break
		}
	}
	return false
}

// blocks says why a replica cannot leave its host, or "".
func (n *next) blocks(a record.Assignment) string {
	switch {
	case a.Container.Fenced && !a.Container.Shared:
		return "it writes to " + written(a.Container) + " of this host, which is nowhere else (mount it read-only, or remove the application; if every host has the same data there, say that it is shared)"
	case n.Resting[MoveKey(a.App, a.Service, a.Slot)]:
		return "its last move failed; it is tried again within a minute"
	}
	return ""
}

// StopFirst reports whether two containers of one replica of a service cannot
// be at the same time: they would have the same address, or the file says so.
func StopFirst(s *model.Service) bool {
	if s == nil {
		return false
	}
	if s.Update != nil && !s.Update.StartFirst {
		return true
	}
	return slices.ContainsFunc(s.Networks, func(a model.Attachment) bool { return a.Address != "" || a.Address6 != "" || a.MAC != "" })
}

// written names what a container writes to on its host.
func written(c record.ContainerSpec) string {
	for _, m := range c.Mounts {
		if m.Writes() && !m.Shared {
			return m.Source
		}
	}
	return "data"
}

// Drain says which replicas would leave a host, all of them at once, and which
// cannot.
func Drain(s Snapshot, host string) Decision {
	n := &next{Snapshot: s, d: Decision{Blocked: map[string]string{}}}
	if s.Release == nil || s.App.Desired == record.DesiredRemoved {
		return n.d
	}
	m := n.sort()
	release := s.App.Release
	if s.App.Pending != 0 {
		release = s.App.Pending
	}
	n.diff = Diff(n.Templates, release, m.current)
	templates := map[slotKey]Template{}
	for _, t := range n.Templates {
		templates[slotKey{t.Service, t.Slot}] = t
	}
	for _, a := range n.diff.Keep {
		if a.Host != host {
			continue
		}
		if why := n.blocks(a); why != "" {
			n.d.Blocked[a.Task] = why
			continue
		}
		n.d.Moves = append(n.d.Moves, n.moveOf(a, templates[slotKey{a.Service, a.Slot}], CauseDrain))
	}
	return n.d
}

func (n *next) moveOf(a record.Assignment, t Template, cause string) Move {
	return Move{
		Missing:   Missing{Template: t, Replaces: &a, Cause: cause, Avoid: []string{a.Host}},
		StopFirst: StopFirst(n.entity(a.Service)) || a.Container.Fenced || a.Phase == record.PhaseStop || n.Observed[a.Task].State == record.StateComplete,
		Ended:     Ended(a, n.Observed[a.Task]),
	}
}

// Movable lists the replicas of an application that may move, start-first: they
// run, are not on their way already, and can be twice for a moment.
func Movable(s Snapshot) []Move {
	n := &next{Snapshot: s}
	m := n.sort()
	n.diff = Diff(n.Templates, s.App.Release, m.current)
	templates := map[slotKey]Template{}
	for _, t := range n.Templates {
		templates[slotKey{t.Service, t.Slot}] = t
	}
	var out []Move
	for _, a := range n.diff.Keep {
		t := templates[slotKey{a.Service, a.Slot}]
		if _, moving := m.successors[a.Task]; moving || t.Host != "" || a.Phase != record.PhaseRun || !n.HostUp[a.Host] ||
			n.Observed[a.Task].State != record.StateRunning || n.blocks(a) != "" {
			continue
		}
		if x := n.moveOf(a, t, CauseRebalance); !x.StopFirst {
			out = append(out, x)
		}
	}
	return out
}
