package headroom

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"

	"gotest.tools/v3/assert"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

func tasks(n int) []placement.Task {
	out := make([]placement.Task, n)
	for i := range out {
		out[i] = placement.Task{ID: fmt.Sprint("t", i), App: "a", Service: "s"}
	}
	return out
}

// fleetOf makes h hosts of a provider with c containers, spread.
func fleetOf(h, c int) []Host {
	out := make([]Host, h)
	for i := range out {
		n := c / h
		if i < c%h {
			n++
		}
		name := fmt.Sprintf("h%02d", i+1)
		out[i] = Host{
			Host: placement.Host{ID: name, Name: name, Up: true, Tasks: tasks(n)}, Machine: "m-" + name,
			AddedAt: noon.Add(time.Duration(i) * time.Second),
		}
	}
	return out
}

func machines(n int) []Machine {
	out := make([]Machine, n)
	for i := range out {
		name := fmt.Sprintf("new%02d", i+1)
		out[i] = Machine{ID: name, Host: placement.Host{ID: name, Name: name, Up: true}}
	}
	return out
}

// The vectors of spec/clocker.md §11.
func TestVectorsOfCounts(t *testing.T) {
	for _, v := range []struct {
		h, c, m                   int
		count                     int
		possible, available, need int64
		utilisation, low, high    float64
		event                     string
		desired                   int
	}{
		{2, 8, 8, 4, 16, 8, -4, 0.5, 0.25, 0.75, OK, 2},
		{2, 12, 8, 4, 16, 4, 0, 0.75, 0.25, 0.75, OK, 2},
		{2, 13, 8, 4, 16, 3, 1, 0.8125, 0.25, 0.75, Hot, 3},
		{2, 28, 8, 4, 16, -12, 16, 1.75, 0.25, 0.75, Hot, 4},
		{10, 1, 8, 4, 80, 79, -75, 0.0125, 0.85, 0.95, Cold, 2},
		{1, 0, 4, 4, 4, 4, 0, 0, 0, 0, OK, 2},
		{1, 1, 4, 4, 4, 3, 1, 0.25, 0, 0, Hot, 2},
	} {
		t.Run(fmt.Sprintf("H=%d,C=%d,M=%d", v.h, v.c, v.m), func(t *testing.T) {
			s := Snapshot{Now: noon, Hosts: fleetOf(v.h, v.c), Policy: record.HeadroomPolicy{Count: v.count, MinHosts: 2, RemoveEmpty: true}}
			if v.m != DefaultContainers {
				s.Placement.MaxContainers = v.m
			}
			d, _ := Decide(s, History{})
			m := d.Dimensions[0]
			assert.Equal(t, m.Possible, v.possible)
			assert.Equal(t, m.Available, v.available)
			assert.Equal(t, m.Needed, v.need)
			assert.Equal(t, m.Utilisation, v.utilisation)
			assert.Equal(t, m.Low, v.low)
			assert.Equal(t, m.High, v.high)
			assert.Equal(t, d.Event, v.event)
			assert.Equal(t, d.Desired, v.desired)
		})
	}
}

func TestVectorOfPercent(t *testing.T) {
	s := Snapshot{Now: noon, Hosts: fleetOf(2, 9), Policy: record.HeadroomPolicy{Percent: 0.5}}
	d, _ := Decide(s, History{})
	m := d.Dimensions[0]
	assert.Equal(t, m.Headroom, int64(8))
	assert.Equal(t, m.Available, int64(7))
	assert.Equal(t, m.Needed, int64(1))
	assert.Equal(t, d.Event, Hot)
	assert.Equal(t, d.Desired, 3)
}

func TestColdOnlyWhenHostsMayGo(t *testing.T) {
	d, _ := Decide(Snapshot{Now: noon, Hosts: fleetOf(10, 1), Policy: record.HeadroomPolicy{Count: 4}}, History{})
	assert.Equal(t, d.Event, OK)
}

