package headroom

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/placement"
	"clocker.io/clocker/pkg/record"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

// rest looks at a fleet twice, a down delay apart, and returns the second
// decision.
func rest(s Snapshot) Decision {
	s.Now = noon
	_, h := Decide(s, History{})
	s.Now = noon.Add(DefaultDownDelay)
	d, _ := Decide(s, h)
	return d
}

func TestWhichEmptyHostsGo(t *testing.T) {
	p := record.HeadroomPolicy{Count: 4, RemoveEmpty: true}
	stay := func(d Decision, name string) string {
		for _, l := range d.Stay {
			if l.Name == name {
				return l.Why
			}
		}
		return ""
	}
	// 3 hosts, 2 containers on the first two: one empty host is too many.
	s := Snapshot{Hosts: fleetOf(3, 2), Policy: p}
	d := rest(s)
	assert.Equal(t, len(d.Leave), 1)
	assert.Equal(t, d.Leave[0].Name, "h03")

	for name, c := range map[string]struct {
		change func(*Snapshot)
		why    string
	}{
		"not allowed":      {func(s *Snapshot) { s.Policy.RemoveEmpty = false }, "empty hosts are not removed (headroom set --remove-empty)"},
		"suspended":        {func(s *Snapshot) { s.Policy.Suspended = true }, "the policy is suspended"},
		"minimum":          {func(s *Snapshot) { s.Policy.MinHosts = 3 }, "the fleet keeps at least 3 hosts"},
		"strangers":        {func(s *Snapshot) { s.Hosts[2].Strangers = 1 }, "1 container on it that Clocker did not make"},
		"volumes":          {func(s *Snapshot) { s.Hosts[2].Volumes = []string{"db"} }, "volumes are on it alone: db"},
		"headroom":         {func(s *Snapshot) { s.Policy.Count = 15 }, "headroom (count) would lack: 1 container (14 containers of 16 containers free, 15 containers wanted)"},
		"machines to come": {func(s *Snapshot) { s.Coming = machines(1) }, "machines are on their way"},
		"refused": {func(s *Snapshot) { s.Blocked = []placement.Request{{App: "a", Service: "s", Slot: 1, Host: "x"}} },
			"replicas wait for a host"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Snapshot{Hosts: fleetOf(3, 2), Policy: p}
			c.change(&s)
			d := rest(s)
			assert.Equal(t, len(d.Leave), 0)
			assert.Equal(t, stay(d, "h03"), c.why)
		})
	}

	s = Snapshot{Hosts: fleetOf(3, 2), Policy: p}
	s.Hosts[2].Strangers, s.Policy.EvenWithStrangers = 1, true
	assert.Equal(t, len(rest(s).Leave), 1)

	// A host that a user added has nowhere to go to.
	s = Snapshot{Hosts: fleetOf(3, 2), Policy: p}
	s.Hosts[2].Machine = ""
	assert.Equal(t, len(rest(s).Leave), 0)

	// All are empty: one stays.
	s = Snapshot{Hosts: fleetOf(3, 0), Policy: record.HeadroomPolicy{RemoveEmpty: true}}
	d = rest(s)
	assert.Equal(t, len(d.Leave), 2)
	assert.Equal(t, stay(d, "h01"), "it is the fleet's last host")
}

func TestGraceBeginsWhenTheLastContainerGoes(t *testing.T) {
	s := Snapshot{Now: noon, Hosts: fleetOf(2, 2), Policy: record.HeadroomPolicy{RemoveEmpty: true, DownDelay: time.Minute}}
	_, h := Decide(s, History{})
	s.Now, s.Hosts[1].Tasks = at(600), nil
	d, h := Decide(s, h)
	assert.Equal(t, d.Stay[0].Why, "it is empty since 12:10:00 and goes in 1m0s at the earliest")
	assert.Assert(t, d.Recheck.After(at(660)) && d.Recheck.Before(at(661)))
	s.Now = at(659.9)
	d, h = Decide(s, h)
	assert.Equal(t, len(d.Leave), 0)
	s.Now = at(660)
	d, _ = Decide(s, h)
	assert.Equal(t, len(d.Leave), 1)
}

