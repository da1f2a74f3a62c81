package rebalance

import (
	"fmt"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
)

// fleetOf is hosts h1 to hn, and replicas of services, each on the host with the
// given number.
func fleetOf(n int, on map[string][]int) (*placement.Fleet, []Replica) {
	hosts := make([]placement.Host, n)
	for i := range hosts {
		id := fmt.Sprintf("h%d", i+1)
		hosts[i] = placement.Host{ID: id, Name: id, Up: true, Capacity: model.Amounts{NanoCPUs: 8e9, MemoryBytes: 8 << 30}}
	}
	f := placement.NewFleet(placement.Policy{}, hosts)
	var all []Replica
	for service, places := range on {
		for i, h := range places {
			t := placement.Task{ID: fmt.Sprintf("%s-%d", service, i+1), App: "app", Service: service}
			r := Replica{Task: t, Host: fmt.Sprintf("h%d", h), Request: placement.Request{App: "app", Service: service, Slot: i + 1}}
			f.PutTask(r.Host, t, nil)
			all = append(all, r)
		}
	}
	return f, all
}

func after(all []Replica, moves []Move) []Replica {
	out := make([]Replica, len(all))
	copy(out, all)
	for _, m := range moves {
		for i := range out {
			if out[i].Task.ID == m.Task {
				out[i].Host = m.To
			}
		}
	}
	return out
}

func TestANewHostGetsItsShare(t *testing.T) {
	f, all := fleetOf(3, map[string][]int{"web": {1, 1, 1, 2, 2, 2}})
	moves := Plan(f, all, 0)
	assert.Equal(t, len(moves), 2, "%v", moves)
	for _, m := range moves {
		assert.Equal(t, m.To, "h3")
		assert.Assert(t, m.Gain != "")
	}
}

func TestAtMostSoMany(t *testing.T) {
	f, all := fleetOf(3, map[string][]int{"web": {1, 1, 1, 1, 1, 1}})
	assert.Equal(t, len(Plan(f, all, 1)), 1)
}

func TestFiltersHold(t *testing.T) {
	f, all := fleetOf(2, map[string][]int{"web": {1, 1, 1, 1}})
	for i := range all {
		all[i].Request.Placement.Constraints = []string{"node.labels.disk == ssd"}
	}
	assert.Equal(t, len(Plan(f, all, 0)), 0)
}

// Whatever the fleet, the plan ends, a second run finds nothing, no replica
// moves twice, and no service is less even than before.
func TestItConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "hosts")
		on := map[string][]int{}
		for s := range rapid.IntRange(1, 4).Draw(t, "services") {
			on[fmt.Sprintf("s%d", s)] = rapid.SliceOfN(rapid.IntRange(1, n), 0, 8).Draw(t, "places")
		}
		f, all := fleetOf(n, on)
		spread := func(rs []Replica) map[string]int {
			sum := map[string]int{}
			c := map[string]int{}
			for _, r := range rs {
				c[r.Task.Service+" "+r.Host]++
			}
			for _, r := range rs {
				sum[r.Task.Service] += c[r.Task.Service+" "+r.Host]
			}
			return sum
		}
		before := spread(all)
		moves := Plan(f, all, 0)
		seen := map[string]bool{}
		for _, m := range moves {
			if seen[m.Task] {
				t.Fatalf("%s moves twice", m.Task)
			}
			seen[m.Task] = true
			if m.From == m.To {
				t.Fatalf("%v goes nowhere", m)
			}
		}
		done := after(all, moves)
		for s, x := range spread(done) {
			if x > before[s] {
				t.Fatalf("%s was %d and is %d", s, before[s], x)
			}
		}
		if again := Plan(f, done, 0); len(again) > 0 {
			t.Fatalf("a second run moves %v after %v", again, moves)
		}
	})
}
