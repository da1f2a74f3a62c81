// Package rebalance works out which replicas should move so that hosts are used
// evenly: first replicas of a service over hosts, then what replicas reserve of
// the hosts' CPUs and memory, then replicas in all. It is pure: a snapshot in,
// moves with reasons out. It never moves anything.
//
// A move is only made where placement would put the replica today, so every
// filter holds, and only when it evens something out: of three sums of squares -
// a service's replicas by host, the shares reserved of hosts, the replicas of
// hosts - the first one that a move changes falls. That is why it ends.
//
// Design page: docs/design/healing.md.
package rebalance

import (
	"cmp"
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

// Plan works out at most most moves; 0 means as many as it takes, after which
// a second run finds nothing. No replica moves twice. Each move is one that
// placement allows when those before it are made. Replicas of the fleet that are
// not among those given count, and stay. The fleet is changed as the moves would
// change it.
func Plan(f *placement.Fleet, replicas []Replica, most int) []Move {
	p := newPlanner(f, replicas)
	for moved := true; moved && (most <= 0 || p.away < most); {
		moved = false
		for _, kind := range []measure{byService, byShare, byTotal} {
			moved = p.sweep(kind, most) || moved
		}
	}
	return p.straight()
}

// planner is one run of Plan.
type planner struct {
	f     *placement.Fleet
	all   []replica
	hosts []standing
	ids   []string
	// cpu and memory are what all hosts have.
	cpu, memory float64
	good        []bool
	// order are the replicas that moved, by their first move, and away is how
	// many of them have not come back.
	order []*replica
	away  int
}

// replica is one of those given; what is dense is by host.
type replica struct {
	Replica
	host int
	of   *service
	// home is where it was at first, and gain what its last move evened out.
	home  int
	gain  string
	moved bool
}

// service is one with replicas that may move.
type service struct {
	name string
	on   []int32 // its replicas by host
	// vain is the fullness from which no host was found in a sweep.
	vain  float64
	tried bool
}

// standing is a host as the measures see it.
type standing struct {
	replicas    int
	cpu, memory float64 // reserved
	cpus, bytes float64 // of so much; 0 where it is not known
}

func newPlanner(f *placement.Fleet, replicas []Replica) *planner {
	p := &planner{f: f, ids: f.HostIDs()}
	p.good, p.hosts = make([]bool, len(p.ids)), make([]standing, len(p.ids))
	at := make(map[string]int, len(p.ids))
	for i, id := range p.ids {
		s := f.Standing(id)
		at[id] = i
		p.hosts[i] = standing{
			replicas: s.Replicas, cpu: float64(s.Used.NanoCPUs), memory: float64(s.Used.MemoryBytes),
			cpus: float64(max(0, s.Capacity.NanoCPUs)), bytes: float64(max(0, s.Capacity.MemoryBytes)),
		}
		p.cpu += p.hosts[i].cpus
		p.memory += p.hosts[i].bytes
	}
	services := map[string]*service{}
	for _, r := range replicas {
		host, known := at[r.Host]
		if !known {
			continue
		}
		key := r.Task.App + "/" + r.Task.Service
		s := services[key]
		if s == nil {
			s = &service{name: r.Task.Service, on: make([]int32, len(p.ids))}
			services[key] = s
			for i, id := range p.ids {
				s.on[i] = int32(f.ReplicasOf(r.Task.App, r.Task.Service, id))
			}
		}
		p.all = append(p.all, replica{Replica: r, host: host, home: host, of: s})
	}
	slices.SortFunc(p.all, func(a, b replica) int { return cmp.Compare(a.Task.ID, b.Task.ID) })
	return p
}

// sweep goes once over the replicas, moves those whose move is a gain by a
// measure, and reports whether there were any. Of a service that found no host
// from a fuller one, those on hosts that are no fuller are not tried.
func (p *planner) sweep(by measure, most int) (moved bool) {
	for i := range p.all {
		p.all[i].of.tried = false
	}
	least := p.least(by)
	for i := range p.all {
		if most > 0 && p.away >= most {
			return moved
		}
		r := &p.all[i]
		full := by.fullness(p, r)
		if full <= least || r.of.tried && full <= r.of.vain {
			continue
		}
		to := p.elsewhere(r, by)
		if to < 0 {
			r.of.vain, r.of.tried = full, true
			continue
		}
		r.gain = by.gain(p, r, to)
		p.move(r, to)
		moved = true
	}
	return moved
}

// straight are the moves from where each replica was to where it has come, in an
// order in which placement allows each. One that has to wait for a place which
// another one in the same case has is left out.
func (p *planner) straight() []Move {
	ends := make(map[*replica]int, len(p.order))
	var left []*replica
	for _, r := range p.order {
		if r.host == r.home {
			continue
		}
		ends[r] = r.host
		left = append(left, r)
		p.f.RemoveTask(r.Task.ID)
		p.move(r, r.home)
	}
	for _, r := range left {
		p.f.PutTask(p.ids[r.home], r.Task, r.Ports)
	}
	clear(p.good)
	var moves []Move
	for before := -1; len(moves) > before; {
		before = len(moves)
		left = slices.DeleteFunc(left, func(r *replica) bool {
			to := ends[r]
			p.good[to] = true
			free := p.place(r)
			p.good[to] = false
			if free != to {
				return false
			}
			for _, by := range []measure{byTotal, byShare, byService} {
				if by.better(p, r, to) {
					r.gain = by.gain(p, r, to)
				}
			}
			moves = append(moves, Move{Task: r.Task.ID, From: p.ids[r.home], To: p.ids[to], Gain: r.gain})
			p.move(r, to)
			return true
		})
	}
	return moves
}

// least is the fullness from which on a move may be a gain, by what the
// emptiest host has now.
func (p *planner) least(by measure) float64 {
	if by == byService {
		return 1
	}
	lowest := -1.0
	for _, h := range p.hosts {
		if x := by.of(h); lowest < 0 || x < lowest {
			lowest = x
		}
	}
	return lowest
}

// elsewhere is the host that placement prefers among those to which a move is a
// gain, or -1. The replica is there afterwards; else it is where it was.
func (p *planner) elsewhere(r *replica, by measure) int {
	some := false
	for i := range p.hosts {
		p.good[i] = i != r.host && by.better(p, r, i)
		some = some || p.good[i]
	}
	if !some {
		return -1
	}
	return p.place(r)
}

// place is the good host that placement prefers, or -1. The replica is there
// afterwards; else it is where it was.
func (p *planner) place(r *replica) int {
	q := r.Request
	q.Task, q.Prefer = r.Task.ID, ""
	p.f.RemoveTask(r.Task.ID)
	d := p.f.PlaceAmong(q, p.good)
	if d.Host == "" {
		p.f.PutTask(p.ids[r.host], r.Task, r.Ports)
		return -1
	}
	return slices.Index(p.ids, d.Host)
}

// move counts a replica on its new host.
func (p *planner) move(r *replica, to int) {
	n := r.Task.Reserve
	add := func(host int, sign int32) {
		h := &p.hosts[host]
		h.replicas += int(sign)
		h.cpu += float64(sign) * float64(n.NanoCPUs)
		h.memory += float64(sign) * float64(n.MemoryBytes)
		r.of.on[host] += sign
	}
	add(r.host, -1)
	add(to, 1)
	if !r.moved {
		r.moved, p.order = true, append(p.order, r)
	}
	switch {
	case r.host == r.home && to != r.home:
		p.away++
	case r.host != r.home && to == r.home:
		p.away--
	}
	r.host = to
}
