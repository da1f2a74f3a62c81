package formatter

import (
	"fmt"
	"testing"

	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/api"
)

func placements(hosts int) []api.ServicePlacement {
	web := api.ServicePlacement{
		App: "shop", Service: "web", Next: "shop-web-3", Missing: true,
		Replicas: []api.ReplicaPlacement{
			{Name: "shop-web-1", Slot: 1, Host: "h1", State: "running", Reason: "least loaded: 0 of this service, 1 of this application, 3 in all"},
			{Name: "shop-web-2", Slot: 2, Host: "h2", State: "running", Cause: "drain", Reason: "least loaded"},
			{Name: "shop-web-3", Slot: 3, State: "waiting", Reason: "no host takes it"},
		},
	}
	for i := range hosts {
		h := api.HostVerdict{Host: fmt.Sprint("h", i+1), Filter: "port-free", Reason: "port tcp/80 is taken by shop/web"}
		if i%3 == 2 {
			h.Filter, h.Reason = "host-up", "its agent does not answer"
		} else if i%3 == 1 {
			h.Filter, h.Reason = "cpu", fmt.Sprintf("not enough cpu: 1.5 asked, 0.%d free", i%9)
		}
		web.Hosts = append(web.Hosts, h)
	}
	db := api.ServicePlacement{
		App: "shop", Service: "db", Next: "shop-db-2",
		Replicas: []api.ReplicaPlacement{{Name: "shop-db-1", Slot: 1, Host: "h1", State: "running"}},
	}
	for i := range hosts {
		db.Hosts = append(db.Hosts, api.HostVerdict{Host: fmt.Sprint("h", i+1), Rank: i + 1, Score: []api.ScorePart{
			{Name: "service", Value: float64(i), Text: fmt.Sprintf("%d of this service", i)}, {Name: "all", Value: 4, Text: "4 in all"},
		}})
	}
	return []api.ServicePlacement{web, db}
}

func TestPlacement(t *testing.T) {
	few, many := placements(3), placements(40)
	none := []api.ServicePlacement{{App: "shop", Service: "idle", Next: "shop-idle-1"}, {
		App: "shop", Service: "web", Next: "shop-web-1", Missing: true,
		Replicas: []api.ReplicaPlacement{{Name: "shop-web-1", Slot: 1, State: "waiting", Reason: "the fleet has no hosts"}},
	}}
	for name, tc := range map[string]struct {
		o    Options
		what []api.ServicePlacement
	}{
		"why": {Options{}, few}, "why-many": {Options{}, many}, "why-many-whole": {Options{NoTrunc: true}, many[:1]},
		"why-json": {Options{Format: "json"}, few[1:]}, "why-template": {Options{Format: "{{.Service}} {{len .Hosts}}"}, few},
		"why-none": {Options{}, none},
	} {
		golden.Assert(t, render(t, tc.o, func(o Options) error { return Placement(o, tc.what) }), name+".golden")
	}
}