func TestNoHostsDivideNothingByZero(t *testing.T) {
	d, _ := Decide(Snapshot{Now: noon, Policy: record.HeadroomPolicy{Percent: 0.2, CPU: 1, Memory: 1}}, History{})
	for _, m := range d.Dimensions {
		assert.Equal(t, m.Utilisation, 0.0)
	}
	assert.Equal(t, d.Desired, 1)
}

func TestMaxContainersComeFromTheRulesOfPlacement(t *testing.T) {
	assert.Equal(t, MaxContainers(placement.Policy{}), 8)
	assert.Equal(t, MaxContainers(placement.Policy{Strategies: []model.Strategy{{Name: "spread"}, {Name: "max-containers", Containers: 3}}}), 3)
	assert.Equal(t, MaxContainers(placement.Policy{MaxContainers: 5, Strategies: []model.Strategy{{Name: "max-containers", Containers: 3}}}), 5)
}

func TestOnlyHostsThatTakeWorkCount(t *testing.T) {
	hosts := fleetOf(4, 8)
	hosts[0].Up, hosts[1].Cordoned, hosts[2].Leaving = false, true, true
	hosts[3].Strangers = 3
	d, _ := Decide(Snapshot{Now: noon, Hosts: hosts, Policy: record.HeadroomPolicy{Count: 4}}, History{})
	assert.Equal(t, d.Hosts, 1)
	assert.Equal(t, d.Dimensions[0].Possible, int64(8))
	assert.Equal(t, d.Dimensions[0].Used, int64(5))
}

func TestRoomInProcessorsAndMemory(t *testing.T) {
	hosts := fleetOf(2, 0)
	for i := range hosts {
		hosts[i].Capacity = model.Amounts{NanoCPUs: 4e9, MemoryBytes: 8 << 30}
		hosts[i].Tasks = []placement.Task{{Reserve: model.Amounts{NanoCPUs: 3e9, MemoryBytes: 1 << 30}}}
	}
	free := machines(9)
	for i := range free {
		free[i].Host.Capacity = model.Amounts{NanoCPUs: 4e9, MemoryBytes: 8 << 30}
	}
	s := Snapshot{
		Now: noon, Hosts: hosts, Free: free, Policy: record.HeadroomPolicy{CPU: 7e9, Memory: 4 << 30},
		Placement: placement.Policy{Reserve: model.Amounts{MemoryBytes: 1 << 30}},
	}
	d, _ := Decide(s, History{})
	cpu, memory := d.Dimensions[0], d.Dimensions[1]
	assert.Equal(t, cpu.Available, int64(2e9))
	assert.Equal(t, cpu.Needed, int64(5e9))
	assert.Equal(t, cpu.Desired, 4)
	assert.Equal(t, memory.Possible, int64(14<<30))
	assert.Equal(t, memory.Needed, int64(-8<<30))
	assert.Equal(t, memory.Desired, 1)
	assert.Equal(t, d.Desired, 4) // the most of all
	assert.Assert(t, strings.Contains(d.Reason, "cpu lacks 5 CPUs (2 CPUs of 8 CPUs free, 7 CPUs wanted)"), d.Reason)
}

// The stabilisation vector of §11: 30 s up, size 3; 5 is desired from 0 s, 4 at
// 25 s, 5 again from 26 s.
func TestVectorOfStabilisation(t *testing.T) {
	const up, down = 30 * time.Second, 5 * time.Minute
	var h History
	size := 3
	grew := map[int]float64{}
	for ms := 0; ms <= 60000; ms += 250 {
		sec := float64(ms) / 1000
		desired := 5
		if sec >= 25 && sec < 26 {
			desired = 4
		}
		h = h.add(Sample{at(sec), desired}, down)
		if n := h.Stabilise(at(sec), size, up, down); n != size {
			size = n
			grew[n] = sec
		}
	}
	assert.DeepEqual(t, grew, map[int]float64{4: 30, 5: 56.25})
}

