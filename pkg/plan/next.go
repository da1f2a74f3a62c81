package plan

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// Snapshot is one application as the leader sees it.
type Snapshot struct {
	Fleet string
	App   record.AppState
	// Release is the pending release if there is one, else the current one;
	// nil before the first is stored.
	Release *record.Release
	// Templates are Release's replicas; nil means that Next works them out,
	// which costs a hash of each.
	Templates []Template
	// Status is Release's status.
	Status      record.ReleaseStatus
	Assignments []record.Assignment
	// Observed are the reports of this application's tasks, by task.
	Observed map[string]record.Observed
	// HostUp says of each host, by id, whether its agent answers; Hosts
	// gives their names.
	HostUp map[string]bool
	Hosts  map[string]string
	// HostLost says which hosts' work is replaced elsewhere, by id. Leaving
	// gives for hosts whose work moves away the cause, "drain" or "remove".
	HostLost map[string]bool
	Leaving  map[string]string
	// Resting names replicas whose last move failed a short while ago, as
	// [MoveKey] does; they are not moved for now.
	Resting map[string]bool
	// Gone says of hosts whose agents stop what has a fence for how long the
	// leader has certainly seen no lease of theirs, by its own clock.
	Gone map[string]time.Duration
	// Now is the time of the decision.
	Now time.Time
	// NetworkUses counts the hosts that still have a network of this
	// application, hosts that are down left out.
	NetworkUses int
}

// Decision is what to do next. The zero value means: nothing, wait.
type Decision struct {
	// Put are assignments to write, changed; Remove those to delete.
	Put    []record.Assignment
	Remove []record.Assignment
	// Missing are replicas to place and start.
	Missing []Missing
	// Forget are reports to delete whose hosts are down and whose tasks are
	// no longer assigned. One that has a fence may only be deleted while its
	// host has no lease, and has taken none since it was seen to have none.
	Forget []record.Observed
	// Phase is the release's new phase, with Problems when it failed; empty
	// means unchanged.
	Phase    string
	Problems []string
	// RemoveNetworks says that no task is left and networks may go; Finished
	// that the application's own keys may go.
	RemoveNetworks, Finished bool
	// Waiting says for each task that does not run yet what it waits for.
	Waiting map[string]string
	// Moves are replicas to place elsewhere although they run.
	Moves []Move
	// Abandoned are successors among Remove that did not come up, with why.
	Abandoned []Abandoned
	// Blocked says of tasks on hosts that work leaves why they cannot.
	Blocked map[string]string
	// Again is how soon to decide again though nothing has changed; 0 means no
	// sooner than anyway.
	Again time.Duration
}

// Next decides what to do with an application.
func Next(s Snapshot) Decision {
	n := &next{Snapshot: s, d: Decision{Waiting: map[string]string{}}}
	if n.Templates == nil && s.Release != nil {
		n.Templates = Templates(s.Fleet, s.Release)
	}
	switch {
	case s.App.Desired == record.DesiredRemoved:
		n.remove()
	case s.App.Pending != 0:
		n.pending()
	case s.Release != nil:
		n.steady()
	}
	return n.d
}

type next struct {
	Snapshot
	d    Decision
	diff Difference
}

// remove takes everything away: tasks first, then networks, then keys.
func (n *next) remove() {
	n.d.Remove = n.Assignments
	n.d.Forget = n.orphans(nil)
	left := 0
	for _, o := range n.Observed {
		if n.HostUp[o.Host] {
			left++
		}
	}
	if len(n.Assignments) > 0 || left > 0 || n.NetworkUses > 0 {
		return
	}
	n.d.RemoveNetworks, n.d.Finished = true, true
}

// orphans are reports of tasks that nobody is asked for any more, on hosts
// that cannot delete them.
func (n *next) orphans(keep []record.Assignment) []record.Observed {
	assigned := map[string]bool{}
	for _, a := range keep {
		assigned[a.Task] = true
	}
	var out []record.Observed
	for _, o := range n.Observed {
		if !assigned[o.Task] && !n.HostUp[o.Host] && !n.mayStillWrite(o) {
			out = append(out, o)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Task < out[j].Task })
	return append(out, n.expired(keep)...)
}

