package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
)

// newController starts a controller on a real etcd, without its listener. It
// is stopped by the function it returns.
func newController(t *testing.T, client *clientv3.Client, name string) (*Controller, func()) {
	t.Helper()
	return newControllerWith(t, client, name, func(*Controller) {})
}

// newControllerWith is newController with something changed before it starts.
func newControllerWith(t *testing.T, client *clientv3.Client, name string, change func(*Controller)) (*Controller, func()) {
	t.Helper()
	authority, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	c := &Controller{
		fleet: "f", url: "https://" + name, config: &controllerconfig.Config{Name: name},
		etcd: etcdAccess{client: client, kind: "external"}, authority: authority,
		store: store.New(client, "f"), log: slog.New(slog.DiscardHandler), now: time.Now,
		exhaustedEvery: 50 * time.Millisecond,
	}
	change(c)
	c.cache = newCache(c.fleet)
	assert.NilError(t, c.bootstrap(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.store.Follow(ctx, c.store.Keys.Prefix(), c.log, c.cache.apply) }) //nolint:errcheck // ctx's error
	running.Go(func() { c.elect(ctx) })                                                     //nolint:errcheck // nil
	stop := sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return c, stop
}

func (c *Controller) awaitLead(t *testing.T) {
	t.Helper()
	await(t, func() bool { fence, _ := c.lead.get(); return fence != nil })
	// Hosts that were played before are seen; the leader may remove some already.
	await(t, func() bool {
		played, _, err := store.List[record.Underlay](t.Context(), c.store, c.store.Keys.Underlays())
		assert.NilError(t, err)
		c.cache.mu.RLock()
		defer c.cache.mu.RUnlock()
		return len(c.cache.underlays) >= len(played)
	})
}