func TestGrowsAfterTheDelayAndNotBefore(t *testing.T) {
	s := Snapshot{Hosts: fleetOf(2, 13), Free: machines(3), Policy: record.HeadroomPolicy{Count: 4}}
	var h History
	var d Decision
	for sec := 0; sec < 30; sec++ {
		s.Now = at(float64(sec))
		d, h = Decide(s, h)
		assert.Equal(t, len(d.Ask), 0, "at %d s", sec)
		assert.Assert(t, !d.Recheck.IsZero() && d.Recheck.Sub(at(30)) <= time.Millisecond)
	}
	s.Now = at(30)
	d, h = Decide(s, h)
	assert.DeepEqual(t, d.Ask, []Ask{{Machine: "new01", Why: "headroom (count): 1 container (3 containers of 16 containers free, 4 containers wanted)"}})
	// While it is on its way it is not asked for again.
	s.Coming, s.Free, s.Now = s.Free[:1], s.Free[1:], at(31)
	d, _ = Decide(s, h)
	assert.Equal(t, len(d.Ask), 0)
}

func TestBoundsHold(t *testing.T) {
	s := Snapshot{Now: noon, Hosts: fleetOf(2, 40), Free: machines(9), Policy: record.HeadroomPolicy{Count: 4, MaxHosts: 3, UpDelay: -1}}
	d, _ := Decide(s, History{})
	assert.Equal(t, len(d.Ask), 1)
	// One that is lost is still one of the fleet.
	s.Hosts[0].Up = false
	s.Hosts = append(s.Hosts, fleetOf(3, 0)[2])
	d, _ = Decide(s, History{})
	assert.Equal(t, len(d.Ask), 0)
	assert.Assert(t, strings.Contains(d.Reason, "no more than 3 are allowed"), d.Reason)
	// A minimum needs no delay and no headroom.
	s = Snapshot{Now: noon, Hosts: fleetOf(1, 1), Free: machines(9), Policy: record.HeadroomPolicy{MinHosts: 3}}
	d, _ = Decide(s, History{})
	assert.Equal(t, len(d.Ask), 2)
}

func TestSuspendedPolicyOnlySays(t *testing.T) {
	s := Snapshot{
		Now: noon, Hosts: fleetOf(2, 40), Free: machines(2), Policy: record.HeadroomPolicy{Count: 4, UpDelay: -1, Suspended: true},
		Blocked: []placement.Request{{App: "a", Service: "s", Slot: 1, Host: "new01"}},
	}
	d, _ := Decide(s, History{})
	assert.Equal(t, len(d.Ask)+len(d.Leave), 0)
	assert.Equal(t, d.Desired, 6)
	assert.Assert(t, strings.Contains(d.Reason, "suspended"), d.Reason)
	assert.Assert(t, strings.Contains(d.Blocked[0].Hopeless, "suspended"), d.Blocked[0].Hopeless)
}

func TestRefusedPlacementAsksAtOnce(t *testing.T) {
	pinned := placement.Request{App: "a", Service: "web", Slot: 2, Host: "new02"}
	s := Snapshot{Now: noon, Hosts: fleetOf(2, 2), Free: machines(3), Blocked: []placement.Request{pinned}}
	d, h := Decide(s, History{})
	assert.DeepEqual(t, d.Ask, []Ask{{Machine: "new02", For: "a/web", Why: "web.2 of a cannot be placed"}})
	assert.Equal(t, d.Blocked[0].Coming, "machine new02 is asked for")
	// On its way: not again.
	s.Coming, s.Free = s.Free[1:2], append(s.Free[:1:1], s.Free[2:]...)
	d, h = Decide(s, h)
	assert.Equal(t, len(d.Ask), 0)
	assert.Equal(t, d.Blocked[0].Coming, "machine new02 is on its way")
	// There: it fits.
	s.Hosts = append(s.Hosts, Host{Host: s.Coming[0].Host, Machine: "m", For: "a/web"})
	s.Coming = nil
	d, _ = Decide(s, h)
	assert.Assert(t, d.Blocked[0].Fits)
}

