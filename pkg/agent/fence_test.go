package agent

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

const testFence = 5 * time.Second

func fenced(task string) record.Assignment {
	a := web(task, record.PhaseRun)
	a.Container.Fenced, a.Container.Shared, a.Container.Fence = true, true, testFence
	return a
}

// newFenceRig is a rig whose etcd can be stopped.
func newFenceRig(t *testing.T) (*rig, *storetest.Server) {
	t.Helper()
	srv := storetest.StartServer(t)
	client, err := (&hostconfig.Config{Etcd: []string{srv.URL()}}).EtcdClient()
	assert.NilError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	r := &rig{t: t, store: store.New(client, "f"), engine: newMemEngine(), dir: t.TempDir(), stop: func() {}}
	t.Cleanup(func() { r.stop() })
	r.put(r.store.Keys.HostSpec("h1"), record.Host{ID: "h1"})
	return r, srv
}

func (r *rig) container(id string) engine.Container {
	r.t.Helper()
	c, err := r.engine.Container(r.t.Context(), id)
	assert.NilError(r.t, err)
	return c
}

func TestFencedContainerIsStoppedWhenEtcdIsSilentAndStartsAgain(t *testing.T) {
	r, srv := newFenceRig(t)
	r.start()
	r.assign(fenced("t1"))
	o := r.state("t1", record.StateRunning)
	assert.Equal(t, o.Fence, testFence)
	assert.Equal(t, r.container(o.Container).Labels[engine.LabelFence], "5s")
	silent := time.Now()
	srv.Stop()
	r.until("killed", func() bool { return r.engine.count("kill") > 0 })
	// etcd vouched for the host at most about a second before it stopped.
	if took := time.Since(silent); took < testFence-3*time.Second {
		t.Errorf("killed after %s", took)
	}
	assert.Assert(t, r.container(o.Container).State == engine.Exited)
	srv.Start()
	r.observe("t1", "running again", func(again record.Observed) bool {
		return again.State == record.StateRunning && again.StartedAt.After(o.StartedAt)
	})
}

// What is stopped with the agent runs on: etcd knows that nobody guards it.
func TestAgentThatEndsLeavesFencedWorkToNobody(t *testing.T) {
	r, _ := newFenceRig(t)
	r.start()
	r.assign(fenced("t1"))
	o := r.state("t1", record.StateRunning)
	key := r.store.Keys.HostFence("h1")
	assert.Assert(t, !await(r, key, "guarded", func(f record.HostFence, ok bool) bool { return ok }).Unguarded)
	r.stop()
	assert.Assert(t, await(r, key, "unguarded", func(f record.HostFence, ok bool) bool { return ok && f.Unguarded }).Unguarded)
	r.start()
	await(r, key, "guarded again", func(f record.HostFence, ok bool) bool { return ok && !f.Unguarded })
	assert.Equal(t, r.engine.count("start"), 1)
	assert.Equal(t, r.engine.count("kill"), 0)
	assert.Equal(t, r.container(o.Container).State, engine.Running)
}

func TestAgentThatCannotSayThatItEndsStopsFencedWork(t *testing.T) {
	r, srv := newFenceRig(t)
	r.start()
	r.assign(fenced("t1"))
	o := r.state("t1", record.StateRunning)
	srv.Stop()
	r.stop()
	assert.Equal(t, r.container(o.Container).State, engine.Exited)
}

// rigFence is the fence alone, with a clock of the test's.
func rigFence(r *rig, now *time.Duration) *fence {
	f := newFence(identity{"f", "h1"}, r.store, r.engine, r.dir, "b", func() time.Duration { return *now }, testLog(r.t))
	return f
}

func TestFencedStartNeedsLeaseAssignmentAndReport(t *testing.T) {
	r := newRig(t)
	now := time.Hour
	f := rigFence(r, &now)
	refused := func(why string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := f.permit(ctx, "t1", testFence)
		assert.Assert(t, err != nil, why)
	}
	refused("no lease")
	r.put(r.store.Keys.HostLease("h1"), record.HostLease{Boot: "b"})
	refused("a key without a lease vouches for nothing")
	g, err := r.store.Client().Grant(t.Context(), 60)
	assert.NilError(t, err)
	l := &lease{identity: identity{"f", "h1"}, store: r.store, now: time.Now, boot: "b", fence: f}
	assert.NilError(t, l.take(t.Context(), g.ID, time.Now()))
	refused("not assigned")
	a := fenced("t1")
	a.Phase = record.PhasePrepare
	r.assign(a)
	refused("not to be run yet")
	r.assign(fenced("t1"))
	refused("not reported")
	r.put(r.store.Keys.Observed("h1", "t1"), record.Observed{Task: "t1"})
	lapses, err := f.permit(t.Context(), "t1", testFence)
	assert.NilError(t, err)
	assert.NilError(t, f.started(t.Context(), "nothing", testFence, lapses))
	// Started while the fence passed.
	now += testFence
	id, err := r.engine.Create(t.Context(), engine.ContainerRequest{Spec: record.ContainerSpec{Name: "x", Image: "web:1"}, Labels: map[string]string{engine.LabelFleet: "f", engine.LabelFence: "5s"}})
	assert.NilError(t, err)
	assert.NilError(t, r.engine.Start(t.Context(), id))
	assert.ErrorIs(t, f.started(t.Context(), id, testFence, lapses), errFence)
	assert.Equal(t, r.container(id).State, engine.Exited)
	// The lease of another run vouches for nothing.
	l.boot = "other"
	assert.NilError(t, l.take(t.Context(), g.ID, time.Now()))
	refused("another agent's lease")
}

