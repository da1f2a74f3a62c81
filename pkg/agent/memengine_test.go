package agent

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// memEngine is an engine in memory, as strict as a real one about names,
// images and networks, with events in order.
type memEngine struct {
	mu         sync.Mutex
	next       int
	containers map[string]*engine.Container
	joined     map[string][]string // container id → network names
	networks   map[string]engine.Network
	images     map[string]bool
	registry   map[string]bool
	watchers   map[chan engine.Event]bool
	startErr   map[string]error // by container name
	createErr  error
	health     map[string]string // by image: the first health status
	away       bool
	gate       chan struct{} // when set, Create waits for it
	calls      map[string]int
	atOnce     int
	mostAtOnce int
}

func newMemEngine() *memEngine {
	return &memEngine{
		containers: map[string]*engine.Container{}, joined: map[string][]string{}, networks: map[string]engine.Network{},
		images: map[string]bool{"web:1": true}, registry: map[string]bool{"late:1": true},
		watchers: map[chan engine.Event]bool{}, startErr: map[string]error{}, health: map[string]string{}, calls: map[string]int{},
	}
}

func refused(kind error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
}

func (m *memEngine) id() string {
	m.next++
	return fmt.Sprintf("c%06d", m.next)
}

// enter locks and counts a call.
func (m *memEngine) enter(call string) error {
	m.mu.Lock()
	m.calls[call]++
	if m.away {
		return refused(engine.ErrAway, "gone")
	}
	return nil
}

func (m *memEngine) emit(typ, action, id string, attrs map[string]string) {
	for w := range m.watchers {
		w <- engine.Event{Type: typ, Action: action, ID: id, Attributes: attrs, At: time.Now()}
	}
}

func (m *memEngine) containerEvent(action string, c *engine.Container) {
	attrs := maps.Clone(c.Labels)
	attrs["name"], attrs["exitCode"] = c.Name, fmt.Sprint(c.ExitCode)
	m.emit("container", action, c.ID, attrs)
}

func (m *memEngine) Negotiate(context.Context) error {
	defer m.mu.Unlock()
	return m.enter("negotiate")
}

func (m *memEngine) Info(context.Context) (engine.Info, error) {
	defer m.mu.Unlock()
	return engine.Info{EngineVersion: "28", CPUs: 2}, m.enter("info")
}

func (m *memEngine) Events(ctx context.Context, ready func(), f func(engine.Event)) error {
	w := make(chan engine.Event, 1024)
	m.mu.Lock()
	if m.away {
		m.mu.Unlock()
		return refused(engine.ErrAway, "gone")
	}
	m.watchers[w] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.watchers, w)
		m.mu.Unlock()
	}()
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-w:
			if e.Type == "break" {
				return io.ErrUnexpectedEOF
			}
			f(e)
		}
	}
}

// breakOff ends every stream of events.
func (m *memEngine) breakOff(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
	m.emit("break", "", "", nil)
}

