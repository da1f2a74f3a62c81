// Package rebalance works out which replicas should move so that hosts are used
// evenly: the fewest moves after which no single move makes replicas of a
// service, or replicas in all, more even over the hosts that may have them. It
// is pure: a snapshot in, moves with reasons out. It never moves anything.
//
// A move is only made where placement would put the replica today, so every
// filter holds, and only when it evens something out: the sum of squares of the
// counts falls with each move, which is why it ends, and why a second run finds
// nothing.
//
// Design page: docs/design/healing.md.
package rebalance

import (
	"cmp"
	"fmt"
	"slices"

	"clocker.io/clocker/pkg/placement"
)

// Replica is one that may move.
type Replica struct {
	// Task is what placement knows of it, by its id, with the host ports
	// that it has and the host, by id, that it is on.
	Task  placement.Task
	Ports []string
	Host  string
	// Request is what asks for a host for it.
	Request placement.Request
}

// Move is a replica that goes from one host to another, both by id.
type Move struct {
	Task, From, To string
	// Gain says what gets more even.
	Gain string
}

// Plan works out at most most moves; 0 means as many as it takes. The fleet
// is changed as the moves would change it.
func Plan(f *placement.Fleet, replicas []Replica, most int) []Move {
	all := slices.Clone(replicas)
	slices.SortFunc(all, func(a, b Replica) int { return cmp.Compare(a.Task.ID, b.Task.ID) })
	c := counts{total: map[string]int{}, service: map[string]map[string]int{}}
	for _, r := range all {
		c.add(r, r.Host, 1)
	}
	var moves []Move
	moved := map[string]bool{}
	for most == 0 || len(moves) < most {
		m, at := next(f, all, c, moved)
		if at < 0 {
			break
		}
		c.add(all[at], m.From, -1)
		c.add(all[at], m.To, 1)
		all[at].Host = m.To
		moved[m.Task] = true // at most once each
		moves = append(moves, m)
	}
	return moves
}

// counts are the replicas of hosts.
type counts struct {
	total   map[string]int
	service map[string]map[string]int // by "app/service", then by host
}

func (c counts) add(r Replica, host string, n int) {
	key := r.Task.App + "/" + r.Task.Service
	if c.service[key] == nil {
		c.service[key] = map[string]int{}
	}
	c.service[key][host] += n
	c.total[host] += n
}

// next finds the first move that evens something out, those that even out a
// service before those that even out hosts.
func next(f *placement.Fleet, all []Replica, c counts, moved map[string]bool) (Move, int) {
	for _, services := range []bool{true, false} {
		for i, r := range all {
			if moved[r.Task.ID] || !c.crowded(r, services) {
				continue
			}
			if to := elsewhere(f, r, func(host string) bool { return c.evens(r, host, services) }); to != "" {
				return Move{Task: r.Task.ID, From: r.Host, To: to, Gain: c.gain(r, to, services)}, i
			}
		}
	}
	return Move{}, -1
}

// crowded reports whether a replica's host has more than some host that is
// known has, by two.
func (c counts) crowded(r Replica, service bool) bool {
	if !service {
		return c.total[r.Host] >= 2
	}
	return c.service[r.Task.App+"/"+r.Task.Service][r.Host] >= 2
}

// evens reports whether a move makes counts more even, and nothing less so.
func (c counts) evens(r Replica, to string, service bool) bool {
	of := c.service[r.Task.App+"/"+r.Task.Service]
	if service {
		return of[r.Host]-of[to] >= 2
	}
	return of[r.Host]-of[to] >= 1 && c.total[r.Host]-c.total[to] >= 2
}

func (c counts) gain(r Replica, to string, service bool) string {
	if service {
		of := c.service[r.Task.App+"/"+r.Task.Service]
		return fmt.Sprintf("%d and %d replicas of %s become %d and %d", of[r.Host], of[to], r.Task.Service, of[r.Host]-1, of[to]+1)
	}
	return fmt.Sprintf("%d and %d replicas in all become %d and %d", c.total[r.Host], c.total[to], c.total[r.Host]-1, c.total[to]+1)
}

// elsewhere is the host that placement prefers among those that are good for a
// replica, or "". The replica is there afterwards; else it is where it was.
func elsewhere(f *placement.Fleet, r Replica, good func(host string) bool) string {
	q := r.Request
	q.Task, q.Prefer = r.Task.ID, ""
	q.Avoid = append(slices.Clone(q.Avoid), r.Host)
	for {
		f.RemoveTask(r.Task.ID)
		d := f.Place([]placement.Request{q})[0]
		if d.Host != "" && good(d.Host) {
			return d.Host
		}
		f.RemoveTask(r.Task.ID)
		f.PutTask(r.Host, r.Task, r.Ports)
		if d.Host == "" {
			return ""
		}
		q.Avoid = append(q.Avoid, d.Host) // the next best
	}
}