// mayStillWrite reports whether a report is of a container that a successor
// waits for: both would write to the same data. It is kept until its host is
// back, or forgotten.
func (n *next) mayStillWrite(o record.Observed) bool {
	return n.App.Desired != record.DesiredRemoved && slices.ContainsFunc(n.Templates, func(t Template) bool {
		return t.Service == o.Service && t.Slot == o.Slot && exclusive(t.Spec)
	})
}

// pending brings a release about, or takes it back.
func (n *next) pending() {
	switch n.Status.Phase {
	case record.ReleasePlanning:
		// The leader that plans holds the application while it does; a
		// release found in this phase by anyone else has lost its leader.
		if n.Status.Cancel {
			n.giveBack(record.ReleaseCancelled)
		}
	case record.ReleasePreparing:
		n.prepare()
	case record.ReleaseStarting:
		n.start()
	}
}

// Abandon is the decision for a release whose leader died while it planned.
func Abandon(s Snapshot) Decision {
	n := &next{Snapshot: s}
	n.giveBack(record.ReleaseFailed, "the controller stopped while it planned this release: deploy again")
	return n.d
}

// giveBack ends a release as if it had not been: its own assignments go, and
// the steady state brings back what the current release wants.
func (n *next) giveBack(phase string, problems ...string) {
	n.d.Put, n.d.Remove = nil, nil
	for _, a := range n.Assignments {
		if a.Release == n.App.Pending {
			n.d.Remove = append(n.d.Remove, a)
		}
	}
	n.d.Phase, n.d.Problems = phase, problems
}

// Patience is how long a release waits for a task whose failure may pass by
// itself, such as a container that its restart policy starts again.
const Patience = time.Minute

// troubles are what makes a release fail: tasks of it that cannot succeed,
// and hosts that went away under it.
func (n *next) troubles(tasks []record.Assignment) []string {
	var out []string
	lost := map[string]bool{}
	for _, a := range sorted(tasks) {
		if a.Release != n.App.Pending && a.Retried != n.App.Pending {
			continue
		}
		// A host that is only suspect may be back in a moment.
		if n.HostLost[a.Host] && !lost[a.Host] {
			lost[a.Host] = true
			out = append(out, fmt.Sprintf("host %s stopped answering", n.hostName(a.Host)))
		}
		o, ok := n.Observed[a.Task]
		if !ok || o.State != record.StateFailed {
			continue
		}
		if o.Restarts < a.Restarts && !o.Fatal && n.Now.Sub(n.Status.UpdatedAt) <= Patience {
			continue // it is being started again
		}
		if o.Fatal || a.Phase == record.PhasePrepare || givesUp(a.Container.Restart) || n.Now.Sub(n.Status.UpdatedAt) > Patience {
			out = append(out, fmt.Sprintf("%s on %s: %s", a.Container.Name, n.hostName(a.Host), o.Error))
		}
	}
	return out
}

func (n *next) hostName(id string) string {
	if name := n.Hosts[id]; name != "" {
		return name
	}
	return id
}

// givesUp reports whether the engine does not start the container again.
func givesUp(r model.Restart) bool { return r.Policy == "" || r.Policy == "no" }

// prepare waits until every host has what the release needs. Nothing has been
// made until then.
func (n *next) prepare() {
	n.diff = Diff(n.Templates, n.App.Pending, n.Assignments)
	if n.Status.Cancel {
		n.giveBack(record.ReleaseCancelled)
		return
	}
	if p := n.troubles(n.diff.Keep); len(p) > 0 {
		n.giveBack(record.ReleaseFailed, p...)
		return
	}
	ready := true
	for _, a := range n.diff.Keep {
		if a.Release != n.App.Pending {
			continue
		}
		if o := n.Observed[a.Task]; o.State != record.StatePrepared {
			ready = false
			n.d.Waiting[a.Task] = "its image"
		}
	}
	if !ready {
		return
	}
	n.Status.Phase = record.ReleaseStarting
	n.d.Phase = record.ReleaseStarting
	n.start()
}

