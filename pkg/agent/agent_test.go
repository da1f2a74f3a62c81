package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// rig is one agent over a real etcd and an engine in memory.
type rig struct {
	t      *testing.T
	store  *store.Store
	engine *memEngine
	dir    string
	stop   func()
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	return slog.New(slog.DiscardHandler)
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, store: store.New(storetest.Start(t), "f"), engine: newMemEngine(), dir: t.TempDir(), stop: func() {}}
	t.Cleanup(func() { r.stop() })
	r.put(r.store.Keys.HostSpec("h1"), record.Host{ID: "h1", State: record.HostActive})
	return r
}

// start runs the agent; stop ends it as kill -9 would: nothing is put away.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{
		id: identity{Fleet: "f", Host: "h1"}, store: r.store, engine: r.engine, stateDir: r.dir,
		host: hostCheck{root: "/"}, patience: 200 * time.Millisecond, log: testLog(r.t), now: time.Now, boot: fmt.Sprint(time.Now().UnixNano()),
	}
	done := make(chan struct{})
	go func() { defer close(done); a.run(ctx) }()
	r.stop = func() { cancel(); <-done; r.stop = func() {} }
}

func (r *rig) put(key string, v any) int64 {
	r.t.Helper()
	rev, err := r.store.Txn().Put(key, v).Commit(r.t.Context())
	assert.NilError(r.t, err)
	return rev
}

func (r *rig) assign(a record.Assignment) record.Assignment {
	r.t.Helper()
	if a.Container.Name == "" {
		a.Container.Name = a.App + "-" + a.Service + "-1"
	}
	if a.Container.Image == "" {
		a.Container.Image = "web:1"
	}
	a.Host, a.Slot = "h1", max(a.Slot, 1)
	r.put(r.store.Keys.Assignment("h1", a.Task), a)
	return a
}

func (r *rig) unassign(task string) {
	r.t.Helper()
	_, err := r.store.Txn().Delete(r.store.Keys.Assignment("h1", task)).Commit(r.t.Context())
	assert.NilError(r.t, err)
}

func web(task, phase string) record.Assignment {
	return record.Assignment{Task: task, App: "shop", Service: "web", Release: 1, Phase: phase, Hash: "a"}
}

// await waits until a key's value, or its absence, is as wanted.
func await[T any](r *rig, key, what string, ok func(v T, exists bool) bool) T {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	w := r.store.Client().Watch(ctx, key, clientv3.WithCreatedNotify())
	var last T
	for range w {
		it, err := store.Get[T](ctx, r.store, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			break
		}
		if last = it.Value; ok(it.Value, err == nil) {
			return it.Value
		}
	}
	b, _ := json.Marshal(last)
	r.t.Fatalf("%s: not %s, but %s", path.Base(key), what, b)
	return last
}

func (r *rig) observe(task, what string, ok func(o record.Observed) bool) record.Observed {
	r.t.Helper()
	return await(r, r.store.Keys.Observed("h1", task), what, func(o record.Observed, exists bool) bool { return exists && ok(o) })
}

func (r *rig) state(task, state string) record.Observed {
	r.t.Helper()
	return r.observe(task, state, func(o record.Observed) bool { return o.State == state })
}

func (r *rig) gone(key string) {
	r.t.Helper()
	await(r, key, "gone", func(_ json.RawMessage, exists bool) bool { return !exists })
}

func (r *rig) named(task string) record.NameRecord {
	r.t.Helper()
	return await(r, r.store.Keys.Name("h1", task), "named", func(_ record.NameRecord, exists bool) bool { return exists })
}

