package agent

import (
	"cmp"
	"fmt"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// situation is what a report about one task is made from.
type situation struct {
	Assigned  assigned
	Container *engine.Container
	Memory    memory
	// Doing is the verb of the action under way, or empty.
	Doing verb
	// NetworkIDs maps the engine's network names to the fleet's ids.
	NetworkIDs map[string]string
	// Waiting says why nothing is done though something is wanted.
	Waiting string
}

// observe says what to report about a task. Its At is zero.
func observe(s situation) record.Observed {
	a, c := s.Assigned, s.Container
	o := record.Observed{
		Task: a.Task, App: a.App, Service: a.Service, Slot: a.Slot, Host: a.Host,
		Restarts: s.Memory.Restarts, Fence: a.Container.Fence,
	}
	if c != nil {
		o.Container, o.Health, o.StartedAt = c.ID, c.Health, c.StartedAt
		o.Fence = fenceOf(c.Labels)
		if c.Up() {
			o.Addresses = addresses(c, s.NetworkIDs)
		}
		if c.State == engine.Running {
			o.Ports = published(a.Container.Ports)
		}
	}
	o.State, o.ExitCode, o.Error = state(s)
	if f := s.Memory.Failure; f.Revision == a.Revision && f.Revision != 0 && s.Doing == "" {
		if o.Error = f.Text; !f.Waits {
			o.State, o.Fatal = record.StateFailed, f.Fatal
		}
	}
	return o
}

// addresses are a container's by the fleet's ids of networks, IPv6 in networks
// that have nothing else; nil for none.
func addresses(c *engine.Container, ids map[string]string) map[string]string {
	var out map[string]string
	for name, j := range c.Joined {
		id, addr := ids[name], cmp.Or(j.Address, j.Address6)
		if id == "" || addr == "" {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[id] = addr
	}
	return out
}

func state(s situation) (state string, exit int, err string) {
	a, c := s.Assigned, s.Container
	switch {
	case s.Doing == doPrepare:
		return record.StatePreparing, 0, ""
	case s.Doing == doCreate && c == nil:
		return record.StateCreating, 0, ""
	case s.Doing == doStart, s.Doing == doRestart, s.Doing == doCreate && c.State != engine.Running:
		return record.StateStarting, 0, ""
	case c == nil && a.Phase == record.PhaseStop:
		return record.StateStopped, 0, ""
	case c == nil && endedElsewhere(a):
		return record.StateComplete, 0, ""
	case c == nil && a.Phase == record.PhasePrepare && s.Memory.Prepared == a.Revision:
		return record.StatePrepared, 0, ""
	case c == nil && a.Phase == record.PhasePrepare:
		return record.StatePreparing, 0, s.Waiting
	case c == nil:
		return record.StateCreating, 0, s.Waiting
	}
	switch c.State {
	case engine.Running, engine.Paused:
		return record.StateRunning, 0, ""
	case engine.Restarting:
		return record.StateStarting, c.ExitCode, fmt.Sprintf("%s; the engine starts it again", exited(c))
	case engine.Created:
		return record.StateStarting, 0, c.Error
	}
	switch {
	case startsAgain(a, c, s.Memory):
		return record.StateStarting, c.ExitCode, exited(c) + "; the agent starts it again"
	case a.Phase == record.PhaseStop, s.Memory.Stopped:
		return record.StateStopped, c.ExitCode, ""
	case c.ExitCode == 0:
		return record.StateComplete, 0, ""
	}
	return record.StateFailed, c.ExitCode, exited(c)
}

func exited(c *engine.Container) string {
	s := fmt.Sprintf("exited with code %d", c.ExitCode)
	if c.OOMKilled {
		s += ", out of memory"
	}
	if c.Error != "" {
		s += ": " + c.Error
	}
	return s
}

// published are the ports that the host answers on.
func published(ps []model.Port) []model.Port {
	var out []model.Port
	for _, p := range ps {
		if p.HostPort != 0 {
			p.Position = model.Position{}
			out = append(out, p)
		}
	}
	return out
}

// reachable gives the record under which others find a task, or nil while
// they must not: only a container that runs, is not about to stop, and is
// healthy if it has a health check has names.
func reachable(s situation, o record.Observed) *record.NameRecord {
	c := s.Container
	switch {
	case c == nil, c.State != engine.Running, s.Assigned.Phase != record.PhaseRun:
		return nil
	case c.Health != "" && c.Health != "healthy":
		return nil
	case s.Doing == doStop, s.Doing == doRemove, s.Doing == doRestart:
		return nil
	}
	r := &record.NameRecord{
		App: s.Assigned.App, Service: s.Assigned.Service, Replica: c.Name,
		Networks: map[string]record.NamedAddress{},
	}
	assigned := map[string][]string{}
	for _, j := range s.Assigned.Container.Networks {
		assigned[j.ID] = j.Aliases
	}
	for name, j := range c.Joined {
		id := s.NetworkIDs[name]
		if id == "" || j.Address == "" && j.Address6 == "" {
			continue
		}
		aliases, ours := assigned[id]
		if !ours {
			aliases = j.Aliases // joined by hand: docker network connect
		}
		r.Networks[id] = record.NamedAddress{Address: j.Address, Address6: j.Address6, Aliases: aliases}
	}
	if len(r.Networks) == 0 {
		return nil
	}
	for _, p := range s.Assigned.Container.Ports {
		p.Position = model.Position{}
		r.Ports = append(r.Ports, p)
	}
	return r
}

// backoff is how long to wait after a number of attempts.
func backoff(attempts int) time.Duration {
	d := 500 * time.Millisecond
	for i := 1; i < attempts && d < 30*time.Second; i++ {
		d *= 2
	}
	return min(d, 30*time.Second)
}
