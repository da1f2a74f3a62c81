package agent

import (
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// longRun is how long a container must run to count as up: what ends sooner is
// started again more and more slowly.
const longRun = 10 * time.Second

// startsAgain reports whether the agent starts a container with a fence again
// that has ended: by its service's policy, as the engine does for others, or
// because the fence has stopped it.
func startsAgain(a assigned, c *engine.Container, m memory) bool {
	if a.Container.Fence == 0 || c.State != engine.Exited || a.Phase != record.PhaseRun || m.Stopped {
		return false
	}
	if m.Cut[c.ID] {
		return true
	}
	switch r := a.Container.Restart; r.Policy {
	case "always", "unless-stopped":
		return !m.ByHand
	case "on-failure":
		return !m.ByHand && c.ExitCode != 0 && (r.MaxRetries == 0 || m.Again < r.MaxRetries)
	}
	return false
}

// restartAt is when that is.
func restartAt(c *engine.Container, m memory) time.Time {
	if m.Cut[c.ID] {
		return time.Time{}
	}
	ended := c.StartedAt
	if c.EndedAt.After(ended) {
		ended = c.EndedAt
	}
	return ended.Add(backoff(m.Again))
}

// countAgain counts that a container with a fence is started again.
func (l *loop) countAgain(t *task, a action) {
	c, known := l.containers[a.Container]
	if a.Verb != doStart || !known || c.Labels[engine.LabelFence] == "" {
		return
	}
	if c.EndedAt.Sub(c.StartedAt) > longRun {
		t.Again = 0
	}
	t.Again++
}

// byHand notes that a person stops a container, as far as the engine tells.
func (l *loop) byHand(e engine.Event) {
	t := l.tasks[e.Attributes[engine.LabelTask]]
	if t == nil || t.Busy || e.Attributes[engine.LabelFence] == "" {
		return
	}
	switch s := e.Attributes["signal"]; {
	case e.Action == "start":
		t.ByHand = false
	case e.Action == "stop", e.Action == "kill" && (s == "9" || s == "KILL" || s == "SIGKILL"):
		t.ByHand = !l.fence.killed()[e.ID]
	}
}

// guard tells the fence whether there is anything for it to do.
func (l *loop) guard() {
	if l.fence == nil {
		return
	}
	active, busy := false, false
	for _, a := range l.assigned {
		active = active || a.Container.Fence > 0
	}
	for _, c := range l.containers {
		active = active || c.Labels[engine.LabelFence] != ""
	}
	for _, t := range l.tasks {
		busy = busy || t.Busy
	}
	l.fence.setActive(active || busy && l.fence.active.Load())
}