func await(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatal("not within 60 s")
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// agents play hosts: they answer assignments as an agent does, but have no
// engine. missing are images that do not exist there; hold delays running.
type agents struct {
	t       *testing.T
	s       *store.Store
	mu      sync.Mutex
	missing map[string]bool
	hold    bool
	ran     map[string]int // container names, and how often they came up
}

func playAgents(t *testing.T, client *clientv3.Client, hosts ...string) *agents {
	t.Helper()
	a := &agents{t: t, s: store.New(client, "f"), missing: map[string]bool{}, ran: map[string]int{}}
	k := a.s.Keys
	for i, h := range hosts {
		address := fmt.Sprintf("192.0.2.%d", i+11)
		_, err := a.s.Txn().Put(k.HostSpec(h), record.Host{ID: h, Name: h, Address: address, State: record.HostActive}).
			Put(k.HostFacts(h), record.HostFacts{}).Put(k.HostLease(h), record.HostLease{}).
			Put(k.Underlay(h), record.Underlay{Host: h, Address: address, MTU: 1500}).Commit(t.Context())
		assert.NilError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		a.s.Follow(ctx, k.Assignments(), slog.New(slog.DiscardHandler), func(c store.Change) { a.act(ctx, c) }) //nolint:errcheck // ctx's error
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return a
}

func (a *agents) act(ctx context.Context, c store.Change) {
	k := a.s.Keys
	for _, raw := range c.Puts {
		as, err := store.Decode[record.Assignment](raw)
		if err != nil {
			a.t.Error(err)
		}
		a.mu.Lock()
		o := record.Observed{Task: as.Task, App: as.App, Service: as.Service, Slot: as.Slot, Host: as.Host, Restarts: as.Restarts}
		switch {
		case as.Phase == record.PhasePrepare && a.missing[as.Container.Image]:
			o.State, o.Fatal, o.Error = record.StateFailed, true, "image "+as.Container.Image+" does not exist"
		case as.Phase == record.PhasePrepare:
			o.State = record.StatePrepared
		case as.Phase == record.PhaseRun && as.Completed > as.Restarts:
			o.State = record.StateComplete
		case as.Phase == record.PhaseRun && a.hold:
			o.State = record.StateStarting
		case as.Phase == record.PhaseRun:
			o.State, o.Container = record.StateRunning, "c-"+as.Task
			a.ran[as.Container.Name]++
		case as.Phase == record.PhaseLeave:
			o.State, o.Container = record.StateRunning, "c-"+as.Task
		case as.Phase == record.PhaseStop:
			o.State, o.Container = record.StateStopped, "c-"+as.Task
		}
		a.mu.Unlock()
		_, err = a.s.Txn().Exists(raw.Key).Put(k.Observed(as.Host, as.Task), o).Commit(ctx)
		if err != nil && !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			a.t.Error(err)
		}
	}
	for _, key := range c.Deletes {
		p := strings.Split(key, "/")
		if _, err := a.s.Txn().Delete(k.Observed(p[len(p)-2], p[len(p)-1])).Commit(ctx); err != nil && ctx.Err() == nil {
			a.t.Error(err)
		}
	}
}

func application(name string, services, replicas int) *model.Application {
	app := &model.Application{Name: name, Dialect: "compose", Networks: []*model.Network{{Name: model.DefaultNetwork}}}
	for i := range services {
		app.Entities = append(app.Entities, &model.Entity{ID: fmt.Sprintf("s%d", i), Kind: model.KindService, Service: &model.Service{
			Image: "docker.io/library/web:1", Replicas: replicas, Restart: model.Restart{Policy: "always"},
			Networks: []model.Attachment{{Network: model.DefaultNetwork}},
		}})
	}
	return app
}

// deploy runs a deploy and returns its last word and its problems.
func deploy(c *Controller, app *model.Application) (done string, problems []string, err error) {
	err = c.Deploy(context.Background(), "ada", api.DeployRequest{Application: app}, func(p api.Progress) error {
		if p.Problem != "" {
			problems = append(problems, p.Problem)
		}
		if p.Done != "" {
			done = p.Done
		}
		return nil
	})
	return done, problems, err
}

func left(t *testing.T, s *store.Store) []string {
	t.Helper()
	r, err := s.Client().Get(t.Context(), s.Keys.Prefix(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	assert.NilError(t, err)
	var out []string
	for _, kv := range r.Kvs {
		key := strings.TrimPrefix(string(kv.Key), s.Keys.Prefix())
		for _, of := range []string{"apps/", "assign/", "observed/", "net/networks/"} {
			if strings.HasPrefix(key, of) {
				out = append(out, key)
			}
		}
	}
	return out
}

// awaitGone waits until nothing is left of the only application, and the
// controller has seen it.
func (c *Controller) awaitGone(t *testing.T, app string) {
	t.Helper()
	await(t, func() bool { return len(left(t, c.store)) == 0 && c.cache.app(app).Revision == 0 })
}

func TestDeployAndRemove(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	a := playAgents(t, client, "h1", "h2", "h3")
	c.awaitLead(t)
	done, problems, err := deploy(c, application("app", 10, 3))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	tasks, err := c.Tasks(t.Context(), "app")
	assert.NilError(t, err)
	assert.Equal(t, len(tasks), 30)
	// The same again changes nothing.
	done, _, err = deploy(c, application("app", 10, 3))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok")
	a.mu.Lock()
	assert.Equal(t, len(a.ran), 30)
	for name, n := range a.ran {
		assert.Equal(t, n, 1, name)
	}
	a.mu.Unlock()
	assert.NilError(t, c.Remove(t.Context(), "app", func(api.Progress) error { return nil }))
	assert.DeepEqual(t, left(t, c.store), []string(nil))
}

func TestMissingImageLeavesNothing(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	a := playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	app := application("app", 2, 2)
	app.Entities[1].Service.Image = "docker.io/no/such:1"
	a.mu.Lock()
	a.missing["docker.io/no/such:1"] = true
	a.mu.Unlock()
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "failed")
	assert.Assert(t, len(problems) > 0 && strings.Contains(problems[0], "docker.io/no/such:1 does not exist"), problems)
	a.mu.Lock()
	assert.Equal(t, len(a.ran), 0)
	a.mu.Unlock()
	c.awaitGone(t, "app")
	a.mu.Lock()
	a.missing = map[string]bool{}
	a.mu.Unlock()
	done, problems, err = deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
}

func TestTwoDeploysAtOnce(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1")
	c.awaitLead(t)
	// The same fixed port: one of them must be told.
	var mu sync.Mutex
	results := map[string]int{}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			app := application(fmt.Sprintf("app%d", i), 1, 1)
			app.Entities[0].Service.Ports = []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp", Mode: "host"}}
			done, _, err := deploy(c, app)
			mu.Lock()
			defer mu.Unlock()
			var call *api.CallError
			if errors.As(err, &call) && call.Status == 409 && strings.Contains(err.Error(), "port tcp/80 is taken by app") {
				done = "refused"
			} else if err != nil {
				t.Error(err)
			}
			results[done]++
		})
	}
	all.Wait()
	assert.DeepEqual(t, results, map[string]int{"ok": 1, "refused": 3})
	assert.Equal(t, len(c.cache.appNames()), 1)
}

