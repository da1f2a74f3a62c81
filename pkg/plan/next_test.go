package plan

import (
	"fmt"
	"strings"
	"testing"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

// world is a fleet in miniature: it keeps what etcd would and plays the
// agents' part one small step at a time. It is a simulator, not a mock: no
// answer is prepared.
type world struct {
	Snapshot
	releases map[int]*record.Release
	statuses map[int]record.ReleaseStatus
	ids      int
	// breaks says which services' containers fail to start.
	breaks map[string]bool
	// log are the containers in the order they came up.
	log     []string
	removed bool
}

func newWorld(hosts ...string) *world {
	w := &world{releases: map[int]*record.Release{}, statuses: map[int]record.ReleaseStatus{}, breaks: map[string]bool{}}
	w.Fleet = "f"
	w.App = record.AppState{Name: "a", Desired: record.DesiredRunning}
	w.Observed, w.HostUp, w.Hosts = map[string]record.Observed{}, map[string]bool{}, map[string]string{}
	for _, h := range hosts {
		w.HostUp[h], w.Hosts[h] = true, h
	}
	return w
}

func service(id, image string, replicas int) *model.Entity {
	return &model.Entity{ID: id, Kind: model.KindService, Service: &model.Service{
		Image: image, Replicas: replicas, Networks: []model.Attachment{{Network: model.DefaultNetwork}},
	}}
}

// deploy does what the controller does: a release with its assignments.
func (w *world) deploy(es ...*model.Entity) int {
	w.App.Last++
	n := w.App.Last
	w.App.Pending = n
	w.releases[n] = &record.Release{App: "a", Number: n, Networks: map[string]string{model.DefaultNetwork: "n1"}, Application: &model.Application{Name: "a", Dialect: "compose", Entities: es}}
	w.statuses[n] = record.ReleaseStatus{Phase: record.ReleasePreparing}
	w.look()
	w.assign(Diff(Templates("f", w.Release), n, w.Assignments).Missing, n)
	return n
}

func (w *world) assign(missing []Missing, release int) {
	for i, m := range missing {
		w.ids++
		host := fmt.Sprintf("h%d", i%len(w.Hosts)+1)
		w.Assignments = append(w.Assignments, record.Assignment{
			Task: fmt.Sprintf("t%03d", w.ids), App: "a", Release: release, Service: m.Service, Slot: m.Slot,
			Host: host, Phase: record.PhasePrepare, Hash: m.Hash, Container: m.Spec,
		})
	}
}

func (w *world) look() {
	n := w.App.Release
	if w.App.Pending != 0 {
		n = w.App.Pending
	}
	w.Release, w.Status = w.releases[n], w.statuses[n]
}

// control carries out one decision; it reports whether anything changed.
func (w *world) control() bool {
	w.look()
	d := Next(w.Snapshot)
	for _, p := range d.Put {
		for i := range w.Assignments {
			if w.Assignments[i].Task == p.Task {
				w.Assignments[i] = p
			}
		}
	}
	for _, r := range d.Remove {
		for i := range w.Assignments {
			if w.Assignments[i].Task == r.Task {
				w.Assignments = append(w.Assignments[:i:i], w.Assignments[i+1:]...)
				break
			}
		}
	}
	w.assign(d.Missing, w.App.Release)
	for _, o := range d.Forget {
		delete(w.Observed, o.Task)
	}
	if d.Phase != "" {
		w.statuses[w.App.Pending] = record.ReleaseStatus{Phase: d.Phase, Problems: d.Problems}
		switch d.Phase {
		case record.ReleaseDone:
			w.App.Release, w.App.Pending = w.App.Pending, 0
		case record.ReleaseFailed, record.ReleaseCancelled:
			w.App.Pending = 0
			if w.App.Release == 0 {
				w.App.Desired = record.DesiredRemoved
			}
		}
	}
	w.removed = w.removed || d.Finished
	return len(d.Put)+len(d.Remove)+len(d.Missing)+len(d.Forget) > 0 || d.Phase != ""
}

// agents lists the steps that agents could take now.
func (w *world) agents() []func() {
	var steps []func()
	assigned := map[string]bool{}
	for _, a := range w.Assignments {
		assigned[a.Task] = true
		if !w.HostUp[a.Host] {
			continue
		}
		o := w.Observed[a.Task]
		to := ""
		switch {
		case a.Phase == record.PhasePrepare && o.State == "":
			to = record.StatePrepared
		case a.Phase == record.PhaseRun && (o.State == "" || o.State == record.StatePrepared || o.State == record.StateStopped):
			to = record.StateRunning
			if w.breaks[a.Service] {
				to = record.StateFailed
			}
		case a.Phase == record.PhaseStop && o.State == record.StateRunning:
			to = record.StateStopped
		}
		if to == "" {
			continue
		}
		steps = append(steps, func() {
			o := record.Observed{Task: a.Task, App: "a", Service: a.Service, Slot: a.Slot, Host: a.Host, State: to, Addresses: map[string]string{"n1": "10.0.0." + a.Task[1:]}}
			if to != record.StatePrepared {
				o.Container = "c" + a.Task
			}
			if to == record.StateFailed {
				o.Fatal, o.Error = true, "exec: no such file"
			}
			if to == record.StateRunning {
				w.log = append(w.log, a.Service)
			}
			w.Observed[a.Task] = o
		})
	}
	for _, o := range w.Observed {
		if !assigned[o.Task] && w.HostUp[o.Host] {
			steps = append(steps, func() { delete(w.Observed, o.Task) })
		}
	}
	return steps
}

// settle runs controller and agents until nothing moves, in the order that
// pick chooses.
func (w *world) settle(t interface{ Fatalf(string, ...any) }, pick func(n int) int, always func()) {
	for range 2000 {
		moved := w.control()
		always()
		steps := w.agents()
		if len(steps) == 0 && !moved {
			return
		}
		if len(steps) > 0 {
			steps[pick(len(steps))]()
			always()
		}
	}
	t.Fatalf("does not settle: %+v", w.App)
}

func first(int) int { return 0 }
func nothing()      {}

func (w *world) running() map[string]string {
	out := map[string]string{}
	for _, a := range w.Assignments {
		if o := w.Observed[a.Task]; o.State == record.StateRunning {
			out[a.Container.Name] = a.Container.Image
		}
	}
	return out
}

func TestDeployRunsEveryReplica(t *testing.T) {
	w := newWorld("h1", "h2", "h3")
	n := w.deploy(service("web", "web:1", 3), service("db", "db:1", 1))
	w.settle(t, first, nothing)
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseDone)
	assert.DeepEqual(t, w.running(), map[string]string{"a-web-1": "web:1", "a-web-2": "web:1", "a-web-3": "web:1", "a-db-1": "db:1"})
}

