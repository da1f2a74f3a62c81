package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

var errDied = errors.New("the machine died")

// memEngine is the containers of a machine by name, true for those that run. The
// machine dies after a number of changes.
type memEngine struct {
	up     map[string]bool
	left   int  // changes until it dies; negative for never
	broken bool // the new agent does not stay up
}

func (m *memEngine) change(f func()) error {
	if m.left == 0 {
		return errDied
	}
	m.left--
	f()
	return nil
}

func (m *memEngine) running(_ context.Context, name string) (up, there bool, err error) {
	if m.left == 0 {
		return false, false, errDied
	}
	up, there = m.up[name]
	return up && (!m.broken || name != nextAgent), there, nil
}

func (m *memEngine) stop(_ context.Context, name string) error {
	return m.change(func() {
		if _, there := m.up[name]; there {
			m.up[name] = false
		}
	})
}

func (m *memEngine) start(_ context.Context, name string) error {
	return m.change(func() { m.up[name] = true })
}

func (m *memEngine) remove(_ context.Context, name string) error {
	return m.change(func() { delete(m.up, name) })
}

func (m *memEngine) rename(_ context.Context, name, to string) error {
	return m.change(func() {
		m.up[to] = m.up[name]
		delete(m.up, name)
	})
}

func (m *memEngine) words(context.Context, string) string { return "no such thing" }

// reboot starts what the engine starts with the machine: agents that were
// started once, also those that were stopped.
func (m *memEngine) reboot(started map[string]bool) {
	for name := range m.up {
		m.up[name] = m.up[name] || started[name]
	}
}

func at(time.Duration) <-chan time.Time {
	c := make(chan time.Time, 1)
	c <- time.Time{}
	return c
}

// Wherever the machine dies while agents are exchanged: there is an agent after
// its restart, and one under the usual name once the exchange has gone on.
func TestSwapAgentsSurvivesDeath(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, broken := range []bool{false, true} {
		for dies := -1; dies < 6; dies++ {
			t.Run(fmt.Sprintf("broken %t, dies after %d", broken, dies), func(t *testing.T) {
				m := &memEngine{up: map[string]bool{AgentContainer: true, nextAgent: false}, left: dies, broken: broken}
				err := swapAgents(t.Context(), m, log, at)
				if errors.Is(err, errDied) {
					m.reboot(map[string]bool{AgentContainer: true})
					assert.Assert(t, m.up[AgentContainer] || m.up[nextAgent], "%v", m.up)
					m.left = -1
					err = swapAgents(t.Context(), m, log, at)
				}
				if broken && dies < 0 {
					assert.ErrorContains(t, err, "does not stay up: no such thing")
				} else if !broken {
					assert.NilError(t, err)
				}
				assert.DeepEqual(t, m.up, map[string]bool{AgentContainer: true})
			})
		}
	}
}
