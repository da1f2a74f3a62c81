package controller

import (
	"cmp"
	"context"
	"sync"
	"time"

	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/headroom"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// scaleEvery is the shortest time between two looks at the number of hosts: a
// deploy of thousands of replicas is looked at a few times, not thousands.
const scaleEvery = 250 * time.Millisecond

// scaling is what a controller keeps about the number of hosts.
type scaling struct {
	hostWaits
	// open and adopter stand in for [location.Open] and the real one, unless
	// they are nil.
	open    func(record.Provider) (location.Provider, error)
	adopter hostAdopter
	// every stands in for scaleEvery, unless it is 0.
	every time.Duration

	mu sync.Mutex // guards the following fields
	// busy are machines that something is done about, by id, over all terms
	// of this controller.
	busy map[string]bool
	// last is the latest decision of this controller while it leads.
	last *headroom.Decision
	// kit is what is carried to machines; nil before the first one.
	kit *fleet.Kit
}

// carried makes ready, once, what is carried to machines.
func (s *scaling) carried() (*fleet.Kit, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kit == nil {
		k, err := fleet.NewKit(fleet.Build{})
		if err != nil {
			return nil, err
		}
		s.kit = k
	}
	return s.kit, nil
}

// take marks a machine as busy; false means that it is already.
func (s *scaling) take(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == nil {
		s.busy = map[string]bool{}
	}
	if s.busy[id] {
		return false
	}
	s.busy[id] = true
	return true
}

func (s *scaling) give(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, id)
}

func (s *scaling) keep(d *headroom.Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = d
}

func (s *scaling) latest() *headroom.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// keepScale keeps as many hosts as headroom wants, while this controller
// leads: it decides by pkg/headroom, asks providers by pkg/location, and takes
// hosts in and out. What it has begun is in etcd before it is begun.
func (c *Controller) keepScale(ctx context.Context) {
	s := &scaler{c: c, began: c.now(), done: make(chan finished)}
	defer c.scale.keep(nil)
	for {
		waits, added := c.scale.next()
		changed := c.cache.next()
		began := c.now()
		again := s.round(ctx, waits)
		// What happened while it looked is looked at together, and a look that
		// takes long is rarer: deciding gets a fifth of one CPU at most.
		if !sleep(ctx, max(cmp.Or(c.scale.every, scaleEvery), 4*c.now().Sub(began))) {
			return
		}
		timer := time.NewTimer(until(again, c.now()))
		select {
		case <-ctx.Done():
		case <-added:
		case <-changed:
		case <-timer.C:
		case f := <-s.done:
			s.finish(ctx, f)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// sleep waits, and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// until is how long to wait for a moment; a minute when there is none.
func until(t, now time.Time) time.Duration {
	if t.IsZero() {
		return time.Minute
	}
	return max(0, min(t.Sub(now), time.Minute))
}

// scaler is one term of keepScale.
type scaler struct {
	c       *Controller
	history headroom.History
	began   time.Time
	done    chan finished
	// reason is the last one that was told.
	reason, event string
}

// round looks once, writes what is asked for, sets off what is to be done
// about machines, and returns when to look again at the latest.
func (s *scaler) round(ctx context.Context, waits []*hostWait) time.Time {
	c := s.c
	if fence, _ := c.lead.get(); fence == nil || !c.scales() {
		c.scale.keep(nil)
		return time.Time{}
	}
	b := c.scaleSnapshot(waits)
	b.snapshot.Began = s.began
	d, h := headroom.Decide(b.snapshot, s.history)
	s.history = h
	c.scale.keep(&d)
	s.tell(ctx, d)
	s.answer(b, d)
	again := d.Recheck
	if err := s.ask(ctx, b, d); err != nil && ctx.Err() == nil {
		c.log.Warn("machines cannot be asked for, trying again", "error", err)
		again = earlier(again, c.now().Add(time.Second))
	}
	return earlier(again, earlier(b.restsUntil, s.machines(ctx, b, d)))
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// scales reports whether there is anything to decide: a fleet without policy,
// provider and machine costs nothing.
func (c *Controller) scales() bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return len(c.cache.providers)+len(c.cache.machines) > 0 || c.cache.policies.headroom.Revision > 0
}

// tell says what was decided when that is something new.
func (s *scaler) tell(ctx context.Context, d headroom.Decision) {
	if d.Event != s.event && (s.event != "" || d.Event != headroom.OK) {
		s.c.emit(ctx, "headroom", d.Event, s.c.fleet, d.Reason)
	}
	s.event = d.Event
	if d.Reason != s.reason {
		s.reason = d.Reason
		s.c.log.Info("headroom", "event", d.Event, "hosts", d.Hosts, "desired", d.Desired, "reason", d.Reason)
	}
}

// answer tells deploys that wait what becomes of their placements.
func (s *scaler) answer(b basis, d headroom.Decision) {
	for i, w := range b.waits {
		v := waitVerdict{fits: true}
		for _, o := range d.Blocked[b.first[i] : b.first[i]+len(w.requests)] {
			v.fits = v.fits && o.Fits
			if v.hopeless == "" {
				v.hopeless = o.Hopeless
			}
			if v.coming == "" {
				v.coming = o.Coming
			}
		}
		w.tell(v)
	}
}

// ask writes down the machines that are to be asked for; asking is their
// first step.
func (s *scaler) ask(ctx context.Context, b basis, d headroom.Decision) error {
	c := s.c
	fence, _ := c.lead.get()
	if len(d.Ask) == 0 {
		return nil
	}
	if fence == nil {
		return store.ErrConflict
	}
	t := c.store.Txn(fence...)
	guarded := map[string]bool{}
	var made []record.Machine
	for _, a := range d.Ask {
		o := b.offers[a.Machine]
		if !guarded[o.provider.Key] {
			guarded[o.provider.Key] = true
			t.Unchanged(o.provider.Key, o.provider.Revision)
		}
		m := record.Machine{
			ID: newID(), Provider: o.provider.Value.Name, Offer: o.ID, Name: o.Name, State: record.MachineRequested,
			Since: c.now(), CreatedAt: c.now(), Why: a.Why, For: a.For,
		}
		if o.Single {
			m.Handle = o.ID
		}
		t.Absent(c.store.Keys.Machine(m.ID)).Put(c.store.Keys.Machine(m.ID), m)
		made = append(made, m)
	}
	revision, err := t.Commit(ctx)
	if err != nil {
		return err
	}
	for _, m := range made {
		c.emit(ctx, "machine", "requested", machineName(m), "provider "+m.Provider+": "+m.Why)
	}
	return c.cache.wait(ctx, revision)
}

// machineName is what people know a machine by.
func machineName(m record.Machine) string {
	switch {
	case m.Name != "":
		return m.Name
	case m.Handle != "":
		return m.Handle
	}
	return m.ID
}
