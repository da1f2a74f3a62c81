package location

import (
	"errors"
	"fmt"
	"time"

	"clocker.io/clocker/pkg/record"
)

// Action is what is done about a machine next. Each may be repeated.
type Action string

// The actions.
const (
	Wait    Action = "wait"
	Obtain  Action = "obtain"  // find it by its tag, else have it made
	Poll    Action = "poll"    // ask whether it is ready
	Adopt   Action = "adopt"   // make it a host
	Enrol   Action = "enrol"   // write down which host it became
	Cordon  Action = "cordon"  // its host takes no new work
	Recall  Action = "recall"  // its host is wanted after all
	Drain   Action = "drain"   // its host's work moves away
	Clear   Action = "clear"   // take its host out of the fleet and clean it
	Release Action = "release" // give it back
	Forget  Action = "forget"  // its record goes
)

// The limits of what machines may take.
const (
	// CreateLimit is how long a provider may take to make one.
	CreateLimit = 20 * time.Minute
	// Attempts is how often a machine is tried in one state before it counts
	// as failed.
	Attempts = 3
	// pollEvery is how often a machine that is being made is looked at.
	pollEvery = 2 * time.Second
)

// HostSight is the host that a machine became.
type HostSight struct {
	ID string
	// State is [record.Host]'s.
	State string
	Up    bool
	// Tasks are assigned to it or still seen on it.
	Tasks int
}

// Sight is what is known of a machine besides its record.
type Sight struct {
	Now time.Time
	// Host is nil while the fleet has no host of it.
	Host *HostSight
	// Leave says why headroom lets its host go; empty when it stays. After the
	// cordon it is worked out again, without the host.
	Leave string
	// Lost says that its host is lost for good, and since when; empty when it
	// is not.
	Lost string
	// Known is false when the machine's provider is.
	Known bool
}

// Step is what to do, and when to look again if that is [Wait].
type Step struct {
	Do Action
	// Why is for the events.
	Why string
	// Again is zero when only a change matters.
	Again time.Time
}

// Next says what to do about a machine. It is pure.
func Next(m record.Machine, s Sight) Step {
	if wait := m.Since.Add(backoff(m.Attempts)); m.Attempts > 0 && s.Now.Before(wait) && m.State != record.MachineFailed {
		return Step{Do: Wait, Again: wait}
	}
	switch m.State {
	case record.MachineRequested:
		return Step{Do: Obtain, Why: m.Why}
	case record.MachineCreating:
		if again := m.Since.Add(pollEvery); s.Now.Before(again) {
			return Step{Do: Wait, Again: again}
		}
		return Step{Do: Poll}
	case record.MachineAdopting:
		if s.Host != nil && s.Host.Up && s.Host.State != record.HostRemoving {
			// It has become one, but whoever saw to it died.
			return Step{Do: Enrol, Why: m.Why}
		}
		return Step{Do: Adopt, Why: m.Why}
	case record.MachineHost:
		if s.Host != nil && s.Leave != "" && s.Host.State == record.HostActive {
			return Step{Do: Cordon, Why: s.Leave}
		}
		return Step{Do: Wait}
	case record.MachineDraining:
		return draining(m, s)
	case record.MachineReleasing:
		switch {
		case m.Endpoint != "":
			return Step{Do: Clear, Why: m.Leave}
		case m.Handle != "" || m.Offer != "":
			return Step{Do: Release, Why: m.Leave}
		}
		return Step{Do: Forget, Why: m.Leave}
	}
	return Step{Do: Wait}
}

// draining leads a host out: cordoned, looked at again, drained, empty.
func draining(m record.Machine, s Sight) Step {
	switch s.Host.state() {
	case record.HostActive:
		return Step{Do: Cordon, Why: m.Leave}
	case record.HostCordoned:
		if !m.Ordered && s.Leave == "" {
			return Step{Do: Recall, Why: "it is needed after all"}
		}
		return Step{Do: Drain, Why: m.Leave}
	case record.HostDraining:
		if s.Host.Tasks > 0 && (s.Host.Up || !m.Ordered) {
			return Step{Do: Wait}
		}
	}
	return Step{Do: Clear, Why: m.Leave}
}

func (h *HostSight) state() string {
	if h == nil {
		return ""
	}
	return h.State
}

