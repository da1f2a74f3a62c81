package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"clocker.io/clocker/pkg/headroom"
	"clocker.io/clocker/pkg/location"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// finished is what came of something that was done about a machine.
type finished struct {
	machine string
	// state is the one in which it was decided.
	state  string
	action location.Action
	result location.Result
}

// machines settles each machine's record and sets off what is next. It
// returns when time alone makes another look worth while.
func (s *scaler) machines(ctx context.Context, b basis, d headroom.Decision) time.Time {
	c := s.c
	leave := map[string]string{}
	for _, l := range d.Leave {
		leave[l.Host] = l.Why
	}
	lost := map[string]string{}
	for _, l := range d.Lost {
		lost[l.Host] = l.Why
	}
	var again time.Time
	for _, it := range b.machines {
		m := it.Value
		sight := location.Sight{Now: c.now(), Known: c.hasProvider(m.Provider)}
		if h, ok := b.hosts[m.ID]; ok {
			sight.Host = &h
			sight.Leave, sight.Lost = leave[h.ID], lost[h.ID]
			if m.State == record.MachineDraining {
				sight.Leave = stillGoes(b, d, m, h)
			}
		}
		if settled, changed := location.Settle(m, sight); changed {
			if settled.Lost && !m.Lost {
				s.giveUp(ctx, it, settled, sight.Host.ID)
				continue
			}
			s.write(ctx, it, settled, false)
			continue
		}
		step := location.Next(m, sight)
		if step.Do == location.Wait {
			again = earlier(again, step.Again)
			continue
		}
		if err := s.set(ctx, it, sight, step); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrConflict) {
			c.log.Warn("machine cannot be dealt with, trying again", "machine", machineName(m), "error", err)
			again = earlier(again, c.now().Add(time.Second))
		}
	}
	return again
}

func (c *Controller) hasProvider(name string) bool {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	_, ok := c.cache.providers[name]
	return ok
}

// stillGoes looks at a cordoned host again: the decision, which was made
// without it, must not lack anything.
func stillGoes(b basis, d headroom.Decision, m record.Machine, h location.HostSight) string {
	p := b.snapshot.Policy
	if !p.RemoveEmpty || p.Suspended || h.Tasks > 0 || len(b.snapshot.Blocked) > 0 || d.Hosts < max(1, p.MinHosts) || len(d.Ask) > 0 {
		return ""
	}
	for _, x := range d.Dimensions {
		if x.Needed > 0 {
			return ""
		}
	}
	for _, x := range b.snapshot.Hosts {
		if x.ID == h.ID && x.Strangers > 0 && !p.EvenWithStrangers {
			return ""
		}
	}
	return m.Leave
}

// set sets a step off: writes at once, everything else apart from the loop.
func (s *scaler) set(ctx context.Context, it store.Item[record.Machine], sight location.Sight, step location.Step) error {
	switch step.Do {
	case location.Cordon, location.Recall, location.Drain:
		return s.moveHost(ctx, it, *sight.Host, step)
	case location.Enrol:
		return s.enrol(ctx, it, sight.Host.ID)
	case location.Forget:
		s.write(ctx, it, it.Value, true)
		return nil
	}
	m := it.Value
	if !s.c.scale.take(m.ID) {
		return nil
	}
	go func() {
		r := s.c.act(ctx, m, step.Do)
		s.c.scale.give(m.ID)
		select {
		case s.done <- finished{m.ID, m.State, step.Do, r}:
		case <-ctx.Done():
		}
	}()
	return nil
}

// finish writes down what came of an action. An answer to what is no longer
// asked is dropped: every action can be repeated.
func (s *scaler) finish(ctx context.Context, f finished) {
	c := s.c
	c.cache.mu.RLock()
	it, ok := c.cache.machines[f.machine]
	kind := c.cache.providers[it.Value.Provider].Value.Kind
	c.cache.mu.RUnlock()
	if !ok || it.Value.State != f.state || ctx.Err() != nil {
		return
	}
	if f.action == location.Adopt && f.result.Err == nil {
		if err := s.enrol(ctx, it, f.result.Host); err != nil {
			c.log.Warn("adopted machine cannot be written down yet", "machine", machineName(it.Value), "error", err)
		}
		return
	}
	m, gone := location.After(it.Value, f.action, f.result, c.now(), location.Lasting(kind))
	if f.result.Err != nil {
		c.log.Warn("machine: "+string(f.action)+" has failed", "machine", machineName(m), "provider", m.Provider, "attempt", it.Value.Attempts+1, "error", f.result.Err)
		c.emit(ctx, "machine", "trouble", machineName(m), fmt.Sprintf("%s: %v", f.action, f.result.Err))
	}
	s.write(ctx, it, m, gone)
}