func TestNothingStartsBeforeEverythingIsPrepared(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 1), service("bad", "missing:1", 1))
	bad := w.Assignments[1]
	w.Observed[bad.Task] = record.Observed{Task: bad.Task, Service: "bad", Slot: 1, Host: bad.Host, State: record.StateFailed, Fatal: true, Error: "image missing:1 does not exist"}
	w.settle(t, first, nothing)
	assert.Equal(t, len(w.log), 0)
	assert.Assert(t, w.removed)
	assert.DeepEqual(t, w.statuses[1].Problems, []string{"a-bad-1 on h2: image missing:1 does not exist"})
}

func TestFailedUpdateBringsTheFormerReleaseBack(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 2), service("db", "db:1", 1))
	w.settle(t, first, nothing)
	before := w.running()
	w.breaks["db"] = true
	n := w.deploy(service("web", "web:2", 2), service("db", "db:2", 1))
	w.settle(t, first, nothing)
	delete(w.breaks, "db")
	w.control()
	assert.Equal(t, w.statuses[n].Phase, record.ReleaseFailed)
	// db:1 cannot come back while its containers break; let it.
	for id, o := range w.Observed {
		if o.State == record.StateFailed {
			delete(w.Observed, id)
		}
	}
	w.settle(t, first, nothing)
	assert.DeepEqual(t, w.running(), before)
	assert.Equal(t, w.App.Release, 1)
}

func TestCancelLeavesNothing(t *testing.T) {
	w := newWorld("h1")
	w.deploy(service("web", "web:1", 2))
	w.control()
	w.statuses[1] = record.ReleaseStatus{Phase: record.ReleasePreparing, Cancel: true}
	w.settle(t, first, nothing)
	assert.Assert(t, w.removed)
	assert.Equal(t, len(w.Assignments)+len(w.Observed), 0)
}

func TestUnchangedReplicasAreKept(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 2), service("db", "db:1", 1))
	w.settle(t, first, nothing)
	ids := map[string]string{}
	for _, a := range w.Assignments {
		ids[a.Container.Name] = a.Task
	}
	w.deploy(service("web", "web:1", 3), service("db", "db:2", 1))
	w.settle(t, first, nothing)
	for _, a := range w.Assignments {
		same := ids[a.Container.Name] == a.Task
		assert.Equal(t, same, a.Service == "web" && a.Slot <= 2, a.Container.Name)
	}
}

func TestLinksWaitAndFillVariables(t *testing.T) {
	redis := service("redis", "redis:3", 1)
	redis.Service.Ports = []model.Port{{ContainerPort: 6379, Protocol: "tcp"}}
	web := service("web", "web:1", 1)
	web.Service.Links = []model.Link{{Target: "redis", Alias: "cache"}}
	w := newWorld("h1", "h2")
	w.deploy(web, redis)
	w.settle(t, first, nothing)
	assert.DeepEqual(t, w.log, []string{"redis", "web"})
	for _, a := range w.Assignments {
		if a.Service == "web" {
			env := strings.Join(a.Container.Env, " ")
			assert.Assert(t, strings.Contains(env, "CACHE_PORT=tcp://10.0.0."), env)
			assert.Equal(t, len(a.Container.ExtraHosts), 1)
		}
	}
}