// Settle returns the record as it should be whatever is done: what happened
// to the host, the provider or the user's mind while nobody looked. changed
// means that it must be written before anything else.
func Settle(m record.Machine, s Sight) (_ record.Machine, changed bool) {
	switch {
	case m.State == record.MachineFailed && m.Ordered:
		return enter(m, record.MachineReleasing, s.Now), true
	case m.State == record.MachineHost && s.Host == nil:
		// A user removed the host: what is on the machine went with it.
		m.Leave, m.Endpoint, m.Host = "its host was removed", "", ""
		return enter(m, record.MachineReleasing, s.Now), true
	case m.State == record.MachineHost && s.Lost != "":
		m.Leave, m.Lost = s.Lost, true
		return enter(m, record.MachineReleasing, s.Now), true
	case m.State == record.MachineHost && m.Ordered:
		return enter(m, record.MachineDraining, s.Now), true
	case m.State == record.MachineDraining && s.Host == nil,
		m.State == record.MachineDraining && s.Host.state() == record.HostRemoving,
		m.State == record.MachineDraining && s.Host.state() == record.HostDraining && s.Host.Tasks == 0:
		return enter(m, record.MachineReleasing, s.Now), true
	case m.State == record.MachineRequested && m.Ordered, m.State == record.MachineCreating && m.Ordered, m.State == record.MachineAdopting && m.Ordered:
		return enter(m, record.MachineReleasing, s.Now), true
	case m.State == record.MachineCreating && s.Now.Sub(m.Since) > CreateLimit:
		m.Error = fmt.Sprintf("the provider did not make it within %s", CreateLimit)
		return enter(m, record.MachineReleasing, s.Now), true
	}
	return m, false
}

// enter moves a machine into a state.
func enter(m record.Machine, state string, now time.Time) record.Machine {
	m.State, m.Since, m.Attempts = state, now, 0
	return m
}

// Result is what an action came to.
type Result struct {
	// Machine is what the provider said; nil when it was not asked.
	Machine *Machine
	// Host is the host that it became.
	Host string
	Err  error
}

// After returns the record once an action was carried out; gone means that it
// is to be deleted. The record must still be in the state in which the action
// was decided: an answer that comes late is dropped, since each action can be
// repeated. It is pure.
func After(m record.Machine, do Action, r Result, now time.Time, lasting bool) (_ record.Machine, gone bool) {
	if r.Err != nil {
		return failed(m, do, r.Err, now, lasting), false
	}
	switch do {
	case Obtain, Poll:
		return obtained(m, *r.Machine, now), false
	case Adopt, Enrol:
		m.Host, m.Error = r.Host, ""
		return enter(m, record.MachineHost, now), false
	case Cordon:
		return enter(m, record.MachineDraining, now), false
	case Recall:
		m.Leave = ""
		return enter(m, record.MachineHost, now), false
	case Clear:
		m.Endpoint, m.Host, m.Attempts = "", "", 0
	case Release:
		m.Offer, m.Attempts = "", 0
		if m.Error == "" || m.Ordered {
			return m, true
		}
		// It failed: that stays to be seen, and a machine of a list is not
		// taken again.
		if !lasting {
			m.Handle = ""
		}
		return enter(m, record.MachineFailed, now), false
	case Forget:
		return m, true
	}
	return m, false
}

// obtained takes in what the provider says of a machine.
func obtained(m record.Machine, p Machine, now time.Time) record.Machine {
	m.Handle, m.Error = p.Handle, ""
	switch p.State {
	case Ready:
		m.Endpoint = p.Endpoint
		return enter(m, record.MachineAdopting, now)
	case Failed:
		m.Error = p.Error
		if m.Error == "" {
			m.Error = "the provider says that it failed"
		}
		return enter(m, record.MachineReleasing, now)
	}
	if m.State != record.MachineCreating {
		return enter(m, record.MachineCreating, now)
	}
	return m
}

// failed notes an error, and gives up after some.
func failed(m record.Machine, do Action, err error, now time.Time, lasting bool) record.Machine {
	m.Error = err.Error()
	m.Attempts++
	var order *OrderError
	final := errors.As(err, &order) || m.Attempts >= Attempts
	if errors.Is(err, ErrUncleaned) {
		m.Host, final = "", true
	}
	since := m.Since
	m.Since = now // the pause begins
	switch {
	case do == Poll && !errors.Is(err, ErrGone):
		// Only time ends the wait for a provider that cannot be asked.
		m.Since = since
		m.Attempts = 0
	case do == Poll, final && (do == Obtain || do == Adopt || do == Enrol):
		return enter(m, record.MachineReleasing, now)
	case final && do == Clear && lasting:
		m.Error = "it cannot be cleaned: " + m.Error
		return enter(m, record.MachineFailed, now)
	case final && do == Clear:
		m.Endpoint, m.Attempts = "", 0 // what is on it goes with it
	}
	return m
}

// backoff is the pause after so many failures in a row.
func backoff(attempts int) time.Duration {
	if attempts <= 0 {
		return 0
	}
	return min(5*time.Second<<(2*(attempts-1)), 5*time.Minute)
}

// Rest is how long a provider is not asked for more because of machines of
// its that failed; zero when it may be asked.
func Rest(failed []record.Machine, now time.Time) time.Time {
	if len(failed) == 0 {
		return time.Time{}
	}
	last := failed[0].Since
	for _, m := range failed {
		if m.Since.After(last) {
			last = m.Since
		}
	}
	until := last.Add(min(15*time.Second<<min(len(failed)-1, 6), 10*time.Minute))
	if now.Before(until) {
		return until
	}
	return time.Time{}
}