// write replaces a machine's record, or deletes it, and tells of a new state.
func (s *scaler) write(ctx context.Context, it store.Item[record.Machine], m record.Machine, gone bool) {
	c := s.c
	fence, _ := c.lead.get()
	if fence == nil || !gone && m == it.Value {
		return
	}
	t := c.store.Txn(fence...).Unchanged(it.Key, it.Revision)
	if gone {
		t.Delete(it.Key)
	} else {
		t.Put(it.Key, m)
	}
	revision, err := t.Commit(ctx)
	switch {
	case errors.Is(err, store.ErrConflict), ctx.Err() != nil:
		return // it is looked at again as it is now
	case err != nil:
		c.log.Warn("machine cannot be written down, trying again", "machine", machineName(m), "error", err)
		return
	}
	switch {
	case gone:
		c.emit(ctx, "machine", "released", machineName(m), m.Leave)
	case m.State != it.Value.State:
		c.emit(ctx, "machine", m.State, machineName(m), machineText(m))
	}
	_ = c.cache.wait(ctx, revision) // only ctx's end ends it
}

func machineText(m record.Machine) string {
	switch m.State {
	case record.MachineFailed:
		return m.Error
	case record.MachineDraining, record.MachineReleasing:
		if m.Error != "" {
			return m.Error
		}
		return m.Leave
	}
	return m.Why
}

// enrol writes down in one which host a machine has become, on both sides.
func (s *scaler) enrol(ctx context.Context, it store.Item[record.Machine], host string) error {
	c := s.c
	c.cache.mu.RLock()
	h, ok := c.cache.hosts[host]
	c.cache.mu.RUnlock()
	if !ok {
		return fmt.Errorf("host %s is not known yet", host)
	}
	m, _ := location.After(it.Value, location.Enrol, location.Result{Host: host}, c.now(), true)
	spec := h.Value
	spec.Provider, spec.Machine = m.Provider, m.ID
	if m.Name == "" {
		m.Name = spec.Name
	}
	return s.both(ctx, it, m, h, spec)
}

// both writes a machine and its host, when neither has changed.
func (s *scaler) both(ctx context.Context, it store.Item[record.Machine], m record.Machine, h store.Item[record.Host], spec record.Host) error {
	c := s.c
	fence, _ := c.lead.get()
	if fence == nil {
		return store.ErrConflict
	}
	revision, err := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Unchanged(h.Key, h.Revision).
		Put(it.Key, m).Put(h.Key, spec).Commit(ctx)
	if err != nil {
		return err
	}
	if m.State != it.Value.State {
		c.emit(ctx, "machine", m.State, machineName(m), machineText(m))
	}
	return c.cache.wait(ctx, revision)
}

// moveHost changes what is wanted of a machine's host. It waits for decisions
// about placement that are being written, so that what is seen of the host
// after its cordon is all that will ever come to it.
func (s *scaler) moveHost(ctx context.Context, it store.Item[record.Machine], sight location.HostSight, step location.Step) error {
	c := s.c
	c.placing.Lock()
	defer c.placing.Unlock()
	c.cache.mu.RLock()
	h, ok := c.cache.hosts[sight.ID]
	busy := 0
	for _, a := range c.cache.assignments {
		if a.Value.Host == sight.ID {
			busy++
		}
	}
	c.cache.mu.RUnlock()
	if !ok || h.Value.State != sight.State {
		return nil // looked at again
	}
	m := it.Value
	if busy > 0 && !m.Ordered && step.Do != location.Recall {
		if step.Do == location.Cordon {
			return nil
		}
		step.Do = location.Recall
	}
	if step.Do == location.Cordon && m.Leave == "" {
		m.Leave = step.Why
	}
	spec := h.Value
	switch step.Do {
	case location.Cordon:
		spec.State = record.HostCordoned
	case location.Recall:
		spec.State = record.HostActive
	default:
		spec.State = record.HostDraining
	}
	since := m.Since
	m, _ = location.After(m, step.Do, location.Result{}, c.now(), true)
	if m.State == it.Value.State {
		m.Since = since
	}
	if err := s.both(ctx, it, m, h, spec); err != nil {
		return err
	}
	c.emit(ctx, "host", string(step.Do), spec.Name, step.Why)
	return nil
}
