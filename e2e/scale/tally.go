package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// tally counts what etcd says of the fleet.
type tally struct {
	keys store.Keys

	mu       sync.Mutex // guards the following fields
	changed  chan struct{}
	assigned map[string]string // hosts, by task
	states   map[string]string // of tasks
	leases   map[string]bool   // of hosts
	health   map[string]string // of hosts
	// onHost counts assignments, good those that run on a host that lives.
	onHost map[string]int
	good   int
	// firsts are when something happened for the first time since mark.
	firsts map[string]time.Time
}

func newTally(s *store.Store) *tally {
	t := &tally{keys: s.Keys, changed: make(chan struct{}), firsts: map[string]time.Time{}}
	t.clear()
	return t
}

func (t *tally) clear() {
	t.assigned, t.states, t.leases = map[string]string{}, map[string]string{}, map[string]bool{}
	t.health, t.onHost, t.good = map[string]string{}, map[string]int{}, 0
}

// isGood reports whether a task runs where it is assigned to.
func (t *tally) isGood(task string) bool {
	h, ok := t.assigned[task]
	return ok && t.leases[h] && t.states[task] == record.StateRunning
}

// task changes what is known of a task and keeps the count.
func (t *tally) task(id string, change func()) {
	before := t.isGood(id)
	change()
	if after := t.isGood(id); after != before {
		if after {
			t.good++
		} else {
			t.good--
		}
	}
}

func (t *tally) apply(c store.Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.Reset {
		t.clear()
	}
	for _, key := range c.Deletes {
		t.key(strings.Split(strings.TrimPrefix(key, t.keys.Prefix()), "/"), nil)
	}
	for _, r := range c.Puts {
		t.key(strings.Split(strings.TrimPrefix(r.Key, t.keys.Prefix()), "/"), r.Value)
	}
	close(t.changed)
	t.changed = make(chan struct{})
}

// key takes in one key; a nil value says that it is gone.
func (t *tally) key(p []string, value []byte) {
	var v struct {
		State string `json:"state"`
	}
	switch {
	case len(p) != 3:
	case p[0] == "assign":
		t.task(p[2], func() {
			if h, was := t.assigned[p[2]]; was {
				t.onHost[h]--
				delete(t.assigned, p[2])
			}
			if value != nil {
				t.assigned[p[2]] = p[1]
				t.onHost[p[1]]++
				t.first("assigned")
			}
		})
	case p[0] == "observed":
		t.task(p[2], func() {
			if delete(t.states, p[2]); value != nil && json.Unmarshal(value, &v) == nil {
				t.states[p[2]] = v.State
			}
		})
	case p[0] == "hosts" && p[2] == "lease":
		if delete(t.leases, p[1]); value != nil {
			t.leases[p[1]] = true
		} else {
			t.first("gone")
		}
		t.good = 0
		for task := range t.assigned {
			if t.isGood(task) {
				t.good++
			}
		}
	case p[0] == "hosts" && p[2] == "health":
		if delete(t.health, p[1]); value != nil && json.Unmarshal(value, &v) == nil {
			t.health[p[1]] = v.State
			t.first(v.State)
		}
	}
}

func (t *tally) first(what string) {
	if _, known := t.firsts[what]; !known {
		t.firsts[what] = time.Now()
	}
}

// mark forgets what happened before.
func (t *tally) mark() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.firsts = map[string]time.Time{}
}

// since is how long after a moment something happened for the first time since
// mark; 0 when it has not.
func (t *tally) since(began time.Time, what string) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, known := t.firsts[what]; known {
		return at.Sub(began)
	}
	return 0
}

// await waits until what is counted is as it should be; ok is called with the
// tally locked.
func (t *tally) await(ctx context.Context, what string, ok func(*tally) bool) error {
	for {
		t.mu.Lock()
		done, changed := ok(t), t.changed
		text := fmt.Sprintf("%d assigned, %d running, %d agents", len(t.assigned), t.good, len(t.leases))
		t.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s (%s): %w", what, text, ctx.Err())
		case <-changed:
		}
	}
}
