package command

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

func TestWhy(t *testing.T) {
	m := newMachine(t)
	web := api.ServicePlacement{
		App: "shop", Service: "web", Next: "shop-web-2",
		Replicas: []api.ReplicaPlacement{{Name: "shop-web-1", Slot: 1, Host: "h1", State: "running", Reason: "fewest replicas"}},
		Hosts:    []api.HostVerdict{{Host: "h2", Rank: 1}, {Host: "h1", Filter: "port-free", Reason: "port tcp/80 is taken by shop/web"}},
	}
	m.serve(answers{
		"GET /v1/applications/shop/placement?service=web": []api.ServicePlacement{web},
		"GET /v1/applications/shop/placement":             []api.ServicePlacement{web, {App: "shop", Service: "idle"}},
	})
	r := m.run("why", "shop", "web")
	assert.Equal(t, r.code, 0, r.err)
	for _, want := range []string{"fewest replicas", "would go to h2", "port-free", "port tcp/80 is taken by shop/web"} {
		assert.Assert(t, strings.Contains(r.out, want), r.out)
	}
	r = m.run("why", "shop")
	assert.Assert(t, strings.Contains(r.out, "idle wants no replica"), r.out)
	r = m.run("why", "--format", "json", "shop", "web")
	var got api.ServicePlacement
	assert.NilError(t, json.Unmarshal([]byte(r.out), &got))
	assert.DeepEqual(t, got, web)
	assert.Equal(t, m.run("why", "--format", "{{.Service}}", "shop").out, "web\nidle\n")
	assert.Equal(t, m.run("why").code, ExitInvalid)
	assert.Equal(t, m.run("why", "nope").code, ExitNotFound)
}

func TestDryRunShowsHosts(t *testing.T) {
	m := newMachine(t)
	steps := []api.Progress{
		{Step: &api.Step{Action: "create", Kind: "task", Subject: "shop-web-1", Host: "h1", Cause: "it does not exist; fewest replicas"}},
		{Step: &api.Step{Action: "refuse", Kind: "task", Subject: "shop-web-2", Cause: "it does not exist; no host takes it", Hosts: []api.HostVerdict{
			{Host: "h1", Filter: "port-free", Reason: "port tcp/80 is taken by shop/web"},
		}}},
		{Problem: "application shop cannot be placed"}, {Done: "conflict"},
	}
	var asked api.DeployRequest
	m.serve(answers{"POST /v1/applications": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Check(t, json.NewDecoder(r.Body).Decode(&asked))
		send(w, steps...)
	})})
	file := m.compose("web")
	r := m.run("deploy", "--dry-run", "--explain", file)
	assert.Equal(t, r.code, ExitConflict, r.err)
	assert.Assert(t, asked.DryRun && asked.Explain)
	for _, want := range []string{"shop-web-2 has no host:", "port tcp/80 is taken by shop/web"} {
		assert.Assert(t, strings.Contains(r.out, want), r.out)
	}
	assert.Assert(t, strings.Contains(r.err, "application shop cannot be placed"), r.err)
	r = m.run("deploy", "--dry-run", "--format", "json", file)
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	assert.Equal(t, len(lines), 2, r.out)
	var step struct {
		Action string
		Hosts  []api.HostVerdict
	}
	assert.NilError(t, json.Unmarshal([]byte(lines[1]), &step))
	assert.Equal(t, step.Action, "refuse")
	assert.Equal(t, step.Hosts[0].Filter, "port-free")
	r = m.run("deploy", "--explain", file)
	assert.Equal(t, r.code, ExitInvalid)
	assert.Assert(t, strings.Contains(r.err, "go with --dry-run"), r.err)
}

func TestFleetUpdate(t *testing.T) {
	m := newMachine(t)
	was := api.PlacementPolicy{Revision: 7, PlacementPolicy: record.PlacementPolicy{MaxContainers: 5, Affinity: []string{"NOT TYPE"}}}
	var put api.PlacementPolicy
	m.serve(answers{
		"GET /v1/policy/placement": was,
		"GET /v1/info":             api.Info{Fleet: "test", Hosts: 3},
		"PUT /v1/policy/placement": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			put = api.PlacementPolicy{}
			assert.Check(t, json.NewDecoder(r.Body).Decode(&put))
			assert.Check(t, json.NewEncoder(w).Encode(put))
		}),
	})
	r := m.run("fleet", "update", "--strategy", "breadth-first", "--strategy", "soft:label=ssd", "--max-cpu", "80%",
		"--reserve-cpu", "0.5", "--reserve-memory", "512M", "--affinity", "NOT TYPE, APPLICATION")
	assert.Equal(t, r.code, 0, r.err)
	assert.DeepEqual(t, put, api.PlacementPolicy{Revision: 7, PlacementPolicy: record.PlacementPolicy{
		Strategies: []model.Strategy{{Name: "breadth-first"}, {Name: "label", Soft: true, Labels: []string{"ssd"}}},
		Affinity:   []string{"NOT TYPE", "APPLICATION"}, MaxContainers: 5, MaxCPU: 0.8,
		KernelReserve: model.Amounts{NanoCPUs: 5e8, MemoryBytes: 512 << 20},
	}})
	r = m.run("fleet", "update", "--strategy", "", "--max-containers", "0", "--affinity", "")
	assert.Equal(t, r.code, 0, r.err)
	assert.DeepEqual(t, put, api.PlacementPolicy{Revision: 7})
	for _, bad := range [][]string{
		{}, {"--strategy", "nope"}, {"--max-cpu", "200%"}, {"--reserve-cpu", "x"}, {"--reserve-memory", "1x"}, {"--strategy", "max-containers=0"},
	} {
		put.Revision = 0
		r := m.run(append([]string{"fleet", "update"}, bad...)...)
		assert.Equal(t, r.code, ExitInvalid, r.err)
		assert.Equal(t, put.Revision, int64(0))
	}
	r = m.run("fleet", "inspect")
	assert.Equal(t, r.code, 0, r.err)
	var shown []fleetDetail
	assert.NilError(t, json.Unmarshal([]byte(r.out), &shown), r.out)
	assert.Equal(t, shown[0].Name, "test")
	assert.Equal(t, shown[0].Info.Hosts, 3)
	assert.DeepEqual(t, shown[0].Placement, fleetPlacement{Strategies: []string{}, Affinity: []string{"NOT TYPE"}, MaxContainers: 5, Revision: 7})
}
