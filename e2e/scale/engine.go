package scale

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"clocker.io/clocker/pkg/agent"
	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// simEngine is an engine that runs nothing. It keeps to what agents rest on:
// names are unique, events come in order, and what does not exist is refused.
type simEngine struct {
	// number makes addresses unique; latency is what making, starting and
	// stopping a container takes each.
	number  int
	latency time.Duration

	mu         sync.Mutex // guards the following fields
	next       int
	containers map[string]*engine.Container // by id
	names      map[string]string            // ids, by name
	joined     map[string][]string          // networks by container id
	networks   map[string]engine.Network    // by id
	events     chan engine.Event            // nil while nobody listens
}

var _ agent.Engine = (*simEngine)(nil)

func newEngine(number int, latency time.Duration) *simEngine {
	return &simEngine{
		number: number, latency: latency, containers: map[string]*engine.Container{}, names: map[string]string{},
		joined: map[string][]string{}, networks: map[string]engine.Network{},
	}
}

// errSimulated says that a simulated engine has no such thing.
var errSimulated = errors.New("this engine is simulated")

func (e *simEngine) Negotiate(context.Context) error { return nil }

func (e *simEngine) Info(context.Context) (engine.Info, error) {
	return engine.Info{EngineVersion: "28.0.0", APIVersion: "1.48", OS: "linux", Architecture: "amd64", CPUs: 16, MemoryBytes: 64 << 30}, nil
}

// Events hands events on until ctx ends.
func (e *simEngine) Events(ctx context.Context, ready func(), f func(engine.Event)) error {
	events := make(chan engine.Event, 4096)
	e.mu.Lock()
	e.events = events
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.events = nil
		e.mu.Unlock()
	}()
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case ev := <-events:
			f(ev)
		}
	}
}

// tell sends an event; e is locked.
func (e *simEngine) tell(kind, action, id string, attributes map[string]string) {
	select {
	case e.events <- engine.Event{Type: kind, Action: action, ID: id, Attributes: attributes, At: time.Now()}:
	default: // nobody listens
	}
}

func (e *simEngine) tellContainer(action string, c *engine.Container) {
	attributes := maps.Clone(c.Labels)
	attributes["name"], attributes["exitCode"] = c.Name, fmt.Sprint(c.ExitCode)
	e.tell("container", action, c.ID, attributes)
}

// wait takes the time that an engine would.
func (e *simEngine) wait(ctx context.Context) error {
	if e.latency == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(e.latency)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (e *simEngine) ContainerIDs(context.Context, string) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids := make([]string, 0, len(e.containers))
	for id := range e.containers {
		ids = append(ids, id)
	}
	return ids, nil
}

// find is a container by id or name; e is locked.
func (e *simEngine) find(id string) (*engine.Container, error) {
	if c := e.containers[id]; c != nil {
		return c, nil
	}
	if c := e.containers[e.names[id]]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("%w: container %s", engine.ErrNotFound, id)
}

func (e *simEngine) Container(_ context.Context, id string) (engine.Container, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return engine.Container{}, err
	}
	out := *c
	out.Joined = maps.Clone(c.Joined)
	return out, nil
}