func (m *memEngine) ContainerIDs(_ context.Context, label string) ([]string, error) {
	defer m.mu.Unlock()
	if err := m.enter("list"); err != nil {
		return nil, err
	}
	k, v, exact := strings.Cut(label, "=")
	var ids []string
	for id, c := range m.containers {
		if was, there := c.Labels[k]; there && (was == v || !exact) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (m *memEngine) find(id string) *engine.Container {
	if c := m.containers[id]; c != nil {
		return c
	}
	for _, c := range m.containers {
		if c.Name == id {
			return c
		}
	}
	return nil
}

func (m *memEngine) Container(_ context.Context, id string) (engine.Container, error) {
	defer m.mu.Unlock()
	if err := m.enter("inspect"); err != nil {
		return engine.Container{}, err
	}
	c := m.find(id)
	if c == nil {
		return engine.Container{}, refused(engine.ErrNotFound, "no container %s", id)
	}
	out := *c
	out.Joined = maps.Clone(c.Joined)
	return out, nil
}

func (m *memEngine) Create(ctx context.Context, r engine.ContainerRequest) (string, error) {
	m.mu.Lock()
	m.atOnce++
	m.mostAtOnce = max(m.mostAtOnce, m.atOnce)
	gate := m.gate
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.atOnce--
		m.mu.Unlock()
	}()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	defer m.mu.Unlock()
	if err := m.enter("create"); err != nil {
		return "", err
	}
	if m.createErr != nil {
		return "", m.createErr
	}
	if !m.images[r.Spec.Image] {
		return "", refused(engine.ErrNotFound, "no image %s", r.Spec.Image)
	}
	if m.find(r.Spec.Name) != nil {
		return "", refused(engine.ErrConflict, "name %s is in use", r.Spec.Name)
	}
	for _, n := range r.Networks {
		if !slices.ContainsFunc(slices.Collect(maps.Values(m.networks)), func(d engine.Network) bool { return d.Name == n }) {
			return "", refused(engine.ErrNotFound, "no network %s", n)
		}
	}
	c := &engine.Container{ID: m.id(), Name: r.Spec.Name, Labels: maps.Clone(r.Spec.Labels), State: engine.Created, Ports: r.Spec.Ports}
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	maps.Copy(c.Labels, r.Labels)
	c.Labels["image"] = r.Spec.Image
	m.containers[c.ID] = c
	m.joined[c.ID] = r.Networks
	m.containerEvent("create", c)
	return c.ID, nil
}

func (m *memEngine) begin(c *engine.Container) error {
	if err := m.startErr[c.Name]; err != nil {
		c.Error = err.Error()
		return err
	}
	c.State, c.ExitCode, c.Error, c.StartedAt = engine.Running, 0, "", time.Now()
	c.Health = m.health[c.Labels["image"]]
	c.Joined = map[string]engine.Joined{}
	for i, n := range m.joined[c.ID] {
		m.next++
		c.Joined[n] = engine.Joined{Address: fmt.Sprintf("10.208.%d.%d", i, m.next%250+2)}
		m.joinEvent("connect", c.ID, n)
	}
	m.containerEvent("start", c)
	return nil
}

// joinEvent tells that a container has joined or left a network; callers hold
// mu.
func (m *memEngine) joinEvent(action, container, network string) {
	for id, n := range m.networks {
		if n.Name == network {
			m.emit("network", action, id, map[string]string{"container": container, "name": network, "type": n.Driver})
		}
	}
}

// connect joins a running container to a network by hand.
func (m *memEngine) connect(id, network string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[id]
	m.joined[id] = append(slices.Clone(m.joined[id]), network)
	c.Joined = maps.Clone(c.Joined)
	c.Joined[network] = engine.Joined{Address: "10.208.9.9", Aliases: []string{"extra"}}
	m.joinEvent("connect", id, network)
}

// disconnect takes it away again.
func (m *memEngine) disconnect(id, network string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.containers[id]
	m.joined[id] = slices.DeleteFunc(slices.Clone(m.joined[id]), func(n string) bool { return n == network })
	c.Joined = maps.Clone(c.Joined)
	delete(c.Joined, network)
	m.joinEvent("disconnect", id, network)
}

func (m *memEngine) end(c *engine.Container, code int) {
	if c.State != engine.Running {
		return
	}
	c.State, c.ExitCode, c.Health, c.Joined = engine.Exited, code, "", nil
	m.containerEvent("die", c)
}

// with does something to a container that must exist.
func (m *memEngine) with(call, id string, f func(c *engine.Container) error) error {
	defer m.mu.Unlock()
	if err := m.enter(call); err != nil {
		return err
	}
	c := m.find(id)
	if c == nil {
		return refused(engine.ErrNotFound, "no container %s", id)
	}
	return f(c)
}

func (m *memEngine) Start(_ context.Context, id string) error { return m.with("start", id, m.begin) }

func (m *memEngine) Stop(_ context.Context, id string) error {
	return m.with("stop", id, func(c *engine.Container) error { m.end(c, 143); return nil })
}

func (m *memEngine) Kill(_ context.Context, id string) error {
	return m.with("kill", id, func(c *engine.Container) error { m.end(c, 137); return nil })
}

func (m *memEngine) Restart(_ context.Context, id string) error {
	return m.with("restart", id, func(c *engine.Container) error { m.end(c, 143); return m.begin(c) })
}

func (m *memEngine) Remove(_ context.Context, id string) error {
	err := m.with("remove", id, func(c *engine.Container) error {
		m.end(c, 137)
		delete(m.containers, c.ID)
		m.containerEvent("destroy", c)
		return nil
	})
	if isGone(err) {
		return nil
	}
	return err
}

func (m *memEngine) EnsureImage(_ context.Context, ref, _ string) (bool, error) {
	defer m.mu.Unlock()
	if err := m.enter("image"); err != nil {
		return false, err
	}
	switch {
	case m.images[ref]:
		return false, nil
	case m.registry[ref]:
		m.images[ref] = true
		return true, nil
	}
	return false, refused(engine.ErrImage, "%s is nowhere", ref)
}

func (m *memEngine) Networks(context.Context) ([]engine.Network, error) {
	defer m.mu.Unlock()
	err := m.enter("networks")
	return slices.Collect(maps.Values(m.networks)), err
}

func (m *memEngine) Network(_ context.Context, id string) (engine.Network, error) {
	defer m.mu.Unlock()
	if err := m.enter("network"); err != nil {
		return engine.Network{}, err
	}
	for _, n := range m.networks {
		if n.ID == id || n.Name == id {
			return n, nil
		}
	}
	return engine.Network{}, refused(engine.ErrNotFound, "no network %s", id)
}

func (m *memEngine) CreateNetwork(_ context.Context, n record.Network, labels map[string]string) (string, error) {
	l := maps.Clone(labels)
	l[engine.LabelNetwork] = n.ID
	return m.addNetwork(engine.Network{Name: n.Name, Driver: engine.Driver, Subnets: []string{n.Subnet}, FleetID: n.ID, Labels: l})
}

func (m *memEngine) addNetwork(n engine.Network) (string, error) {
	defer m.mu.Unlock()
	if err := m.enter("network create"); err != nil {
		return "", err
	}
	for _, d := range m.networks {
		if d.Name == n.Name {
			return "", refused(engine.ErrConflict, "network %s exists", n.Name)
		}
	}
	n.ID = "n" + m.id()
	m.networks[n.ID] = n
	m.emit("network", "create", n.ID, map[string]string{"name": n.Name, "type": n.Driver})
	return n.ID, nil
}

func (m *memEngine) RemoveNetwork(_ context.Context, id string) error {
	defer m.mu.Unlock()
	if err := m.enter("network remove"); err != nil {
		return err
	}
	n, ok := m.networks[id]
	if !ok {
		return nil
	}
	delete(m.networks, id)
	m.emit("network", "destroy", id, map[string]string{"name": n.Name, "type": n.Driver})
	return nil
}

func (m *memEngine) NetworkUsers(_ context.Context, id string) ([]string, error) {
	defer m.mu.Unlock()
	if err := m.enter("network users"); err != nil {
		return nil, err
	}
	var out []string
	for c := range m.containers {
		if slices.Contains(m.joined[c], m.networks[id].Name) {
			out = append(out, c)
		}
	}
	return out, nil
}

func (m *memEngine) Logs(_ context.Context, id string, o engine.LogOptions) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(fmt.Sprintf("log of %s, tail %s", id, o.Tail))), nil
}

// Exec runs "cat": what is written comes back, and ends when the input does.
func (m *memEngine) Exec(_ context.Context, container string, r engine.ExecRequest) (*engine.Exec, error) {
	if r.Cmd[0] != "cat" {
		return nil, refused(engine.ErrCommand, "no %s", r.Cmd[0])
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	return engine.NewExec("x-"+container, c, bufio.NewReader(c)), nil
}

func (m *memEngine) ExecState(context.Context, string) (engine.ExecState, error) {
	return engine.ExecState{ExitCode: 7}, nil
}

func (m *memEngine) ExecResize(context.Context, string, uint, uint) error { return nil }

var _ Engine = (*memEngine)(nil)