// A leader that dies in the middle of a deploy is followed by one that goes
// on with it.
func TestNextLeaderGoesOn(t *testing.T) {
	server := storetest.StartServer(t)
	c1, stop := newController(t, server.NewClient(), "c1")
	a := playAgents(t, server.Client(), "h1", "h2")
	c1.awaitLead(t)
	a.mu.Lock()
	a.hold = true
	a.mu.Unlock()
	go deploy(c1, application("app", 3, 2)) //nolint:errcheck // it is left in the middle
	await(t, func() bool { return c1.view("app").Status.Phase == record.ReleaseStarting })
	c2, _ := newController(t, server.NewClient(), "c2")
	stop()
	c2.awaitLead(t)
	a.mu.Lock()
	a.hold = false
	a.mu.Unlock()
	// What was held runs now: the agents look again, also at what they are told
	// of only by now.
	await(t, func() bool {
		v := c2.view("app")
		for _, as := range v.Assignments {
			if v.Observed[as.Task].State != record.StateStarting {
				continue
			}
			_, err := a.s.Txn().Put(a.s.Keys.Observed(as.Host, as.Task), record.Observed{Task: as.Task, App: "app", Service: as.Service, Slot: as.Slot, Host: as.Host, State: record.StateRunning, Container: "c"}).Commit(t.Context())
			assert.NilError(t, err)
		}
		return v.App.Release == 1 && v.App.Pending == 0
	})
}

// What a deposed leader still tries to write is refused by its fence.
func TestDeposedLeaderCannotWrite(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1")
	c.awaitLead(t)
	fence, url := c.lead.get()
	// Take its election away behind its back, and keep it believing.
	_, err := client.Delete(t.Context(), c.store.Keys.Election(), clientv3.WithPrefix())
	assert.NilError(t, err)
	_, err = c.store.Txn(fence...).Put(c.store.Keys.AppCurrent("x"), record.AppState{Name: "x"}).Commit(t.Context())
	assert.Assert(t, errors.Is(err, store.ErrConflict), err)
	assert.Equal(t, url, "https://c1")
}

// A release larger than a transaction may be is stored in parts and read back
// whole.
func TestLargeReleaseComesBackWhole(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2", "h3")
	c.awaitLead(t)
	app := application("app", 40, 8)
	for _, e := range app.Entities {
		e.Service.Env = []model.EnvVar{{Name: "FILL", Value: model.Text(strings.Repeat("x", 40<<10))}}
	}
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	want, err := json.Marshal(app)
	assert.NilError(t, err)
	got, err := json.Marshal(c.cache.release("app", 1).Application)
	assert.NilError(t, err)
	assert.Equal(t, string(got), string(want))
	assert.NilError(t, c.Remove(t.Context(), "app", func(api.Progress) error { return nil }))
	assert.DeepEqual(t, left(t, c.store), []string(nil))
}

func TestOperated(t *testing.T) {
	all := []string{"a", "b"}
	s := record.AppState{Desired: record.DesiredRunning}
	s = operated(s, "stop", []string{"a"}, all)
	assert.DeepEqual(t, s.Stopped, []string{"a"})
	s = operated(s, "stop", nil, all)
	assert.Equal(t, s.Desired, record.DesiredStopped)
	s = operated(s, "start", []string{"b"}, all)
	assert.Equal(t, s.Desired, record.DesiredRunning)
	assert.DeepEqual(t, s.Stopped, []string{"a"})
	s = operated(s, "restart", nil, all)
	assert.DeepEqual(t, s.Restarts, map[string]int{"b": 1})
	assert.Equal(t, len(s.Stopped), 0)
}

// A replica that no host can take after one has left must be shown with the
// reason, not vanish.
func TestReplicasWithoutAHostAreShown(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2")
	c.awaitLead(t)
	app := application("app", 1, 2)
	app.Entities[0].Service.Ports = []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp", Mode: "host"}}
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	// By itself a removal does not take away what nobody else can run.
	quiet := func(api.Progress) error { return nil }
	assert.ErrorContains(t, c.RemoveHost(t.Context(), "h2", false, quiet), "host h2 cannot be emptied")
	h, err := c.Host(t.Context(), "h2")
	assert.NilError(t, err)
	assert.Equal(t, h.State, record.HostActive, "refused, it is what it was")
	assert.NilError(t, c.RemoveHost(t.Context(), "h2", true, quiet))
	tasks, err := c.Tasks(t.Context(), "app")
	assert.NilError(t, err)
	waiting := 0
	for _, task := range tasks {
		if task.State == "waiting" {
			waiting++
			assert.Assert(t, strings.Contains(task.Error, "h1: port tcp/80 is taken by app/s0"), task.Error)
		}
	}
	assert.Equal(t, waiting, 1)
	apps, err := c.Applications(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, apps[0].Status, "degraded")
}