func (e *simEngine) Create(ctx context.Context, r engine.ContainerRequest) (string, error) {
	if err := e.wait(ctx); err != nil {
		return "", err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.names[r.Spec.Name] != "" {
		return "", fmt.Errorf("%w: name %s is in use", engine.ErrConflict, r.Spec.Name)
	}
	e.next++
	c := &engine.Container{
		ID: fmt.Sprintf("%08x%08x", e.number, e.next), Name: r.Spec.Name, Labels: map[string]string{},
		State: engine.Created, Ports: r.Spec.Ports,
	}
	maps.Copy(c.Labels, r.Spec.Labels)
	maps.Copy(c.Labels, r.Labels)
	e.containers[c.ID], e.names[c.Name], e.joined[c.ID] = c, c.ID, r.Networks
	e.tellContainer("create", c)
	return c.ID, nil
}

// change does something to a container after the time that it takes.
func (e *simEngine) change(ctx context.Context, id string, f func(*engine.Container)) error {
	if err := e.wait(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.find(id)
	if err != nil {
		return err
	}
	f(c)
	return nil
}

func (e *simEngine) begin(c *engine.Container) {
	c.State, c.ExitCode, c.StartedAt = engine.Running, 0, time.Now()
	c.Joined = map[string]engine.Joined{}
	for i, n := range e.joined[c.ID] {
		e.next++
		c.Joined[n] = engine.Joined{Address: fmt.Sprintf("10.%d.%d.%d", 64+(e.number>>8+i)%128, e.number&255, e.next%250+2)}
	}
	e.tellContainer("start", c)
}

func (e *simEngine) end(c *engine.Container, code int) {
	if c.State == engine.Running {
		c.State, c.ExitCode, c.Joined = engine.Exited, code, nil
		e.tellContainer("die", c)
	}
}

func (e *simEngine) Start(ctx context.Context, id string) error { return e.change(ctx, id, e.begin) }

func (e *simEngine) Stop(ctx context.Context, id string) error {
	return e.change(ctx, id, func(c *engine.Container) { e.end(c, 143) })
}

func (e *simEngine) Kill(ctx context.Context, id string) error {
	return e.change(ctx, id, func(c *engine.Container) { e.end(c, 137) })
}

func (e *simEngine) Restart(ctx context.Context, id string) error {
	return e.change(ctx, id, func(c *engine.Container) { e.end(c, 143); e.begin(c) })
}

func (e *simEngine) Remove(ctx context.Context, id string) error {
	err := e.change(ctx, id, func(c *engine.Container) {
		e.end(c, 137)
		delete(e.containers, c.ID)
		delete(e.names, c.Name)
		delete(e.joined, c.ID)
		e.tellContainer("destroy", c)
	})
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	return err
}

// EnsureImage finds every image here.
func (e *simEngine) EnsureImage(ctx context.Context, _, _ string) (bool, error) {
	return false, e.wait(ctx)
}

func (e *simEngine) Networks(context.Context) ([]engine.Network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []engine.Network
	for _, n := range e.networks {
		out = append(out, n)
	}
	return out, nil
}

func (e *simEngine) Network(_ context.Context, id string) (engine.Network, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.networks {
		if n.ID == id || n.Name == id {
			return n, nil
		}
	}
	return engine.Network{}, fmt.Errorf("%w: network %s", engine.ErrNotFound, id)
}

func (e *simEngine) CreateNetwork(_ context.Context, n record.Network, labels map[string]string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := maps.Clone(labels)
	l[engine.LabelNetwork] = n.ID
	e.next++
	id := fmt.Sprintf("n%08x%08x", e.number, e.next)
	e.networks[id] = engine.Network{ID: id, Name: n.Name, Driver: engine.Driver, Subnets: []string{n.Subnet}, FleetID: n.ID, Labels: l}
	e.tell("network", "create", id, map[string]string{"name": n.Name, "type": engine.Driver})
	return id, nil
}

func (e *simEngine) RemoveNetwork(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n, there := e.networks[id]; there {
		delete(e.networks, id)
		e.tell("network", "destroy", id, map[string]string{"name": n.Name, "type": n.Driver})
	}
	return nil
}

func (e *simEngine) NetworkUsers(_ context.Context, id string) ([]string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for c, names := range e.joined {
		for _, n := range names {
			if n == e.networks[id].Name {
				out = append(out, c)
			}
		}
	}
	return out, nil
}

func (e *simEngine) Logs(context.Context, string, engine.LogOptions) (io.ReadCloser, error) {
	return nil, errSimulated
}

func (e *simEngine) Exec(context.Context, string, engine.ExecRequest) (*engine.Exec, error) {
	return nil, errSimulated
}

func (e *simEngine) ExecState(context.Context, string) (engine.ExecState, error) {
	return engine.ExecState{}, errSimulated
}

func (e *simEngine) ExecResize(context.Context, string, uint, uint) error { return errSimulated }
