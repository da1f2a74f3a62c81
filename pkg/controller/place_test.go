package controller

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"

	"gotest.tools/v3/assert"
)

// describe gives played hosts two CPUs and 4 GiB each, and labels.
func describe(t *testing.T, s *store.Store, labels map[string]map[string]string, hosts ...string) {
	t.Helper()
	for _, h := range hosts {
		it, err := store.Get[record.Host](t.Context(), s, s.Keys.HostSpec(h))
		assert.NilError(t, err)
		it.Value.Labels = labels[h]
		_, err = s.Txn().Put(it.Key, it.Value).
			Put(s.Keys.HostFacts(h), record.HostFacts{CPUs: 2, MemoryBytes: 4 << 30, Architecture: "x86_64"}).Commit(t.Context())
		assert.NilError(t, err)
	}
}

// reserving is an application of one service that keeps CPUs for each replica.
func reserving(name string, replicas int, nano int64) *model.Application {
	app := application(name, 1, replicas)
	app.Entities[0].Service.Resources.Reserve.NanoCPUs = nano
	return app
}

// Of deploys at once for the last room, one gets it; the others are told of
// every host and why.
func TestDeploysRaceForTheLastRoom(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2")
	describe(t, c.store, nil, "h1", "h2")
	c.awaitLead(t)
	await(t, func() bool { return c.facts("h2").CPUs == 2 })
	done, problems, err := deploy(c, reserving("first", 1, 1.5e9))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	for round := range 3 {
		var mu sync.Mutex
		results, winner := map[string]int{}, ""
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() {
				name := fmt.Sprintf("app%d-%d", round, i)
				done, problems, err := deploy(c, reserving(name, 1, 1.5e9))
				mu.Lock()
				defer mu.Unlock()
				var call *api.CallError
				switch {
				case errors.As(err, &call) && call.Status == 409:
					done = "refused"
					assert.Check(t, strings.Contains(call.Error(), "h1, h2: not enough cpu: 1.5 asked"), call.Error())
				case err != nil:
					t.Error(err)
				case done == "ok":
					winner = name
				default:
					t.Error(done, problems)
				}
				results[done]++
			})
		}
		all.Wait()
		assert.DeepEqual(t, results, map[string]int{"ok": 1, "refused": 4})
		overbooked(t, c, 2e9)
		assert.NilError(t, c.Remove(t.Context(), winner, func(api.Progress) error { return nil }))
	}
}

// overbooked fails when a host keeps more than it has.
func overbooked(t *testing.T, c *Controller, capacity int64) {
	t.Helper()
	items, _, err := store.List[record.Assignment](t.Context(), c.store, c.store.Keys.Assignments())
	assert.NilError(t, err)
	kept := map[string]int64{}
	for _, it := range items {
		kept[it.Value.Host] += it.Value.Container.Resources.Reserve.NanoCPUs
		assert.Check(t, kept[it.Value.Host] <= capacity, "%s: %v", it.Value.Host, kept)
	}
}

func (c *Controller) facts(host string) record.HostFacts {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return c.cache.facts[host]
}

// What a leader has decided is kept free by the next one, from its first
// decision on.
func TestNextLeaderKeepsReservations(t *testing.T) {
	server := storetest.StartServer(t)
	c1, stop := newController(t, server.NewClient(), "c1")
	c1.awaitLead(t)
	c2, _ := newController(t, server.NewClient(), "c2") // stands by from the start
	a := playAgents(t, server.Client(), "h1")
	describe(t, c1.store, nil, "h1")
	await(t, func() bool { return c1.facts("h1").CPUs == 2 })
	a.mu.Lock()
	a.hold = true
	a.mu.Unlock()
	go deploy(c1, reserving("first", 1, 1.5e9)) //nolint:errcheck // it is left in the middle
	await(t, func() bool { return len(c1.view("first").Assignments) == 1 })
	stop()
	c2.awaitLead(t)
	_, _, err := deploy(c2, reserving("second", 1, 1e9))
	assert.ErrorContains(t, err, "no host for s0.1: h1: ")
	overbooked(t, c2, 2e9)
}

// A replica that fills its host can be replaced there.
func TestSuccessorTakesItsPredecessorsRoom(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1")
	describe(t, c.store, nil, "h1")
	c.awaitLead(t)
	await(t, func() bool { return c.facts("h1").CPUs == 2 })
	for _, image := range []string{"web:1", "web:2"} {
		app := reserving("app", 1, 2e9)
		app.Entities[0].Service.Image = "docker.io/library/" + image
		done, problems, err := deploy(c, app)
		assert.NilError(t, err)
		assert.Equal(t, done, "ok", problems)
	}
	overbooked(t, c, 2e9)
}

// A deploy moves what its file does not allow any more on its host, and only
// that.
func TestDeployMovesWhatMayNotStay(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2", "h3")
	describe(t, c.store, map[string]map[string]string{"h2": {"disk": "ssd"}, "h3": {"disk": "ssd"}}, "h1", "h2", "h3")
	c.awaitLead(t)
	await(t, func() bool { return c.facts("h3").CPUs == 2 })
	app := application("app", 1, 3)
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	before := map[string]string{}
	for _, a := range c.view("app").Assignments {
		before[a.Host] = a.Task
	}
	assert.Equal(t, len(before), 3)

	app = application("app", 1, 3)
	app.Entities[0].Service.Placement.Constraints = []string{"node.labels.disk == ssd"}
	done, problems, err = deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
	kept := 0
	for _, a := range c.view("app").Assignments {
		assert.Assert(t, a.Host != "h1", "%s is on h1", a.Container.Name)
		if before[a.Host] == a.Task {
			kept++
		}
	}
	assert.Equal(t, kept, 2)
	// The same again changes nothing.
	was := c.view("app").App.Last
	done, _, err = deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok")
	assert.Equal(t, c.view("app").App.Last, was)
}

