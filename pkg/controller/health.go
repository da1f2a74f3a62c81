package controller

import (
	"cmp"
	"context"
	"errors"
	"reflect"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// keepHealth judges hosts by their agents' leases while this controller leads:
// who is suspect, who is lost and has its work replaced, who flaps.
func (c *Controller) keepHealth(ctx context.Context) {
	changed := c.cache.wakes.subscribe(topicHosts)
	defer changed.end()
	// By this process's own clock, which does not jump.
	down := map[string]time.Time{}
	for {
		wake, err := c.judge(ctx, down)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if !errors.Is(err, store.ErrConflict) {
				c.log.Warn("health of hosts cannot be written, trying again", "error", err)
			}
			wake = 200 * time.Millisecond
		}
		timer := time.NewTimer(wake)
		select {
		case <-ctx.Done():
		case <-changed.C:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// judgeAgain is how often health is looked at though nothing has changed.
const judgeAgain = time.Minute

// healthChange is a host's health that is not what it was.
type healthChange struct {
	host, name string
	revision   int64
	was, now   record.HostHealth
}

// judge writes what has changed in hosts' health. It returns when to look
// again.
func (c *Controller) judge(ctx context.Context, down map[string]time.Time) (wake time.Duration, err error) {
	fence, _ := c.lead.get()
	if fence == nil {
		return judgeAgain, store.ErrConflict
	}
	wake = judgeAgain
	now, clock := c.now(), time.Now()
	var changes []healthChange
	c.cache.mu.RLock()
	counted, gone := 0, 0
	for id, h := range c.cache.hosts {
		_, up := c.cache.leases[id]
		_, seen := c.cache.facts[id]
		if up || !seen || h.Value.State == record.HostRemoving {
			delete(down, id)
		} else {
			gone++
			if _, known := down[id]; !known {
				if down[id] = clock; !c.cache.leaseGone[id].IsZero() {
					down[id] = c.cache.leaseGone[id] // seen while another one led
				}
			}
		}
		if seen && h.Value.State != record.HostRemoving {
			counted++
		}
	}
	many := gone >= 2 && 2*gone > counted
	for id, h := range c.cache.hosts {
		_, up := c.cache.leases[id]
		since, isDown := down[id]
		if !up && !isDown {
			continue // it has never been there, or is being removed
		}
		was := c.cache.health[id]
		s := sight{Up: up, Steady: c.pulse.steady(clock) + leaderGrace - cmp.Or(c.leaderGrace, leaderGrace), Many: many, Was: was.Value}
		if isDown {
			s.Down = clock.Sub(since)
		}
		next, again := nextHealth(s, now)
		if again > 0 {
			wake = min(wake, again)
		}
		if !reflect.DeepEqual(next, was.Value) && (next.State != was.Value.State || len(next.Losses) != len(was.Value.Losses)) {
			changes = append(changes, healthChange{host: id, name: h.Value.Name, revision: was.Revision, was: was.Value, now: next})
		}
	}
	c.cache.mu.RUnlock()
	var last int64
	for _, x := range changes {
		key := c.store.Keys.HostHealth(x.host)
		// A host that was removed meanwhile leaves no key behind.
		revision, err := c.store.Txn(fence...).Exists(c.store.Keys.HostSpec(x.host)).Unchanged(key, x.revision).Put(key, x.now).Commit(ctx)
		if err != nil {
			return 0, err
		}
		last = revision
		c.tellHealthOf(ctx, x, many)
	}
	if last > 0 {
		return wake, c.cache.wait(ctx, last)
	}
	return wake, nil
}

// tellHealthOf tells of a change.
func (c *Controller) tellHealthOf(ctx context.Context, x healthChange, many bool) {
	if x.was.State == x.now.State {
		return
	}
	text := x.now.Reason
	switch x.now.State {
	case record.HealthLost:
		text += "; what it ran is started on other hosts, but for what writes to the host itself"
	case record.HealthSuspect:
		text += "; it gets no new work"
		if many {
			text += "; so do most hosts, so their work is not started elsewhere for " + manyAfter.String()
		}
	case record.HealthReady:
		if x.was.State == "" {
			return
		}
		text = "it answers again"
	}
	c.log.Info("host is "+x.now.State, "host", x.name, "reason", text)
	c.emit(ctx, "host", x.now.State, x.name, text)
}
