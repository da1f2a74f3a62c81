package rebalance

import (
	"fmt"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
)

// reserving makes the replicas of a service reserve, in the fleet too.
func reserving(f *placement.Fleet, all []Replica, service string, need model.Amounts) {
	for i := range all {
		if r := &all[i]; r.Task.Service == service {
			r.Task.Reserve, r.Request.Resources.Reserve = need, need
			f.PutTask(r.Host, r.Task, nil)
		}
	}
}

// Two hosts with as many replicas each are not even when those of one reserve
// all that is reserved.
func TestReservedSharesAreEvenedOut(t *testing.T) {
	f, all := fleetOf(2, map[string][]int{"a": {1}, "b": {1}, "c": {2}, "d": {2}})
	reserving(f, all, "a", model.Amounts{NanoCPUs: 3e9})
	reserving(f, all, "b", model.Amounts{NanoCPUs: 3e9})
	moves := Plan(f, all, 0)
	assert.Equal(t, len(moves), 2, "%v", moves)
	assert.Equal(t, moves[0], Move{Task: "a-1", From: "h1", To: "h2", Gain: "75% and 0% of the hosts' CPU reserved become 38% and 38%"})
	assert.Equal(t, moves[1].From, "h2", "and one that reserves nothing makes room in number")
	// What stays where it is counts too.
	f, all = fleetOf(2, map[string][]int{"a": {1}, "b": {1}, "c": {2}})
	reserving(f, all, "a", model.Amounts{MemoryBytes: 4 << 30})
	reserving(f, all, "c", model.Amounts{MemoryBytes: 4 << 30})
	assert.Equal(t, len(Plan(f, all[:1], 0)), 0)
	// A bound holds: there is no room for it elsewhere.
	f, all = fleetOf(2, map[string][]int{"a": {1}, "b": {1}, "c": {2}})
	reserving(f, all, "a", model.Amounts{NanoCPUs: 1e9})
	for i := range all {
		all[i].Request.Placement.Constraints = []string{"node.hostname == h1"}
	}
	assert.Equal(t, len(Plan(f, all, 0)), 0)
}

// sums are the three that moves make smaller, the first one first.
func sums(f *placement.Fleet, all []Replica) [3]float64 {
	var out [3]float64
	for _, host := range f.HostIDs() {
		services := map[string]bool{}
		for _, r := range all {
			services[r.Task.Service] = true
		}
		for s := range services {
			n := float64(f.ReplicasOf("app", s, host))
			out[0] += n * n
		}
		st := f.Standing(host)
		cpu, memory := float64(st.Used.NanoCPUs)/float64(st.Capacity.NanoCPUs), float64(st.Used.MemoryBytes)/float64(st.Capacity.MemoryBytes)
		// All hosts of these fleets are alike.
		out[1] += cpu*cpu + memory*memory
		out[2] += float64(st.Replicas * st.Replicas)
	}
	return out
}

// Whatever is reserved, the plan ends, no host is overbooked, and of the three
// sums the first that changes has fallen; a second plan finds nothing.
func TestItConvergesWithReservations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "hosts")
		on := map[string][]int{}
		services := rapid.IntRange(1, 5).Draw(t, "services")
		for s := range services {
			on[fmt.Sprintf("s%d", s)] = rapid.SliceOfN(rapid.IntRange(1, n), 0, 6).Draw(t, "places")
		}
		f, all := fleetOf(n, on)
		for s := range services {
			reserving(f, all, fmt.Sprintf("s%d", s), model.Amounts{
				NanoCPUs: int64(rapid.IntRange(0, 3).Draw(t, "cpu")) * 1e8, MemoryBytes: int64(rapid.IntRange(0, 3).Draw(t, "memory")) << 27,
			})
		}
		for round := 0; ; round++ {
			before := sums(f, all)
			moves := Plan(f, all, 0)
			all = after(all, moves)
			now := sums(f, all)
			if len(moves) == 0 {
				return
			}
			if round == 1 {
				t.Fatalf("a second plan moves %v", moves)
			}
			for i := range now {
				if now[i] < before[i]-1e-9 {
					break
				}
				if now[i] > before[i]+1e-9 || i == 2 {
					t.Fatalf("%v became %v by %v", before, now, moves)
				}
			}
		}
	})
}