// A dry run shows every host for a replica that none takes, and why tells of
// replicas where they are.
func TestWhyAndDryRun(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2")
	describe(t, c.store, nil, "h1", "h2")
	c.awaitLead(t)
	await(t, func() bool { return c.facts("h2").CPUs == 2 })
	_, err := c.Placement(t.Context(), "app", "")
	assert.ErrorContains(t, err, "no application app")
	done, problems, err := deploy(c, reserving("app", 2, 1.5e9))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)

	why, err := c.Placement(t.Context(), "app", "s0")
	assert.NilError(t, err)
	assert.Equal(t, len(why), 1)
	assert.Equal(t, why[0].Next, "app-s0-3")
	assert.Assert(t, !why[0].Missing)
	assert.Equal(t, len(why[0].Replicas), 2)
	for _, r := range why[0].Replicas {
		assert.Assert(t, r.Host != "" && r.Reason != "" && r.State == record.StateRunning, "%+v", r)
	}
	assert.Equal(t, len(why[0].Hosts), 2)
	for _, h := range why[0].Hosts {
		assert.Assert(t, h.Rank == 0 && h.Filter != "" && h.Reason != "", "%+v", h)
	}
	_, err = c.Placement(t.Context(), "app", "s9")
	assert.ErrorContains(t, err, "no service s9")

	dry := func(app *model.Application, explain bool) (steps []api.Step, done string) {
		t.Helper()
		err := c.Deploy(t.Context(), "ada", api.DeployRequest{Application: app, DryRun: true, Explain: explain}, func(p api.Progress) error {
			if p.Step != nil {
				steps = append(steps, *p.Step)
			}
			done = p.Done
			return nil
		})
		assert.NilError(t, err)
		return steps, done
	}
	steps, done := dry(reserving("app", 3, 1.5e9), false)
	assert.Equal(t, done, "conflict")
	last := steps[len(steps)-1]
	assert.Equal(t, last.Action+" "+last.Subject, "refuse app-s0-3")
	assert.Equal(t, len(last.Hosts), 2)
	steps, done = dry(reserving("small", 2, 0.25e9), true)
	assert.Equal(t, done, "ok")
	hosts := map[string]bool{}
	for _, s := range steps[1:] {
		assert.Equal(t, s.Action, "create")
		assert.Equal(t, len(s.Hosts), 2)
		assert.Equal(t, s.Hosts[0].Host, s.Host)
		assert.Equal(t, s.Hosts[0].Rank, 1)
		hosts[s.Host] = true
	}
	assert.Equal(t, len(hosts), 2)
	assert.Equal(t, c.view("small").state.Revision, int64(0))
	// A question reserves nothing.
	steps, done = dry(reserving("small", 4, 0.25e9), false)
	assert.Equal(t, done, "ok", steps)
}

// The fleet's policy is changed by who has seen it, and holds at once.
func TestPlacementPolicy(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1")
	c.awaitLead(t)
	p, err := c.PlacementPolicy(t.Context())
	assert.NilError(t, err)
	assert.Equal(t, p.Revision, int64(0))
	p.MaxContainers = 2
	set, err := c.SetPlacementPolicy(t.Context(), p)
	assert.NilError(t, err)
	assert.Assert(t, set.Revision > 0)
	_, err = c.SetPlacementPolicy(t.Context(), p)
	assert.ErrorContains(t, err, "changed by somebody else")
	_, _, err = deploy(c, application("app", 1, 3))
	assert.ErrorContains(t, err, "no host for s0.3: h1: ")
	set.MaxContainers, set.Strategies, set.Affinity, set.MaxCPU = -1, []model.Strategy{{Name: "nope"}}, []string{"FOO"}, 2
	_, err = c.SetPlacementPolicy(t.Context(), set)
	var call *api.CallError
	assert.Assert(t, errors.As(err, &call))
	assert.Equal(t, call.Status, 400)
	assert.Equal(t, len(call.Body.Problems), 4, call.Body.Problems)
	set.MaxContainers, set.Strategies, set.Affinity, set.MaxCPU = 0, nil, nil, 0
	_, err = c.SetPlacementPolicy(t.Context(), set)
	assert.NilError(t, err)
	done, problems, err := deploy(c, application("app", 1, 3))
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
}

// Breadth-first goes round the hosts from deploy to deploy: neither a question
// nor the thought before a deploy moves it on.
func TestBreadthFirstGoesRound(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1", "h2", "h3")
	c.awaitLead(t)
	await(t, func() bool { return len(c.cache.appNames()) == 0 && c.findHost("h3") != "" })
	_, err := c.SetPlacementPolicy(t.Context(), api.PlacementPolicy{PlacementPolicy: record.PlacementPolicy{Strategies: []model.Strategy{{Name: "breadth-first"}}}})
	assert.NilError(t, err)
	seen := map[string]bool{}
	for i := range 3 {
		name := fmt.Sprint("app", i)
		done, problems, err := deploy(c, application(name, 1, 1))
		assert.NilError(t, err)
		assert.Equal(t, done, "ok", problems)
		_, err = c.Placement(t.Context(), name, "")
		assert.NilError(t, err)
		seen[c.view(name).Assignments[0].Host] = true
	}
	assert.Equal(t, len(seen), 3, seen)
}
