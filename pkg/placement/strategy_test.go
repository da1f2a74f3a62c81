package placement

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

// where places n replicas of one service and says on which hosts they are.
func where(f *Fleet, r Request, n int) string {
	var out []string
	for _, d := range f.Place(slices.Repeat([]Request{r}, n)) {
		name := "-"
		if i, ok := f.byID[d.Host]; ok {
			name = f.machines[i].Name
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func with(chain ...model.Strategy) Policy { return Policy{Strategies: chain} }

func TestSorters(t *testing.T) {
	three := func() []Host {
		hs := hosts(3)
		for i := range hs {
			hs[i].Capacity = model.Amounts{NanoCPUs: 4e9, MemoryBytes: 8 * gib}
			hs[i].Usage = []float64{0.5, -1, 0.2}[i]
			hs[i].Strangers = []int{3, 2, 0}[i]
		}
		return hs
	}
	r := Request{App: "a", Service: "web"}
	r.Resources.Reserve = model.Amounts{MemoryBytes: gib}
	named := func(n string) model.Strategy { return model.Strategy{Name: n} }
	upTo := model.Strategy{Name: strategy.MaxContainers, Containers: 4}
	for _, c := range []struct {
		what string
		p    Policy
		want string
	}{
		{"without a chain, the fewest of the service, then of all", Policy{}, "h3 h2 h1 h3"},
		{"depth-first fills the first host", with(named(strategy.DepthFirst)), "h1 h1 h1 h1"},
		{"depth-first until a filter refuses it", with(named(strategy.DepthFirst), upTo), "h1 h2 h2 h3"},
		{"breadth-first begins with the second", with(named(strategy.BreadthFirst)), "h2 h3 h1 h2"},
		{"least-containers", with(named(strategy.LeastContainers)), "h3 h3 h2 h3"},
		{"lowest-cpu: not known counts first", with(named(strategy.LowestCPU)), "h2 h2 h2 h2"},
		{"the last sorter decides", with(named(strategy.DepthFirst), named(strategy.LowestCPU)), "h2 h2 h2 h2"},
		{"one before it parts what it leaves equal", with(named(strategy.LowestCPU), named(strategy.Spread)), "h2 h3 h1 h2"},
		{"spread by what is reserved", with(named(strategy.Spread)), "h3 h2 h1 h3"},
		{"binpack fills the fullest", with(named(strategy.Binpack)), "h1 h1 h1 h1"},
	} {
		assert.Equal(t, where(NewFleet(c.p, three()), r, 4), c.want, c.what)
	}
	// The service's own chain comes after the fleet's.
	r.Placement.Strategies = []model.Strategy{named(strategy.DepthFirst)}
	assert.Equal(t, where(NewFleet(with(named(strategy.LeastContainers)), three()), r, 2), "h1 h1")
}

func TestBreadthFirstCountsInTheFleet(t *testing.T) {
	f := NewFleet(with(model.Strategy{Name: strategy.BreadthFirst}), hosts(3))
	assert.Equal(t, where(f, Request{App: "a", Service: "x"}, 1), "h2")
	assert.Equal(t, where(f, Request{App: "b", Service: "y"}, 2), "h3 h1")
	// A service's own chain has a turn of its own.
	own := Request{App: "c", Service: "z"}
	own.Placement.Strategies = []model.Strategy{{Name: strategy.BreadthFirst}}
	assert.Equal(t, where(f, own, 1), "h2")
	assert.Equal(t, where(f, Request{App: "a", Service: "x"}, 1), "h2")
}

func TestFilters(t *testing.T) {
	hs := hosts(3)
	for i := range hs {
		hs[i].Labels = map[string]string{"tier": []string{"web", "db", "web"}[i]}
		hs[i].EngineLabels = map[string]string{"disk": []string{"ssd", "hdd", "hdd"}[i], "tier": "engine"}
		hs[i].Usage = []float64{0.4, 0.5, -1}[i]
		hs[i].Hostname = fmt.Sprintf("node-%d", i+1)
	}
	for _, c := range []struct {
		s    model.Strategy
		want string
	}{
		{model.Strategy{Name: strategy.Hostname, Hostname: "h[12]"}, "h1 h2"},
		{model.Strategy{Name: strategy.Hostname, Hostname: "h"}, ""},
		{model.Strategy{Name: strategy.Hostname, Hostname: "node-3|h1"}, "h1 h3"},
		{model.Strategy{Name: strategy.Label, Labels: []string{"tier=web", "disk"}}, "h1 h3"},
		{model.Strategy{Name: strategy.Label, Labels: []string{"tier=web", "disk=hdd"}}, "h3"},
		{model.Strategy{Name: strategy.Label}, "h1 h2 h3"},
		{model.Strategy{Name: strategy.MaxCPU, CPU: 0.5}, "h1"},
		{model.Strategy{Name: strategy.MaxCPU}, "h1"},
		{model.Strategy{Name: strategy.MaxCPU, CPU: 0.6}, "h1 h2"},
		{model.Strategy{Name: "made-up"}, ""},
	} {
		var got []string
		for _, v := range NewFleet(with(c.s), hs).Explain(Request{App: "a", Service: "x"}) {
			if v.Rank > 0 {
				got = append(got, v.Host)
			} else {
				assert.Assert(t, v.Reason != "")
			}
		}
		assert.Equal(t, strings.Join(got, " "), c.want, "%+v", c.s)
	}
	assert.Equal(t, where(NewFleet(with(model.Strategy{Name: strategy.MaxPerHost, Containers: 1}), hs), Request{App: "a", Service: "x"}, 4), "h1 h2 h3 -")
}

// A soft filter refuses nobody: hosts that do not meet it come last.
func TestSoftFiltersAreWishes(t *testing.T) {
	hs := hosts(3)
	hs[1].Labels = map[string]string{"disk": "ssd"}
	hs[2].Labels = map[string]string{"disk": "ssd"}
	p := with(model.Strategy{Name: strategy.Label, Labels: []string{"disk=ssd"}, Soft: true},
		model.Strategy{Name: strategy.Affinity, Rules: []string{"NOT ID"}, Soft: true})
	f := NewFleet(p, hs)
	r := Request{App: "a", Service: "web"}
	assert.Equal(t, where(f, r, 5), "h2 h3 h1 h2 h3")
	vs := f.Explain(r)
	assert.Equal(t, vs[0].Score[0].Name, "wishes")
	assert.Equal(t, vs[2].Host, "h1")
	assert.Assert(t, strings.Contains(vs[2].Score[0].Text, "2 of 2 wishes not met (it has no label disk; rule NOT ID: a/web is on it)"), vs[2].Score[0].Text)
}

func TestSpreadOverZones(t *testing.T) {
	hs := hosts(6)
	for i := range hs {
		hs[i].Labels = map[string]string{"zone": []string{"a", "a", "a", "a", "b", "c"}[i], "rack": []string{"1", "1", "2", "2", "1", "1"}[i]}
	}
	r := Request{App: "a", Service: "web"}
	r.Placement.Spread = []string{"node.labels.zone", "node.labels.rack"}
	assert.Equal(t, where(NewFleet(Policy{}, hs), r, 9), "h1 h5 h6 h3 h5 h6 h2 h5 h6")
	zone := Request{App: "a", Service: "web"}
	zone.Placement.Strategies = []model.Strategy{{Name: strategy.ZoneSpread, Labels: []string{"zone"}}}
	assert.Equal(t, where(NewFleet(Policy{}, hs), zone, 6), "h1 h5 h6 h2 h5 h6")
	// Under another sorter it parts what that one leaves equal.
	zone.Placement.Strategies = append(zone.Placement.Strategies, model.Strategy{Name: strategy.LeastContainers})
	assert.Equal(t, where(NewFleet(Policy{}, hs), zone, 6), "h1 h5 h6 h2 h3 h4")
	// Replicas on hosts that take no more count in their zone too.
	hs[4].Cordoned, hs[4].Tasks = true, []Task{{App: "a", Service: "web"}}
	vs := NewFleet(Policy{}, append(hs, Host{ID: "7", Name: "h7", Up: true, Labels: map[string]string{"zone": "b"}})).Explain(r)
	assert.Equal(t, vs[0].Host+vs[5].Host, "h1h7")
}

func TestCheckStrategy(t *testing.T) {
	for _, c := range []struct {
		s    model.Strategy
		want string
	}{
		{model.Strategy{Name: "bredth-first"}, `did you mean "breadth-first"?`},
		{model.Strategy{Name: "BreadthFirstPlacementStrategy"}, "its short name is breadth-first"},
		{model.Strategy{Name: strategy.Hostname}, "lacks a regular expression"},
		{model.Strategy{Name: strategy.Hostname, Hostname: "("}, "is no regular expression"},
		{model.Strategy{Name: strategy.Hostname, Hostname: "a)(b"}, "is no regular expression"},
		{model.Strategy{Name: strategy.MaxPerHost}, "bounds containers by 0"},
		{model.Strategy{Name: strategy.MaxContainers, Containers: -1}, "bounds containers by -1"},
		{model.Strategy{Name: strategy.MaxCPU, CPU: 1.5}, "bounds CPU usage by 1.5"},
		{model.Strategy{Name: strategy.MaxCPU, CPU: math.NaN()}, "bounds CPU usage by NaN"},
		{model.Strategy{Name: strategy.ProvisioningFlags, Cores: -1}, "asks for -1 cores"},
		{model.Strategy{Name: strategy.Group, Timeout: -1}, "has a timeout"},
		{model.Strategy{Name: strategy.Random, Soft: true}, "it only orders hosts"},
		{model.Strategy{Name: strategy.ZoneSpread, Labels: []string{"a", "b"}}, "not 2"},
		{model.Strategy{Name: strategy.Label, Labels: []string{"=x"}}, "is no label"},
		{model.Strategy{Name: strategy.Affinity}, "lacks rules"},
	} {
		assert.ErrorContains(t, CheckStrategy(c.s), c.want, "%+v", c.s)
	}
	for _, n := range StrategyNames() {
		s := model.Strategy{Name: n, Hostname: ".*", Containers: 1, Rules: []string{"NOT TYPE"}}
		assert.NilError(t, CheckStrategy(s), n)
	}
	n, ok := StrategyName("brooklyn.location.docker.strategy.RandomPlacementStrategy")
	assert.Assert(t, ok && n == strategy.Random)
}