// until waits for something that etcd does not show.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); {
		if time.Now().After(end) {
			r.t.Fatalf("not %s after 60 s", what)
		}
		select {
		case <-r.t.Context().Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (r *rig) network(id, app string) record.Network {
	n := record.Network{ID: id, Name: app + "_default", App: app, Subnet: "10.208.0.0/20", Gateway: "10.208.0.1"}
	r.put(r.store.Keys.Network(id), n)
	return n
}

func (m *memEngine) only(t *testing.T) engine.Container {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	assert.Equal(t, len(m.containers), 1)
	for _, c := range m.containers {
		return *c
	}
	return engine.Container{}
}

func (m *memEngine) count(call string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[call]
}

func (m *memEngine) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func TestTaskLivesAndDies(t *testing.T) {
	r := newRig(t)
	r.network("n1", "shop")
	r.start()
	a := web("t1", record.PhasePrepare)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1", Aliases: []string{"www"}}}
	a.Container.Labels = map[string]string{"mine": "1", engine.LabelSystem: "agent"}
	a = r.assign(a)
	r.state("t1", record.StatePrepared)
	assert.Equal(t, r.engine.count("create")+r.engine.count("network create"), 0, "preparing makes nothing")

	a.Phase = record.PhaseRun
	r.assign(a)
	o := r.state("t1", record.StateRunning)
	assert.Assert(t, o.Addresses["n1"] != "", "%+v", o)
	n := r.named("t1")
	assert.DeepEqual(t, n, record.NameRecord{App: "shop", Service: "web", Replica: "shop-web-1",
		Networks: map[string]record.NamedAddress{"n1": {Address: o.Addresses["n1"], Aliases: []string{"www"}}}})
	c := r.engine.only(t)
	for k, v := range map[string]string{
		engine.LabelFleet: "f", engine.LabelApp: "shop", engine.LabelService: "web", engine.LabelSlot: "1",
		engine.LabelTask: "t1", engine.LabelHash: "a", "mine": "1", engine.LabelSystem: "",
	} {
		assert.Equal(t, c.Labels[k], v, k)
	}
	assert.Equal(t, r.engine.count("create"), 1)
	assert.Equal(t, r.engine.count("start"), 1)

	a.Phase = record.PhaseStop
	r.assign(a)
	r.state("t1", record.StateStopped)
	r.gone(r.store.Keys.Name("h1", "t1"))
	a.Phase = record.PhaseRun
	r.assign(a)
	r.state("t1", record.StateRunning)
	r.named("t1")

	r.unassign("t1")
	r.gone(r.store.Keys.Observed("h1", "t1"))
	r.gone(r.store.Keys.Name("h1", "t1"))
	r.until("without containers and networks", func() bool {
		r.engine.mu.Lock()
		defer r.engine.mu.Unlock()
		return len(r.engine.containers)+len(r.engine.networks) == 0
	})
}

func TestPrepareFailsBeforeAnythingIsMade(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { _ = taken.Close() }()
	port := uint16(taken.Addr().(*net.TCPAddr).Port)
	for _, c := range []struct {
		name string
		spec record.ContainerSpec
		want string
	}{
		{"image", record.ContainerSpec{Image: "nowhere:1"}, "nowhere:1 is nowhere"},
		{"port", record.ContainerSpec{Ports: []model.Port{{HostIP: "127.0.0.1", HostPort: port, ContainerPort: 80, Protocol: "tcp"}}},
			fmt.Sprintf("port tcp/127.0.0.1:%d is taken by another program on this host", port)},
		{"mount", record.ContainerSpec{Mounts: []model.Mount{{Type: model.MountBind, Source: "/no/such/path", Target: "/x"}}},
			"mount /no/such/path at /x: there is no such path on this host"},
		{"name", record.ContainerSpec{Name: "foreign"}, "the name is taken by a container that is not Clocker's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			_, err := r.engine.Create(t.Context(), engine.ContainerRequest{Spec: record.ContainerSpec{Name: "foreign", Image: "web:1"}})
			assert.NilError(t, err)
			r.start()
			a := web("t1", record.PhasePrepare)
			a.Container = c.spec
			a = r.assign(a)
			o := r.observe("t1", "fatally failed", func(o record.Observed) bool { return o.State == record.StateFailed && o.Fatal })
			assert.Assert(t, strings.Contains(o.Error, c.want), o.Error)
			r.engine.only(t)

			r.unassign("t1")
			r.gone(r.store.Keys.Observed("h1", "t1"))
		})
	}
}

func TestPortOfAnotherTaskIsTaken(t *testing.T) {
	r := newRig(t)
	r.start()
	ports := []model.Port{{HostPort: 18080, ContainerPort: 80, Protocol: "tcp"}}
	first := web("t1", record.PhaseRun)
	first.Container.Ports = ports
	r.assign(first)
	r.state("t1", record.StateRunning)
	other := web("t2", record.PhasePrepare)
	other.App, other.Container.Ports = "blog", ports
	r.assign(other)
	o := r.state("t2", record.StateFailed)
	assert.Assert(t, o.Fatal)
	assert.Equal(t, o.Error, "port tcp/18080 is taken by shop-web-1 of application shop")
	// The same replica's next incarnation may have it.
	next := web("t3", record.PhasePrepare)
	next.Release, next.Hash, next.Container.Ports = 2, "b", ports
	r.assign(next)
	r.state("t3", record.StatePrepared)
}

func TestReplicaIsReplaced(t *testing.T) {
	r := newRig(t)
	r.start()
	r.assign(web("t1", record.PhaseRun))
	r.state("t1", record.StateRunning)
	next := web("t2", record.PhaseRun)
	next.Hash, next.Release = "b", 2
	r.assign(next)
	o := r.observe("t2", "waiting", func(o record.Observed) bool { return o.Error != "" })
	assert.Equal(t, o.Error, "waits for the container of task t1, which has its name")
	r.unassign("t1")
	r.state("t2", record.StateRunning)
	r.gone(r.store.Keys.Observed("h1", "t1"))
	assert.Equal(t, r.engine.only(t).Labels[engine.LabelTask], "t2")
}