// Each move has room when it is its turn, also where hosts are so full that
// moves must make room for each other.
func TestEachMoveHasRoomInItsTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(t, "hosts")
		f, _ := fleetOf(n, nil)
		used := map[string]int64{}
		var all []Replica
		for s := range rapid.IntRange(1, 6).Draw(t, "services") {
			need := model.Amounts{NanoCPUs: int64(rapid.IntRange(1, 5).Draw(t, "cpu")) * 1e9}
			for i, at := range rapid.SliceOfN(rapid.IntRange(1, n), 0, 6).Draw(t, "places") {
				host, service := fmt.Sprintf("h%d", at), fmt.Sprintf("s%d", s)
				if used[host]+need.NanoCPUs > 8e9 {
					continue
				}
				used[host] += need.NanoCPUs
				r := Replica{
					Task: placement.Task{ID: fmt.Sprintf("%s-%d", service, i+1), App: "app", Service: service, Reserve: need}, Host: host,
					Request: placement.Request{App: "app", Service: service, Slot: i + 1},
				}
				r.Request.Resources.Reserve = need
				f.PutTask(r.Host, r.Task, nil)
				all = append(all, r)
			}
		}
		need := map[string]Replica{}
		for _, r := range all {
			need[r.Task.ID] = r
		}
		for _, m := range Plan(f, all, 0) {
			r := need[m.Task]
			assert.Equal(t, m.From, r.Host)
			used[m.From] -= r.Task.Reserve.NanoCPUs
			used[m.To] += r.Task.Reserve.NanoCPUs
			if used[m.To] > 8e9 {
				t.Fatalf("no room for %v", m)
			}
			delete(need, m.Task)
		}
	})
}

// benchFleet has replicas of 300 services on all hosts but the last tenth, which
// is new; half of them may only be on hosts with an SSD, and half reserve.
func benchFleet(hosts, replicas int) (*placement.Fleet, []Replica) {
	var all []Replica
	var hs []placement.Host
	for i := range hosts {
		hs = append(hs, placement.Host{
			ID: fmt.Sprint("id", i), Name: fmt.Sprintf("host%05d", i), Up: true, Labels: map[string]string{"disk": []string{"ssd", "hdd"}[i%2]},
			Capacity: model.Amounts{NanoCPUs: 64e9, MemoryBytes: 256 << 30},
		})
	}
	f := placement.NewFleet(placement.Policy{}, hs)
	old := hosts * 9 / 10
	for i := range replicas {
		service := i % 300
		r := Replica{Task: placement.Task{ID: fmt.Sprintf("%012x", i), App: fmt.Sprint("app", service/10), Service: fmt.Sprint("s", service)}}
		at := (i*7 + i/old) % old
		if service%2 == 0 {
			r.Request.Placement.Constraints = []string{"node.labels.disk == ssd"}
			at = at / 2 * 2
		}
		if service%3 == 0 {
			r.Task.Reserve = model.Amounts{NanoCPUs: int64(1+service%5) * 1e8, MemoryBytes: 1 << 30}
		}
		r.Host = fmt.Sprint("id", at)
		r.Request.App, r.Request.Service, r.Request.Slot, r.Request.Resources.Reserve = r.Task.App, r.Task.Service, i/300+1, r.Task.Reserve
		f.PutTask(r.Host, r.Task, nil)
		all = append(all, r)
	}
	return f, all
}

func BenchmarkPlan(b *testing.B) {
	moves := 0
	for b.Loop() {
		b.StopTimer()
		f, all := benchFleet(1000, 30000)
		b.StartTimer()
		moves = len(Plan(f, all, 0))
	}
	b.ReportMetric(float64(moves), "moves")
}