func TestWhatWasDueIsStoppedBeforeTheLeaseCountsAgain(t *testing.T) {
	r := newRig(t)
	now := time.Hour
	f := rigFence(r, &now)
	run := func(name, bound string) string {
		id, err := r.engine.Create(t.Context(), engine.ContainerRequest{Spec: record.ContainerSpec{Name: name, Image: "web:1"}, Labels: map[string]string{engine.LabelFleet: "f", engine.LabelFence: bound}})
		assert.NilError(t, err)
		assert.NilError(t, r.engine.Start(t.Context(), id))
		return id
	}
	// Nobody knows since when etcd is silent: everything is due.
	first := run("first", "10m0s")
	lapses, err := f.accept(t.Context(), now)
	assert.NilError(t, err)
	assert.Assert(t, lapses > 0)
	assert.Equal(t, r.container(first).State, engine.Exited)
	short, long := run("short", "5s"), run("long", "20s")
	now += 4900 * time.Millisecond
	f.sweep(t.Context())
	assert.Equal(t, r.container(short).State, engine.Running)
	now += 10 * time.Second
	r.engine.breakOff(true)
	_, err = f.accept(t.Context(), now)
	assert.ErrorIs(t, err, errFence, "the engine hangs: nothing counts")
	r.engine.breakOff(false)
	_, err = f.accept(t.Context(), now)
	assert.NilError(t, err)
	assert.Equal(t, r.container(short).State, engine.Exited)
	assert.Equal(t, r.container(long).State, engine.Running)
	// The next run of the agent goes on where this one was.
	again := rigFence(r, &now)
	d, known := again.silence()
	assert.Assert(t, known && d == 0)
	assert.Assert(t, again.killed()[short] && !again.killed()[long])
}

// An agent that was killed and is stopped before it has a lease again still leaves
// its work to nobody, unless somebody has taken a lease meanwhile.
func TestAgentWithoutALeaseYetLeavesFencedWorkToNobody(t *testing.T) {
	r := newRig(t)
	now := time.Hour
	killed := rigFence(r, &now)
	g, err := r.store.Client().Grant(t.Context(), 60)
	assert.NilError(t, err)
	l := &lease{identity: identity{"f", "h1"}, store: r.store, now: time.Now, boot: "b", fence: killed}
	assert.NilError(t, l.take(t.Context(), g.ID, time.Now()))
	_, err = killed.accept(t.Context(), now)
	assert.NilError(t, err)
	now += time.Second
	rigFence(r, &now).handOver()
	key := r.store.Keys.HostFence("h1")
	it, err := store.Get[record.HostFence](t.Context(), r.store, key)
	assert.NilError(t, err)
	assert.Assert(t, it.Value.Unguarded)
	next := rigFence(r, &now)
	assert.NilError(t, next.taking())
	_, err = r.store.Txn().Put(key, record.HostFence{Boot: "other"}).Commit(t.Context())
	assert.NilError(t, err)
	next.handOver()
	it, err = store.Get[record.HostFence](t.Context(), r.store, key)
	assert.NilError(t, err)
	assert.Assert(t, !it.Value.Unguarded, "another lease was taken")
	_, known := next.silence()
	assert.Assert(t, !known)
}

func TestLateGrantDoesNotGuardWhatWasLeftToNobody(t *testing.T) {
	r := newRig(t)
	now := time.Hour
	f := rigFence(r, &now)
	g, err := r.store.Client().Grant(t.Context(), 60)
	assert.NilError(t, err)
	l := &lease{identity: identity{"f", "h1"}, store: r.store, now: time.Now, boot: "b", fence: f}
	assert.NilError(t, l.take(t.Context(), g.ID, time.Now()))
	_, err = f.accept(t.Context(), now)
	assert.NilError(t, err)
	was, err := store.Get[record.HostFence](t.Context(), r.store, r.store.Keys.HostFence("h1"))
	assert.NilError(t, err)
	f.handOver()
	_, err = r.store.Txn().Unchanged(was.Key, was.Revision).Put(was.Key, record.HostFence{Boot: "b"}).Commit(t.Context())
	assert.ErrorIs(t, err, store.ErrConflict)
	d, known := rigFence(r, &now).silence()
	assert.Assert(t, known && d == 0)
	now += time.Hour
	next := rigFence(r, &now)
	d, _ = next.silence()
	assert.Equal(t, d, time.Duration(0), "nobody counts while the agent is away")
	assert.NilError(t, next.taking())
	now += time.Second
	d, _ = next.silence()
	assert.Equal(t, d, time.Second)
}