func TestWhatHappensOnTheEngineIsReported(t *testing.T) {
	r := newRig(t)
	r.engine.health["web:1"] = "starting"
	r.network("n1", "shop")
	r.start()
	a := web("t1", record.PhaseRun)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1"}}
	r.assign(a)
	r.observe("t1", "starting its health", func(o record.Observed) bool { return o.State == record.StateRunning && o.Health == "starting" })
	name := r.store.Keys.Name("h1", "t1")
	r.gone(name)
	set := func(health string) {
		id := r.engine.only(t).ID
		r.engine.change(func() {
			c := r.engine.containers[id]
			c.Health = health
			r.engine.containerEvent("health_status: "+health, c)
		})
	}
	set("healthy")
	r.observe("t1", "healthy", func(o record.Observed) bool { return o.Health == "healthy" })
	r.named("t1")
	set("unhealthy")
	r.gone(name)
	set("healthy")
	r.named("t1")

	// The engine restarts a container by its policy: same container.
	id := r.engine.only(t).ID
	r.engine.change(func() { r.engine.end(r.engine.containers[id], 3) })
	o := r.state("t1", record.StateFailed)
	assert.Equal(t, o.ExitCode, 3)
	assert.Equal(t, o.Error, "exited with code 3")
	r.gone(name)
	r.engine.change(func() { _ = r.engine.begin(r.engine.containers[id]) })
	r.state("t1", record.StateRunning)
	assert.Equal(t, r.engine.only(t).ID, id)
	r.engine.change(func() { r.engine.end(r.engine.containers[id], 0) })
	r.state("t1", record.StateComplete)

	// One that vanishes is made again.
	assert.NilError(t, r.engine.Remove(t.Context(), id))
	r.observe("t1", "made again", func(o record.Observed) bool { return o.State == record.StateRunning && o.Container != id })
}

func TestRestartIsDoneOnce(t *testing.T) {
	r := newRig(t)
	r.start()
	a := r.assign(web("t1", record.PhaseRun))
	r.state("t1", record.StateRunning)
	a.Restarts = 2
	r.assign(a)
	r.observe("t1", "restarted", func(o record.Observed) bool { return o.State == record.StateRunning && o.Restarts == 2 })
	assert.Equal(t, r.engine.count("restart"), 1)
	r.stop()
	r.start()
	// A task after it shows that the first has been decided about.
	b := web("t2", record.PhaseRun)
	b.Service = "db"
	r.assign(b)
	r.state("t2", record.StateRunning)
	assert.Equal(t, r.engine.count("restart"), 1)
}

func TestAgentRestartsAndAdopts(t *testing.T) {
	r := newRig(t)
	r.network("n1", "shop")
	r.start()
	a := web("t1", record.PhaseRun)
	a.Container.Networks = []record.NetworkJoin{{ID: "n1"}}
	r.assign(a)
	was := r.state("t1", record.StateRunning)
	r.named("t1")
	stopped := web("t2", record.PhaseRun)
	stopped.Service = "db"
	stopped = r.assign(stopped)
	r.state("t2", record.StateRunning)
	stopped.Phase = record.PhaseStop
	r.assign(stopped)
	r.state("t2", record.StateStopped)
	gone := web("t3", record.PhaseRun)
	gone.Service = "old"
	r.assign(gone)
	r.state("t3", record.StateRunning)

	r.stop()
	r.unassign("t3")
	stopped.Phase = record.PhaseRun
	r.assign(stopped)
	r.engine.change(func() { clear(r.engine.calls) })
	r.start()
	r.gone(r.store.Keys.Observed("h1", "t3"))
	r.state("t2", record.StateRunning)
	assert.Equal(t, r.engine.count("create"), 0)
	assert.Equal(t, r.engine.count("restart"), 0)
	assert.Equal(t, r.engine.count("start"), 1, "only what was stopped")
	now := r.state("t1", record.StateRunning)
	assert.Equal(t, now.Container, was.Container)
	assert.Assert(t, now.StartedAt.Equal(was.StartedAt))
	// The names are on the new agent's lease before the old one ends.
	await(r, r.store.Keys.HostLease("h1"), "taken over", func(l record.HostLease, ok bool) bool { return ok })
	lease := func(key string) int64 {
		g, err := r.store.Client().Get(t.Context(), key)
		assert.NilError(t, err)
		if len(g.Kvs) == 0 {
			return 0
		}
		return g.Kvs[0].Lease
	}
	r.until("on one lease", func() bool {
		l := lease(r.store.Keys.HostLease("h1"))
		return l != 0 && l == lease(r.store.Keys.Name("h1", "t1"))
	})
}