func TestUnhealthyDependencyWithoutHealthcheckFails(t *testing.T) {
	web := service("web", "web:1", 1)
	web.Service.DependsOn = []model.Dependency{{Entity: "db", Condition: model.ConditionHealthy}}
	w := newWorld("h1")
	n := w.deploy(web, service("db", "db:1", 1))
	w.settle(t, first, nothing)
	assert.DeepEqual(t, w.statuses[n].Problems, []string{"web waits for a-db-1 to be healthy, but it has no healthcheck"})
}

func TestHostLostDuringDeployFailsIt(t *testing.T) {
	w := newWorld("h1", "h2")
	n := w.deploy(service("web", "web:1", 2))
	w.HostUp["h2"], w.HostLost = false, map[string]bool{"h2": true}
	w.settle(t, first, nothing)
	assert.DeepEqual(t, w.statuses[n].Problems, []string{"host h2 stopped answering"})
}

func TestStopStartRestart(t *testing.T) {
	w := newWorld("h1")
	w.deploy(service("web", "web:1", 1), service("db", "db:1", 1))
	w.settle(t, first, nothing)
	w.App.Stopped = []string{"web"}
	w.settle(t, first, nothing)
	assert.DeepEqual(t, w.running(), map[string]string{"a-db-1": "db:1"})
	w.App.Desired, w.App.Stopped = record.DesiredStopped, nil
	w.settle(t, first, nothing)
	assert.Equal(t, len(w.running()), 0)
	w.App.Desired, w.App.Restarts = record.DesiredRunning, map[string]int{"db": 1}
	w.settle(t, first, nothing)
	assert.Equal(t, len(w.running()), 2)
	for _, a := range w.Assignments {
		assert.Equal(t, a.Restarts, map[string]int{"web": 0, "db": 1}[a.Service])
	}
}

func TestRemoveWaitsForTasksAndNetworks(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 2))
	w.settle(t, first, nothing)
	w.App.Desired, w.NetworkUses = record.DesiredRemoved, 2
	w.settle(t, first, nothing)
	assert.Assert(t, !w.removed)
	w.NetworkUses = 0
	w.control()
	assert.Assert(t, w.removed)
}

func TestRemoveForgetsHostsThatAreDown(t *testing.T) {
	w := newWorld("h1", "h2")
	w.deploy(service("web", "web:1", 2))
	w.settle(t, first, nothing)
	w.HostUp["h2"] = false
	w.App.Desired = record.DesiredRemoved
	w.settle(t, first, nothing)
	assert.Assert(t, w.removed)
	assert.Equal(t, len(w.Observed), 0)
}

// Whatever the order in which agents act: never two containers of one slot at
// once, dependencies come first, and a sequence of deploys ends in the last
// one that was good.
func TestDeploysInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld("h1", "h2", "h3")
		pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "step") }
		always := func() {
			seen := map[string]string{}
			for _, o := range w.Observed {
				if o.State != record.StateRunning {
					continue
				}
				k := fmt.Sprint(o.Service, o.Slot)
				if other, twice := seen[k]; twice {
					t.Fatalf("%s runs twice: %s and %s", k, other, o.Task)
				}
				seen[k] = o.Task
			}
		}
		wanted := map[string]string{}
		for range rapid.IntRange(1, 4).Draw(t, "deploys") {
			image := fmt.Sprintf("web:%d", rapid.IntRange(1, 3).Draw(t, "image"))
			replicas := rapid.IntRange(0, 4).Draw(t, "replicas")
			web, db := service("web", image, replicas), service("db", "db:1", 1)
			web.Service.DependsOn = []model.Dependency{{Entity: "db", Condition: model.ConditionStarted}}
			broken := rapid.Bool().Draw(t, "broken") && w.App.Release > 0
			es := []*model.Entity{web, db}
			if broken {
				w.breaks["bad"] = true
				es = append(es, service("bad", "bad:1", 1))
			}
			mark := len(w.log)
			n := w.deploy(es...)
			w.settle(t, pick, always)
			for i, s := range w.log[mark:] {
				if s == "db" {
					for _, before := range w.log[mark : mark+i] {
						assert.Assert(t, before != "web", "web came before db: %v", w.log[mark:])
					}
				}
			}
			if broken {
				assert.Equal(t, w.statuses[n].Phase, record.ReleaseFailed)
			} else {
				assert.Equal(t, w.statuses[n].Phase, record.ReleaseDone)
				wanted = map[string]string{"a-db-1": "db:1"}
				for i := range replicas {
					wanted[fmt.Sprintf("a-web-%d", i+1)] = image
				}
			}
			assert.DeepEqual(t, w.running(), wanted)
		}
	})
}
