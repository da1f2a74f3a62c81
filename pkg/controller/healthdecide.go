package controller

import (
	"fmt"
	"time"

	"clocker.io/clocker/pkg/record"
)

// What is made of hosts whose agents do not answer. A lease ends at most 4 s
// after its agent was last heard of.
const (
	// lostAfter is how long a host may be suspect before its work is replaced,
	// manyAfter when more than half of the fleet's hosts went: then it is more
	// likely the network than the hosts, and starting everything twice would
	// harm what still runs.
	lostAfter = 2 * time.Second
	manyAfter = 30 * time.Second
	// leaderGrace is how long a leader only looks after etcd was away: agents
	// could not renew their leases, and need a while to find it again. A new
	// leader that stood by while etcd answered has nothing to wait for.
	leaderGrace = 10 * time.Second
	// A host that was lost flapLosses times within flapWindow is quarantined
	// until it was up for flapQuiet.
	flapLosses = 3
	flapWindow = 10 * time.Minute
	flapQuiet  = 10 * time.Minute
)

// sight is a host as the leader sees it.
type sight struct {
	// Up says that its agent's lease is there. Down is for how long this
	// controller has seen that it is not.
	Up   bool
	Down time.Duration
	// Steady is for how long etcd has answered this controller all along.
	Steady time.Duration
	// Many says that more than half of the fleet's hosts are down.
	Many bool
	// Was is its health so far; the zero value is that of a host that was never
	// anything but ready.
	Was record.HostHealth
}

// nextHealth decides what a host's health is now. wake is when to look again
// though nothing changes, 0 for never.
func nextHealth(s sight, now time.Time) (next record.HostHealth, wake time.Duration) {
	next = s.Was
	for len(next.Losses) > 0 && now.Sub(next.Losses[0]) > flapWindow {
		next.Losses = next.Losses[1:]
	}
	become := func(state, reason string) {
		next.State, next.Since, next.Reason = state, now, reason
	}
	was := s.Was.State
	if was == "" {
		was = record.HealthReady
	}
	if s.Up {
		switch was {
		case record.HealthSuspect:
			become(record.HealthReady, "")
		case record.HealthLost:
			if len(next.Losses) >= flapLosses {
				become(record.HealthQuarantined, fmt.Sprintf("it was lost %d times within %s", len(next.Losses), flapWindow))
				return next, flapQuiet
			}
			become(record.HealthReady, "")
		case record.HealthQuarantined:
			if left := flapQuiet - now.Sub(s.Was.Since); left > 0 {
				return next, left
			}
			next.Losses = nil
			become(record.HealthReady, "")
		}
		return next, 0
	}
	after := lostAfter
	if s.Many {
		after = manyAfter
	}
	left := max(after-s.Down, leaderGrace-s.Steady)
	switch {
	case was == record.HealthLost:
		return next, 0
	case left <= 0:
		next.Losses = append(next.Losses[:len(next.Losses):len(next.Losses)], now)
		become(record.HealthLost, "its agent does not answer")
		return next, 0
	case was == record.HealthReady:
		become(record.HealthSuspect, "its agent does not answer")
	}
	return next, left
}
