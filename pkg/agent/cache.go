package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// cached is what the agent keeps on the host's disk: enough to go on after a
// restart while etcd is away. What it lacks is never taken for unwanted.
type cached struct {
	Fleet       string            `json:"fleet"`
	Host        string            `json:"host"`
	Assignments []cachedTask      `json:"assignments"`
	Observed    []record.Observed `json:"observed"`
	Networks    []record.Network  `json:"networks"`
}

type cachedTask struct {
	Revision   int64             `json:"revision"`
	Assignment record.Assignment `json:"assignment"`
}

func cacheFile(dir string) string { return filepath.Join(dir, "agent", "state.json") }

// loadCache reads what an earlier run for the same host has kept; nil when
// there is nothing of use.
func loadCache(dir string, id identity) (*cached, error) {
	b, err := os.ReadFile(cacheFile(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read agent's state: %w", err)
	}
	c := &cached{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("read agent's state: %w", err)
	}
	if c.Fleet != id.Fleet || c.Host != id.Host {
		return nil, nil
	}
	return c, nil
}

// save replaces the file as a whole, so that a crash leaves the old one.
func (c *cached) save(dir string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("keep agent's state: %w", err)
	}
	name := cacheFile(dir)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("keep agent's state: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".state-*")
	if err != nil {
		return fmt.Errorf("keep agent's state: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone when the rename went well
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("keep agent's state: %w", err)
	}
	return nil
}

// change gives the assignments as if etcd had sent them.
func (c *cached) change(k store.Keys) store.Change {
	out := store.Change{Reset: true}
	for _, a := range c.Assignments {
		b, err := json.Marshal(a.Assignment)
		if err != nil {
			continue // it was read from JSON
		}
		out.Puts = append(out.Puts, store.Raw{Key: k.Assignment(c.Host, a.Assignment.Task), Value: b, Revision: a.Revision})
	}
	return out
}

// keeper writes the cache after changes, gathered for a moment.
type keeper struct {
	identity
	loop *loop
	nets *networks
	dir  string
	log  *slog.Logger
	wake chan struct{}
}

func newKeeper(l *loop, n *networks, id identity, dir string, log *slog.Logger) *keeper {
	return &keeper{identity: id, loop: l, nets: n, dir: dir, log: log, wake: make(chan struct{}, 1)}
}

func (k *keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		}
		if !pause(ctx, 200*time.Millisecond) {
			return
		}
		got := make(chan *cached, 1)
		k.loop.do(func() { got <- k.loop.cached() })
		select {
		case <-ctx.Done():
			return
		case c := <-got:
			if c == nil {
				continue // nothing known yet that is better than the file
			}
			c.Networks = k.nets.known()
			if err := c.save(k.dir); err != nil {
				k.log.Warn("state is not kept", "error", err)
			}
		}
	}
}

func (l *loop) cached() *cached {
	if !l.known || !l.complete {
		return nil
	}
	c := &cached{Fleet: l.Fleet, Host: l.Host}
	for _, a := range l.assigned {
		c.Assignments = append(c.Assignments, cachedTask{Revision: a.Revision, Assignment: a.Assignment})
	}
	for _, t := range l.tasks {
		if t.Observed.Task != "" {
			c.Observed = append(c.Observed, t.Observed)
		}
	}
	return c
}
