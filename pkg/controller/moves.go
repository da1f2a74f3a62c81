package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"clocker.io/clocker/pkg/plan"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// restTime is how long a replica whose move failed is left alone.
const restTime = time.Minute

// moving is what the leader knows of moves beside what is in etcd: which are
// not to be tried again yet, and why replicas stay where they are.
type moving struct {
	mu      sync.Mutex
	resting map[string]time.Time         // until when, by plan.MoveKey; guarded by mu
	blocked map[string]map[string]string // by application and task; guarded by mu
}

// restingOf are the replicas of an application that are left alone now.
func (m *moving) restingOf(now time.Time) map[string]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]bool{}
	for key, until := range m.resting {
		if now.Before(until) {
			out[key] = true
		} else {
			delete(m.resting, key)
		}
	}
	return out
}

func (m *moving) rest(key string, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.resting == nil {
		m.resting = map[string]time.Time{}
	}
	m.resting[key] = until
}

// block notes why tasks of an application cannot move.
func (m *moving) block(app string, why map[string]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blocked == nil {
		m.blocked = map[string]map[string]string{}
	}
	if len(why) == 0 {
		delete(m.blocked, app)
		return
	}
	m.blocked[app] = why
}

// add notes why one more task cannot move.
func (m *moving) add(app, task, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.blocked == nil {
		m.blocked = map[string]map[string]string{}
	}
	all := map[string]string{task: why}
	for k, v := range m.blocked[app] {
		if k != task {
			all[k] = v
		}
	}
	m.blocked[app] = all
}

// whyBlocked says why a task does not move, or "".
func (m *moving) whyBlocked(app, task string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.blocked[app][task]
}

// noteMoves remembers and tells what a decision says of moves.
func (c *Controller) noteMoves(ctx context.Context, app string, d plan.Decision) {
	for _, a := range d.Abandoned {
		c.moving.rest(plan.MoveKey(app, a.Assignment.Service, a.Assignment.Slot), c.now().Add(restTime))
		c.emit(ctx, "task", "move-failed", a.Assignment.Container.Name,
			fmt.Sprintf("it stays where it is: on %s: %s", c.hostName(a.Assignment.Host), a.Reason))
	}
	c.moving.block(app, d.Blocked)
}

// fillMissing places replicas that the current release lacks, and successors of
// those that move. It returns what cannot be placed as text.
func (c *Controller) fillMissing(ctx context.Context, app string) (int64, string, error) {
	c.placing.Lock()
	defer c.placing.Unlock()
	v := c.view(app) // the former look may be too old by now
	if v.Release == nil || v.App.Pending != 0 || v.App.Desired == record.DesiredRemoved {
		return 0, "", store.ErrConflict
	}
	now := plan.Next(v.Snapshot)
	if len(now.Remove) > 0 {
		return 0, "", store.ErrConflict // these go first
	}
	missing := slices.Clone(now.Missing)
	for _, m := range now.Moves {
		missing = append(missing, m.Missing)
	}
	placed := c.decide(app, missing)
	var problems []string
	d := plan.Decision{}
	for i, p := range placed {
		if err := p.Err(); err != nil {
			problems = append(problems, err.Error())
			if i >= len(now.Missing) {
				c.moving.add(app, missing[i].Replaces.Task, err.Error())
			}
			continue
		}
		a := c.assignment(app, v.App, v.App.Release, missing[i], p)
		if i >= len(now.Missing) {
			m := now.Moves[i-len(now.Missing)]
			a.Cause = m.Cause
			if m.Ended { // it says so there, and does not run again
				a.Phase, a.Completed = record.PhaseRun, a.Restarts+1
			}
			if m.StopFirst {
				d.Remove = append(d.Remove, *m.Replaces)
			} else {
				a.Replaces = m.Replaces.Task
			}
		}
		d.Put = append(d.Put, a)
	}
	slices.Sort(problems)
	text := ""
	if len(problems) > 0 {
		text = problems[0]
	}
	if len(d.Put) == 0 {
		return 0, text, nil
	}
	revision, err := c.carryOut(ctx, v, d)
	if err != nil {
		return 0, text, err
	}
	return revision, text, c.cache.wait(ctx, revision)
}