func TestAgentStartsFencedContainersAgainByPolicy(t *testing.T) {
	c := &engine.Container{ID: "c", State: engine.Exited, StartedAt: time.Unix(1, 0), ExitCode: 1}
	for _, x := range []struct {
		restart model.Restart
		m       memory
		code    int
		want    bool
	}{
		{model.Restart{}, memory{}, 1, false},
		{model.Restart{}, memory{Cut: map[string]bool{"c": true}}, 137, true},
		{model.Restart{Policy: "always"}, memory{}, 0, true},
		{model.Restart{Policy: "always"}, memory{ByHand: true}, 0, false},
		{model.Restart{Policy: "always"}, memory{Stopped: true, Cut: map[string]bool{"c": true}}, 0, false},
		{model.Restart{Policy: "on-failure"}, memory{}, 0, false},
		{model.Restart{Policy: "on-failure"}, memory{Again: 100}, 1, true},
		{model.Restart{Policy: "on-failure", MaxRetries: 3}, memory{Again: 2}, 1, true},
		{model.Restart{Policy: "on-failure", MaxRetries: 3}, memory{Again: 3}, 1, false},
	} {
		a := assigned{Assignment: fenced("t")}
		a.Container.Restart = x.restart
		c.ExitCode = x.code
		assert.Equal(t, startsAgain(a, c, x.m), x.want, "%+v", x)
		a.Container.Fence = 0
		assert.Assert(t, !startsAgain(a, c, x.m), "the engine's to do")
	}
}

// The agent hangs: its guard stops what is due, by what the agent has kept.
func TestGuardStopsWhatAnAgentThatHangsDoesNot(t *testing.T) {
	r := newRig(t)
	now := time.Hour
	f := rigFence(r, &now)
	_, err := f.accept(t.Context(), now)
	assert.NilError(t, err)
	f.setActive(true)
	id, err := r.engine.Create(t.Context(), engine.ContainerRequest{Spec: record.ContainerSpec{Name: "x", Image: "web:1"}, Labels: map[string]string{engine.LabelFleet: "f", engine.LabelFence: "5s"}})
	assert.NilError(t, err)
	assert.NilError(t, r.engine.Start(t.Context(), id))
	by := rigFence(r, &now)
	by.file, by.guardFile = newGuardFile(r.dir), fenceFile{}
	g := &guard{file: newFenceFile(r.dir), fence: by}
	now += testFence - time.Millisecond
	g.look(t.Context())
	assert.Equal(t, r.container(id).State, engine.Running)
	now += time.Millisecond
	g.look(t.Context())
	assert.Equal(t, r.container(id).State, engine.Exited)
	// The agent goes on, and knows that it was not the container's own end.
	_, err = f.accept(t.Context(), now)
	assert.NilError(t, err)
	assert.Assert(t, f.killed()[id])
	now += time.Second
	g.look(t.Context())
	assert.Equal(t, r.engine.count("kill"), 1)
}

// However long etcd or the engine are silent, and however late answers are: when
// etcd's word counts again, nothing runs that was due in between.
func TestNothingDueRunsWhenTheLeaseCountsAgain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := newMemEngine()
		now := time.Hour
		f := newFence(identity{"f", "h1"}, nil, e, "", "b", func() time.Duration { return now }, slog.New(slog.DiscardHandler))
		_, err := f.accept(t.Context(), now)
		assert.NilError(rt, err)
		last, bounds, due := now, map[string]time.Duration{}, map[string]bool{}
		step := func(d time.Duration) {
			now += d
			for id, b := range bounds {
				due[id] = due[id] || now-last >= b
			}
		}
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "what") {
			case 0:
				step(time.Duration(rapid.IntRange(0, 12000).Draw(rt, "ms")) * time.Millisecond)
			case 1:
				e.breakOff(rapid.Bool().Draw(rt, "away"))
			case 2:
				f.sweep(t.Context())
			case 3:
				b := time.Duration(rapid.IntRange(5, 20).Draw(rt, "fence")) * time.Second
				if id, err := e.Create(t.Context(), engine.ContainerRequest{
					Spec:   record.ContainerSpec{Name: fmt.Sprint("c", i), Image: "web:1"},
					Labels: map[string]string{engine.LabelFleet: "f", engine.LabelFence: b.String()},
				}); err == nil && e.Start(t.Context(), id) == nil {
					bounds[id], due[id] = b, now-last >= b
				}
			case 4:
				sent := max(last, now-time.Duration(rapid.IntRange(0, 3000).Draw(rt, "late"))*time.Millisecond)
				if _, err := f.accept(t.Context(), sent); err != nil {
					continue
				}
				e.change(func() {
					for id := range bounds {
						if due[id] && e.containers[id].State == engine.Running {
							rt.Fatalf("%s runs, and was due", id)
						}
						if e.containers[id].State != engine.Running && !due[id] {
							rt.Fatalf("%s was killed before its time", id)
						}
					}
				})
				last = sent
				step(0)
			}
		}
	})
}