// start replaces what is obsolete and starts what is new, each task as soon
// as what it waits for is there.
func (n *next) start() {
	n.diff = Diff(n.Templates, n.App.Pending, n.Assignments)
	phase := n.d.Phase
	if n.Status.Cancel {
		n.giveBack(record.ReleaseCancelled)
		return
	}
	if p := n.troubles(n.diff.Keep); len(p) > 0 {
		n.giveBack(record.ReleaseFailed, p...)
		return
	}
	n.d.Phase = phase
	n.d.Remove = n.diff.Obsolete
	n.d.Forget = n.expired(n.Assignments)
	if p := n.release(n.diff.Keep); len(p) > 0 {
		n.giveBack(record.ReleaseFailed, p...)
		return
	}
	if len(n.diff.Missing) == 0 && n.complete() {
		n.d.Phase = record.ReleaseDone
	}
}

// complete reports whether every replica has come up.
func (n *next) complete() bool {
	for _, a := range n.diff.Keep {
		if a.Phase == record.PhaseStop || n.stopped(a.Service) {
			continue
		}
		if !n.HostUp[a.Host] && a.Release == n.App.Pending {
			n.d.Waiting[a.Task] = "host " + n.hostName(a.Host) + ", which does not answer"
			return false // what was reported is old
		}
		o := n.Observed[a.Task]
		up := o.State == record.StateRunning || o.State == record.StateComplete
		if n.Status.Wait && o.Health != "" && o.Health != "healthy" {
			n.d.Waiting[a.Task] = "its health check"
			up = false
		}
		if !up {
			return false
		}
	}
	return true
}

// steady keeps the current release as the user wants it: replicas that went
// with a host or a failed deploy come back, and stop, start and restart reach
// the tasks.
func (n *next) steady() {
	m := n.sort()
	n.diff = Diff(n.Templates, n.App.Release, m.current)
	n.d.Remove = slices.Concat(n.diff.Obsolete, m.lost)
	n.d.Missing = n.diff.Missing
	n.d.Forget = n.orphans(append(m.all(), n.diff.Keep...))
	going := n.finish(m)
	n.release(slices.DeleteFunc(slices.Clone(n.diff.Keep), func(a record.Assignment) bool { return going[a.Task] }))
	n.move(m)
}

func (n *next) stopped(service string) bool {
	return n.App.Desired == record.DesiredStopped || slices.Contains(n.App.Stopped, service)
}

// failedBefore reports whether a replica that a deploy keeps as it is has
// failed, and nothing starts it again. The deploy does so, once: whoever
// deploys wants it to run.
func (n *next) failedBefore(a record.Assignment) bool {
	return n.App.Pending != 0 && a.Release != n.App.Pending && a.Retried != n.App.Pending &&
		a.Phase == record.PhaseRun && n.Observed[a.Task].State == record.StateFailed
}

// release moves tasks to the phase they should be in. It returns problems
// that no waiting can solve.
func (n *next) release(tasks []record.Assignment) []string {
	var problems []string
	for _, a := range tasks {
		was := a
		restarts := n.App.Restarts[""] + n.App.Restarts[a.Service]
		switch {
		case a.Phase == record.PhasePrepare && n.stopped(a.Service):
			continue // started when the user says so
		case a.Phase == record.PhasePrepare:
			waits, problem := n.gate(&a)
			if problem != "" {
				problems = append(problems, problem)
			}
			if waits != "" {
				n.d.Waiting[a.Task] = waits
				continue
			}
			a.Phase = record.PhaseRun
		case n.stopped(a.Service):
			a.Phase = record.PhaseStop
		default:
			a.Phase = record.PhaseRun
			if n.failedBefore(was) {
				a.Retries, a.Retried = a.Retries+1, n.App.Pending
			}
		}
		a.Restarts = max(a.Restarts, restarts+a.Retries)
		if a.Phase != was.Phase || a.Restarts != was.Restarts {
			n.d.Put = append(n.d.Put, a)
		}
	}
	return problems
}