func TestUnknownHostTouchesNothing(t *testing.T) {
	r := newRig(t)
	r.start()
	r.assign(web("t1", record.PhaseRun))
	r.state("t1", record.StateRunning)
	r.stop()
	// An etcd that lost everything does not make the host lose it too.
	_, err := r.store.Txn().DeletePrefix(r.store.Keys.Prefix()).Commit(t.Context())
	assert.NilError(t, err)
	r.engine.change(func() { clear(r.engine.calls) })
	r.start()
	r.until("looked", func() bool { return r.engine.count("inspect") > 0 })
	r.stop()
	r.engine.only(t)
	// Once it knows the host, what it does not want goes.
	r.start()
	r.put(r.store.Keys.HostSpec("h1"), record.Host{ID: "h1"})
	r.until("removed", func() bool { return r.engine.count("remove") == 1 })
}

func TestEngineGoesAwayAndComesBack(t *testing.T) {
	r := newRig(t)
	r.start()
	r.assign(web("t1", record.PhaseRun))
	o := r.state("t1", record.StateRunning)
	r.engine.breakOff(true)
	r.engine.change(func() { r.engine.containers[o.Container].State = engine.Exited }) // nobody was told
	b := web("t2", record.PhaseRun)
	b.Service = "db"
	r.assign(b)
	r.engine.change(func() { r.engine.away = false })
	r.state("t2", record.StateRunning)
	r.state("t1", record.StateComplete)
}

func TestStartsAreParallelAndBounded(t *testing.T) {
	r := newRig(t)
	r.engine.gate = make(chan struct{})
	r.engine.images = map[string]bool{}
	r.engine.registry["web:1"] = true
	r.network("n1", "shop")
	r.start()
	const tasks = 40
	t1 := r.store.Txn()
	for i := range tasks {
		a := web(fmt.Sprintf("t%02d", i), record.PhaseRun)
		a.Slot, a.Host = i+1, "h1"
		a.Container = record.ContainerSpec{Name: fmt.Sprintf("shop-web-%d", i+1), Image: "web:1", Networks: []record.NetworkJoin{{ID: "n1"}}}
		t1.Put(r.store.Keys.Assignment("h1", a.Task), a)
	}
	_, err := t1.Commit(t.Context())
	assert.NilError(t, err)
	r.until("full", func() bool {
		r.engine.mu.Lock()
		defer r.engine.mu.Unlock()
		return r.engine.atOnce == parallel
	})
	close(r.engine.gate)
	for i := range tasks {
		r.state(fmt.Sprintf("t%02d", i), record.StateRunning)
	}
	r.engine.change(func() {
		assert.Equal(t, r.engine.mostAtOnce, parallel)
		assert.Equal(t, r.engine.calls["network create"], 1)
		assert.Equal(t, len(r.engine.containers), tasks)
	})
}

func TestFailuresAreToldApart(t *testing.T) {
	r := newRig(t)
	r.engine.startErr["shop-web-1"] = refused(engine.ErrCommand, "no such program")
	r.engine.startErr["shop-db-1"] = errors.New("network plugin is away")
	r.start()
	r.assign(web("t1", record.PhaseRun))
	b := web("t2", record.PhaseRun)
	b.Service = "db"
	r.assign(b)
	o := r.state("t1", record.StateFailed)
	assert.Assert(t, o.Fatal && strings.Contains(o.Error, "no such program"), "%+v", o)
	o = r.state("t2", record.StateFailed)
	assert.Assert(t, !o.Fatal && strings.Contains(o.Error, "plugin is away"), "%+v", o)
	r.engine.change(func() { delete(r.engine.startErr, "shop-db-1") })
	r.state("t2", record.StateRunning)
}

func TestEventsTellWhatHappened(t *testing.T) {
	r := newRig(t)
	r.start()
	r.assign(web("t1", record.PhaseRun))
	r.state("t1", record.StateRunning)
	r.unassign("t1")
	r.gone(r.store.Keys.Observed("h1", "t1"))
	var actions []string
	r.until("told", func() bool {
		items, _, err := store.List[record.Event](t.Context(), r.store, r.store.Keys.Events())
		assert.NilError(t, err)
		actions = nil
		for _, it := range items {
			assert.Equal(t, path.Base(it.Key), it.Value.ID)
			actions = append(actions, it.Value.Action+" "+it.Value.Subject)
		}
		return len(actions) == 2
	})
	assert.Assert(t, slices.Equal(actions, []string{"start shop-web-1", "remove shop-web-1"}), "%v", actions)
}
