package rebalance

import "fmt"

// measure is one of the things that are evened out, the first ones first.
type measure int

const (
	byService measure = iota // replicas of a service on hosts
	byShare                  // shares of hosts that are reserved
	byTotal                  // replicas on hosts
)

// minGain is by how much of a host two hosts' shares must come closer for a
// replica to move.
const minGain = 0.02

// better reports whether r's move to a host evens out what is measured, and
// makes what comes before it no less even.
func (m measure) better(p *planner, r *replica, to int) bool {
	apart := r.of.on[r.host] - r.of.on[to]
	switch {
	case m == byService:
		return apart >= 2
	case apart < 1:
		return false
	case m == byShare:
		gain, weighs := p.shareGain(r, to)
		return weighs && gain >= minGain
	case p.hosts[r.host].replicas-p.hosts[to].replicas < 2:
		return false
	}
	gain, weighs := p.shareGain(r, to)
	return !weighs || gain >= 0
}

// shareGain is by how much r's move brings the shares of both hosts together, in
// parts of a host: by it falls the sum, over hosts and over CPUs and memory, of
// capacity times the square of the share. weighs is false where r reserves
// nothing, or of hosts that do not say what they have.
func (p *planner) shareGain(r *replica, to int) (gain float64, weighs bool) {
	f, t := &p.hosts[r.host], &p.hosts[to]
	sum := 0.0
	add := func(need, all, used, of, usedThere, ofThere float64) {
		if need <= 0 || of <= 0 || ofThere <= 0 {
			return
		}
		weight := need / all
		sum += weight
		gain += weight * ((used-need/2)/of - (usedThere+need/2)/ofThere)
	}
	add(float64(r.Task.Reserve.NanoCPUs), p.cpu, f.cpu, f.cpus, t.cpu, t.cpus)
	add(float64(r.Task.Reserve.MemoryBytes), p.memory, f.memory, f.bytes, t.memory, t.bytes)
	if sum == 0 {
		return 0, false
	}
	return gain / sum, true
}

// share is the fuller of a host's two shares.
func (h standing) share() float64 {
	most := 0.0
	if h.cpus > 0 {
		most = h.cpu / h.cpus
	}
	if h.bytes > 0 {
		most = max(most, h.memory/h.bytes)
	}
	return most
}

// of is how full a host is by a measure that is not about a service.
func (m measure) of(h standing) float64 {
	if m == byShare {
		if h.cpus <= 0 || h.bytes <= 0 {
			return 0
		}
		return min(h.cpu/h.cpus, h.memory/h.bytes)
	}
	return float64(h.replicas) + 1
}

// fullness is how full r's host is.
func (m measure) fullness(p *planner, r *replica) float64 {
	switch m {
	case byService:
		return float64(r.of.on[r.host])
	case byShare:
		if r.Task.Reserve.NanoCPUs <= 0 && r.Task.Reserve.MemoryBytes <= 0 {
			return -1
		}
		return p.hosts[r.host].share()
	}
	return float64(p.hosts[r.host].replicas)
}

// gain says what a move, which is not counted yet, evens out.
func (m measure) gain(p *planner, r *replica, to int) string {
	f, t := p.hosts[r.host], p.hosts[to]
	switch m {
	case byService:
		a, b := r.of.on[r.host], r.of.on[to]
		return fmt.Sprintf("%d and %d replicas of %s become %d and %d", a, b, r.of.name, a-1, b+1)
	case byShare:
		return shareText(r, f, t)
	}
	return fmt.Sprintf("%d and %d replicas in all become %d and %d", f.replicas, t.replicas, f.replicas-1, t.replicas+1)
}

// shareText tells of the resource of which the replica takes most.
func shareText(r *replica, f, t standing) string {
	cpu, memory := float64(r.Task.Reserve.NanoCPUs), float64(r.Task.Reserve.MemoryBytes)
	name, need, a, of, b, ofThere := "memory", memory, f.memory, f.bytes, t.memory, t.bytes
	if f.cpus > 0 && t.cpus > 0 && (f.bytes <= 0 || t.bytes <= 0 || cpu/f.cpus >= memory/f.bytes) {
		name, need, a, of, b, ofThere = "CPU", cpu, f.cpu, f.cpus, t.cpu, t.cpus
	}
	return fmt.Sprintf("%.0f%% and %.0f%% of the hosts' %s reserved become %.0f%% and %.0f%%", 100*a/of, 100*b/ofThere, name, 100*(a-need)/of, 100*(b+need)/ofThere)
}