func TestNoHostIsAskedForThatCouldNotHelp(t *testing.T) {
	s := Snapshot{
		Now: noon, Hosts: fleetOf(1, 0), Free: machines(2),
		Blocked: []placement.Request{{App: "a", Service: "web", Slot: 1, Host: "elsewhere"}},
	}
	d, _ := Decide(s, History{})
	assert.Equal(t, len(d.Ask), 0)
	assert.Equal(t, d.Blocked[0].Hopeless, "no host is asked for, as none could take it: new01: the service is pinned to host elsewhere; new02: the service is pinned to host elsewhere")
	s.Free, s.NoFree = nil, "provider pool: 2 of 2 machines are in use"
	d, _ = Decide(s, History{})
	assert.Equal(t, d.Blocked[0].Hopeless, "no host is asked for: provider pool: 2 of 2 machines are in use")
}

func TestOneDisappointmentIsEnough(t *testing.T) {
	// The machine came, and the port is taken there too.
	port := []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}}
	hosts := fleetOf(2, 0)
	for i := range hosts {
		hosts[i].Ports = map[string]string{"tcp/80": "another program on the host"}
	}
	hosts[1].For = "a/web"
	s := Snapshot{Now: noon, Hosts: hosts, Free: machines(5), Blocked: []placement.Request{{App: "a", Service: "web", Slot: 1, Ports: port}}}
	d, _ := Decide(s, History{})
	assert.Equal(t, len(d.Ask), 0)
	assert.Assert(t, strings.Contains(d.Blocked[0].Hopeless, "host h02 came for it and cannot take it: port tcp/80 is taken"), d.Blocked[0].Hopeless)
}

func TestAsManyHostsAsRefusedPlacementsNeed(t *testing.T) {
	port := []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}}
	hosts := fleetOf(1, 0)
	hosts[0].Ports = map[string]string{"tcp/80": "other/web"}
	var rs []placement.Request
	for i := range 3 {
		rs = append(rs, placement.Request{App: "a", Service: "web", Slot: i + 1, Ports: port})
	}
	d, _ := Decide(Snapshot{Now: noon, Hosts: hosts, Free: machines(5), Blocked: rs}, History{})
	assert.Equal(t, len(d.Ask), 3)
}

func TestRoomForReplicasOfAService(t *testing.T) {
	port := []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}}
	r := placement.Request{App: "a", Service: "web", Ports: port}
	hosts := fleetOf(3, 0)
	hosts[0].Ports = map[string]string{"tcp/80": "a/web"}
	s := Snapshot{Now: noon, Hosts: hosts, Free: machines(5), Policy: record.HeadroomPolicy{UpDelay: -1}, Wants: []Want{{App: "a", Service: "web", N: 4, Request: &r}}}
	d, _ := Decide(s, History{})
	assert.Equal(t, d.Dimensions[0].Available, int64(2))
	assert.Equal(t, d.Dimensions[0].Needed, int64(2))
	assert.Equal(t, len(d.Ask), 2)
	// Nothing to be had would do.
	pin := placement.Request{App: "a", Service: "web", Host: "h01"}
	hosts[0].Up = false
	s.Wants[0].Request = &pin
	d, _ = Decide(s, History{})
	assert.Equal(t, len(d.Ask), 0)
	assert.Assert(t, strings.Contains(d.Reason, "no machine that a provider could give has room for a/web"), d.Reason)
}

// A decision about a large fleet, with room for replicas of a service.
func BenchmarkDecide1000Hosts30000Containers(b *testing.B) {
	s := Snapshot{
		Now: noon, Hosts: fleetOf(1000, 30000), Free: machines(20), Placement: placement.Policy{MaxContainers: 40},
		Policy: record.HeadroomPolicy{Count: 100, CPU: 1e9, RemoveEmpty: true},
		Wants:  []Want{{App: "a", Service: "s", N: 10, Request: &placement.Request{App: "a", Service: "s"}}},
	}
	for i := range s.Hosts {
		for j := range s.Hosts[i].Tasks {
			s.Hosts[i].Tasks[j].ID = fmt.Sprintf("%d-%d", i, j)
		}
	}
	for b.Loop() {
		Decide(s, History{})
	}
}
