package formatter

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

func TestHeadroom(t *testing.T) {
	h := api.Headroom{
		Policy: record.HeadroomPolicy{
			Count: 4, CPU: 15e8, Memory: 4 << 30, For: []record.HeadroomFor{{App: "shop", Service: "web", N: 2}}, MinHosts: 2, MaxHosts: 8, RemoveEmpty: true,
		},
		Revision: 7, UpDelay: 30 * time.Second, DownDelay: 5 * time.Minute, LostDelay: 10 * time.Minute, MaxContainers: 8, Providers: 1,
		Decision: api.HeadroomDecision{
			Hosts: 2, Coming: 1, Desired: 3, Event: "hot", Reason: "count lacks 1 container",
			Rooms: []api.HeadroomRoom{
				{Name: "count", Possible: 16, Used: 13, Available: 3, Headroom: 4, Needed: 1, Utilisation: 0.8125, Low: 0.25, High: 0.75, Desired: 3},
				{Name: "cpu", Possible: 4e9, Used: 5e8, Available: 35e8, Headroom: 15e8, Needed: -2e9, Utilisation: 0.125, High: 0.625, Desired: 1},
				{Name: "memory", Possible: 0, Used: 1 << 30, Available: -1 << 30, Headroom: 4 << 30, Needed: 5 << 30, Desired: 1},
				{Name: "for shop/web", Possible: 2, Available: 2, Headroom: 2, Desired: 2},
			},
		},
		Machines: []api.Machine{
			{Machine: record.Machine{ID: "a1", Provider: "rack", Handle: "ssh://root@10.0.0.7", State: record.MachineAdopting, Since: now.Add(-time.Minute), Why: "headroom (count): 1 container"}},
			{Machine: record.Machine{ID: "b2", Provider: "rack", Handle: "ssh://root@10.0.0.8", State: record.MachineHost, Since: now.Add(-time.Hour)}, HostName: "h2"},
			{Machine: record.Machine{ID: "c3", Provider: "rack", Handle: "ssh://root@10.0.0.9", State: record.MachineFailed, Since: now.Add(-time.Hour), Why: "x", Error: "connection refused"}},
		},
	}
	golden.Assert(t, render(t, Options{}, func(o Options) error { return Headroom(o, h) }), "headroom.golden")
	golden.Assert(t, render(t, Options{}, func(o Options) error {
		return Headroom(o, api.Headroom{Decision: api.HeadroomDecision{Hosts: 1, Reason: "no headroom is asked for; 1 host"}})
	}), "headroom-none.golden")
	golden.Assert(t, render(t, Options{}, func(o Options) error { return Machines(o, h.Machines) }), "machines.golden")
	assert.Equal(t, render(t, Options{Format: "{{.Decision.Event}} {{.Policy.Count}}"}, func(o Options) error { return Headroom(o, h) }), "hot 4\n")
	ps := []api.Provider{{Name: "rack", Kind: "byon", Machines: make([]record.ProviderMachine, 3), Hosts: 1, Coming: 1, Failed: 1, Labels: map[string]string{"zone": "a", "disk": "ssd"}}}
	golden.Assert(t, render(t, Options{}, func(o Options) error { return Providers(o, ps) }), "providers.golden")
	assert.Equal(t, render(t, Options{Format: "{{.Name}} {{.Labels}}"}, func(o Options) error { return Providers(o, ps) }), "rack disk=ssd,zone=a\n")
}
