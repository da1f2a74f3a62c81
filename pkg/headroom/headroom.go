// Package headroom decides how many hosts a fleet should have: how much room
// it must keep free, which machines to ask providers for, and which empty
// hosts may go. It is pure: a snapshot and what was decided before in, a
// decision with its reasons out. It never asks anybody for anything, reads no
// clock and keeps nothing between calls.
//
// The formulas are those of spec/clocker.md §3.1 in their direct form, which
// neither overshoots nor sticks; the stabilisation windows are §3.3.2.
//
// Design page: docs/design/headroom.md.
package headroom

import (
	"time"

	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"
)

// DefaultContainers is how many containers a host is taken to hold when a
// count or a percentage is to be kept free and nothing says it
// (docker.container.cluster.maxSize of the old system).
const DefaultContainers = 8

// The stabilisation windows where a policy names none.
const (
	DefaultUpDelay   = 30 * time.Second
	DefaultDownDelay = 5 * time.Minute
)

// Host is a host of the fleet. It counts when it is up and not cordoned.
type Host struct {
	placement.Host
	// Machine is the id of the provider's machine that it is; empty for a
	// host that a user added, which is never removed by itself.
	Machine string
	// For is the "app/service" that its machine was asked for; may be empty.
	For string
	// Leaving means that it is on its way out.
	Leaving bool
	AddedAt time.Time
	// LostSince is when it was lost; zero while it is not.
	LostSince time.Time
}

func (h *Host) counts() bool { return h.Up && !h.Cordoned && !h.Leaving }

// Machine is a machine that is on its way, or that a provider could give.
type Machine struct {
	// ID tells it from others.
	ID string
	// Host is what is expected of it.
	Host placement.Host
	// For is the "app/service" that it was asked for; may be empty.
	For string
}

// Want is a service that room is kept for.
type Want struct {
	App, Service string
	// N is how many more replicas must fit.
	N int
	// Request is one of them; nil when there is no such service, and Problem
	// says so.
	Request *placement.Request
	Problem string
}

// Snapshot is all that a decision rests on.
type Snapshot struct {
	Now time.Time
	// Began is when whoever decides began to: nobody is lost for longer.
	Began     time.Time
	Policy    record.HeadroomPolicy
	Placement placement.Policy
	Hosts     []Host
	// Coming are machines on their way, Free what providers could give, the
	// ones to take first coming first. NoFree says why there is none more.
	Coming, Free []Machine
	NoFree       string
	// Trying is how many more machines are asked for and have failed so far:
	// nothing is expected of them, but they may come.
	Trying int
	// Blocked are placements that are refused at the moment.
	Blocked []placement.Request
	Wants   []Want
}

// Dimension is one kind of room. Figures of containers are counts, those of
// CPU billionths of one, those of memory bytes, and those of a service
// replicas.
type Dimension struct {
	// Name is "count", "percent", "cpu", "memory" or "for APP/SERVICE".
	Name string
	// Possible is what the fleet can hold, Used what it holds, Available the
	// difference, which is negative where more runs than is meant to.
	Possible  int64
	Used      int64
	Available int64
	// Headroom is what must be available, Needed what lacks of it; it is not
	// positive while there is enough.
	Headroom int64
	Needed   int64
	// Utilisation is Used of Possible; between Low and High nothing needs
	// doing. All are 0 while the fleet can hold nothing.
	Utilisation float64
	Low         float64
	High        float64
	// Desired is how many hosts this dimension asks for.
	Desired int
	// Problem says why no number of hosts would do; may be empty.
	Problem string
}

// What a fleet's room is like (docker.container.cluster.hot|cold|ok).
const (
	Hot  = "hot"  // too little
	Cold = "cold" // a host's worth too much, and hosts may go
	OK   = "ok"
)

// Ask is a machine to be asked for.
type Ask struct {
	// Machine is the id of one of [Snapshot.Free].
	Machine string
	Why     string
	// For is the "app/service" whose placement is refused; empty for room.
	For string
}

// Leave is an empty host that may go, or one that stays and why.
type Leave struct {
	Host string
	Name string
	Why  string
}

// Outcome is what becomes of a refused placement.
type Outcome struct {
	Request placement.Request
	// Exactly one is set: Fits when a host takes it now, Coming when a machine
	// on its way or asked for now would, Hopeless why nothing will.
	Fits     bool
	Coming   string
	Hopeless string
}

// Decision is what should be done, and why.
type Decision struct {
	// Hosts counts, Coming is on its way.
	Hosts      int
	Coming     int
	Dimensions []Dimension
	// Desired is how many hosts there should be by what is seen now, within
	// the policy's bounds; Target by the stabilisation windows.
	Desired int
	Target  int
	// Event is one of Hot, Cold and OK.
	Event string
	// Reason says all of this in words.
	Reason string
	Ask    []Ask
	// Leave are the hosts that go now, Stay empty ones that do not.
	Leave []Leave
	Stay  []Leave
	// Lost are lost hosts whose machines are given back now, Kept those whose
	// machines are not, or not yet.
	Lost []Leave
	Kept []Leave
	// Blocked is in the order of the snapshot's.
	Blocked []Outcome
	// Recheck is when time alone may change the decision; zero for never.
	Recheck time.Time
}

// ForKey names a service as [Ask.For] and [Machine.For] do.
func ForKey(app, service string) string { return app + "/" + service }