func drawFleet(t *rapid.T) Snapshot {
	s := Snapshot{Now: noon}
	n := rapid.IntRange(1, 6).Draw(t, "hosts")
	for i := range n {
		h := Host{
			Host: placement.Host{
				ID: fmt.Sprint("h", i), Name: fmt.Sprint("h", i), Up: rapid.IntRange(0, 9).Draw(t, "up") > 0,
				Cordoned: rapid.IntRange(0, 9).Draw(t, "cordoned") == 0,
				Capacity: model.Amounts{NanoCPUs: rapid.Int64Range(1, 8).Draw(t, "cpus") * 1e9, MemoryBytes: 4 << 30},
			},
			AddedAt: noon.Add(time.Duration(i)),
		}
		if rapid.Bool().Draw(t, "provided") {
			h.Machine = h.ID
		}
		for range rapid.SampledFrom([]int{0, 0, 1, 3, 9}).Draw(t, "tasks") {
			h.Tasks = append(h.Tasks, placement.Task{App: "a", Service: "s", Reserve: model.Amounts{NanoCPUs: 3e8, MemoryBytes: 1 << 28}})
		}
		s.Hosts = append(s.Hosts, h)
	}
	for _, m := range machines(rapid.IntRange(0, 8).Draw(t, "free")) {
		m.Host.Capacity = model.Amounts{NanoCPUs: 2e9, MemoryBytes: 4 << 30}
		s.Free = append(s.Free, m)
	}
	p := &s.Policy
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		p.Count = rapid.IntRange(1, 20).Draw(t, "count")
	case 1:
		p.Percent = float64(rapid.IntRange(1, 90).Draw(t, "percent")) / 100
	}
	p.CPU = rapid.Int64Range(0, 8).Draw(t, "cpu") * 1e9
	p.Memory = rapid.Int64Range(0, 8).Draw(t, "memory") << 30
	p.MinHosts = rapid.IntRange(0, 4).Draw(t, "min")
	if rapid.Bool().Draw(t, "bounded") {
		p.MaxHosts = p.MinHosts + rapid.IntRange(1, 4).Draw(t, "max")
	}
	p.RemoveEmpty = true
	p.UpDelay, p.DownDelay = 10*time.Second, time.Minute
	return s
}

// carry does what a decision says, at once.
func carry(s Snapshot, d Decision) Snapshot {
	for _, a := range d.Ask {
		for i, m := range s.Free {
			if m.ID == a.Machine {
				s.Hosts = append(s.Hosts, Host{Host: m.Host, Machine: m.ID, For: a.For, AddedAt: s.Now})
				s.Free = append(append([]Machine(nil), s.Free[:i]...), s.Free[i+1:]...)
				break
			}
		}
	}
	for _, l := range d.Leave {
		for i, h := range s.Hosts {
			if h.ID == l.Host {
				s.Hosts = append(append([]Host(nil), s.Hosts[:i]...), s.Hosts[i+1:]...)
				break
			}
		}
	}
	return s
}

func lacking(ds []Dimension) int64 {
	var worst int64
	for _, d := range ds {
		worst = max(worst, d.Needed)
	}
	return worst
}

// On an unchanged load the number of hosts changes in one direction only and
// comes to rest; what goes leaves no lack behind; bounds and the last host are
// kept; and the same history gives the same decisions again.
func TestNeverFlapsAndNeverLacksForWhatWent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawFleet(t)
		var h History
		grew, shrank, quiet := false, false, 0
		for step := range 120 {
			s.Now = noon.Add(time.Duration(step) * 5 * time.Second)
			b, err := json.Marshal(h)
			assert.NilError(t, err)
			var replayed History
			assert.NilError(t, json.Unmarshal(b, &replayed))
			d, next := Decide(s, h)
			again, _ := Decide(s, replayed)
			assert.DeepEqual(t, d, again)
			h = next
			quiet++
			if len(d.Ask) > 0 {
				assert.Assert(t, !shrank, "grows after it has shrunk: %s", d.Reason)
				grew, quiet = true, 0
			}
			if len(d.Leave) > 0 {
				assert.Assert(t, !grew, "shrinks after it has grown: %s", d.Reason)
				shrank, quiet = true, 0
			}
			before := len(s.Hosts)
			s = carry(s, d)
			assert.Assert(t, len(s.Hosts) >= 1)
			if s.Policy.MaxHosts > 0 {
				assert.Assert(t, len(s.Hosts) <= max(before, s.Policy.MaxHosts))
			}
			if len(d.Leave) > 0 {
				assert.Assert(t, lacking(dimensions(&s, s.counted())) <= 0)
				assert.Assert(t, len(s.counted()) >= s.Policy.MinHosts)
			}
		}
		assert.Assert(t, quiet > 60, "does not come to rest")
	})
}
