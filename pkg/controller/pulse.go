package controller

import (
	"context"
	"sync"
	"time"
)

const (
	// pulseEvery is how often etcd is asked whether its majority answers, and
	// pulseWait how long one question may take: one that a member which is dead
	// by now was asked must not hold up the next.
	pulseEvery = time.Second
	pulseWait  = 2 * time.Second
	// pulseGap is how long etcd may be silent and count as having answered all
	// along: as long as it takes to elect another leader, which then gives every
	// lease its whole time again.
	pulseGap = 6 * time.Second
)

// pulse is since when etcd's majority has answered this controller, whether it
// leads or stands by. Times are of the process's own clock, which does not jump.
type pulse struct {
	mu          sync.Mutex // guards the following fields
	since, last time.Time
}

// answered notes an answer.
func (p *pulse) answered(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.IsZero() || at.Sub(p.last) > pulseGap {
		p.since = at
	}
	p.last = at
}

// steady is for how long etcd has answered all along; 0 when it does not.
func (p *pulse) steady(at time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.IsZero() || at.Sub(p.last) > pulseGap {
		return 0
	}
	return at.Sub(p.since)
}

// keepPulse asks etcd until ctx ends.
func (c *Controller) keepPulse(ctx context.Context) {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	for {
		short, cancel := context.WithTimeout(ctx, pulseWait)
		// Any key will do: a read that is not a local one takes the majority.
		if _, err := c.etcd.client.Get(short, c.store.Keys.Schema()); err == nil {
			c.pulse.answered(time.Now())
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
