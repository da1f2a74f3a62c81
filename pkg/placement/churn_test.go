package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

const gib = 1 << 30

// anyHost draws a host of a small fleet whose hosts differ in all that counts.
func anyHost(t *rapid.T, i int) Host {
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	h := Host{
		ID: fmt.Sprint("id", i), Name: fmt.Sprint("h", i), Hostname: fmt.Sprintf("m%d.example", i),
		Up: rapid.IntRange(0, 7).Draw(t, "up") > 0, Cordoned: rapid.IntRange(0, 7).Draw(t, "cordoned") == 0,
		Platform: pick("platform", "linux/amd64", "linux/amd64", "linux/arm64"),
		Labels:   map[string]string{"zone": pick("zone", "a", "b", "c")}, Ports: map[string]string{},
		Capacity: model.Amounts{
			NanoCPUs: int64(rapid.IntRange(0, 4).Draw(t, "cpus")) * 1e9, MemoryBytes: int64(rapid.IntRange(0, 8).Draw(t, "memory")) * gib, PIDs: 100,
		},
		Usage: float64(rapid.IntRange(-1, 10).Draw(t, "usage")) / 10, Strangers: rapid.IntRange(0, 2).Draw(t, "strangers"),
		Devices: map[string]int64{"gpu": 2, "nvidia/gpu": 2}, Generic: map[string]int64{"licence": 3},
	}
	if rapid.Bool().Draw(t, "disk") {
		h.EngineLabels = map[string]string{"disk": "ssd"}
	}
	if rapid.IntRange(0, 3).Draw(t, "listens") == 0 {
		h.Ports["tcp/80"] = "another program on the host"
	}
	if rapid.IntRange(0, 5).Draw(t, "volume") == 0 {
		h.Volumes = []string{"data"}
	}
	if rapid.IntRange(0, 7).Draw(t, "rules") == 0 {
		h.Affinity = []string{"NOT NAME s3"}
	}
	return h
}

func anyChain(t *rapid.T, random bool) []model.Strategy {
	names := strategy.Names()
	if !random {
		names = slices.DeleteFunc(names, func(n string) bool { return n == strategy.Random })
	}
	var out []model.Strategy
	for range rapid.IntRange(0, 3).Draw(t, "chain") {
		s := model.Strategy{Name: rapid.SampledFrom(names).Draw(t, "strategy")}
		s.Soft = !sorts(s.Name) && rapid.Bool().Draw(t, "soft")
		switch s.Name {
		case strategy.MaxPerHost, strategy.MaxContainers:
			s.Containers = rapid.IntRange(1, 6).Draw(t, "bound")
		case strategy.Hostname:
			s.Hostname = "h[0-4]"
		case strategy.Label:
			s.Labels = []string{rapid.SampledFrom([]string{"disk", "zone=a", "disk=ssd"}).Draw(t, "label")}
		case strategy.Affinity:
			s.Rules = []string{rapid.SampledFrom([]string{"NOT TYPE", "APPLICATION", "NOT EMPTY", "NOT ID s1", "NAME s"}).Draw(t, "rule")}
		case strategy.ProvisioningFlags:
			s.MemoryBytes = gib
		case strategy.Group:
			s.Exclusive = rapid.Bool().Draw(t, "exclusive")
		}
		out = append(out, s)
	}
	return out
}

func anyRequest(t *rapid.T, hosts int, random bool) Request {
	n := rapid.IntRange(1, 4).Draw(t, "service")
	r := Request{
		App: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "app"), Service: fmt.Sprint("s", n), Parent: fmt.Sprint("p", n%2),
		Type: rapid.SampledFrom([]string{"", "org.example.Solr"}).Draw(t, "type"),
	}
	r.Placement.Strategies = anyChain(t, random)
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		r.Ports = append(r.Ports, model.Port{HostPort: rapid.SampledFrom([]uint16{0, 80, 81, 30000}).Draw(t, "port"), ContainerPort: 80, Protocol: "tcp"})
	}
	switch rapid.IntRange(0, 9).Draw(t, "what") {
	case 0:
		r.Placement.Constraints = []string{"node.labels.zone != a"}
	case 1:
		r.Placement.Constraints = []string{"engine.labels.disk == ssd"}
	case 2:
		r.Placement.Spread = []string{"node.labels.zone"}
	case 3:
		r.Placement.MaxPerHost = 1
	case 4:
		r.Placement.Platform = "linux/arm64"
	case 5:
		r.Volumes = []string{"data"}
	case 6:
		r.Avoid = []string{"id1"}
	case 7:
		r.Resources.Devices = []model.DeviceRequest{{Driver: rapid.SampledFrom([]string{"", "nvidia"}).Draw(t, "driver"), Count: rapid.IntRange(-1, 2).Draw(t, "gpus")}}
	case 8:
		r.Resources.Generic = []model.GenericResource{{Kind: "licence", Value: 2}}
	}
	r.Resources.Reserve = model.Amounts{
		NanoCPUs: int64(rapid.IntRange(0, 2).Draw(t, "cpu")) * 5e8, MemoryBytes: int64(rapid.IntRange(0, 2).Draw(t, "mem")) * gib, PIDs: int64(rapid.IntRange(0, 1).Draw(t, "pids")) * 30,
	}
	if rapid.IntRange(0, 3).Draw(t, "prefers") == 0 {
		r.Prefer = fmt.Sprint("id", rapid.IntRange(1, hosts).Draw(t, "prefer"))
	}
	return r
}

// world is what a fleet was told, kept the plain way.
type world struct {
	hosts map[string]Host
	tasks map[string]placed
}

type placed struct {
	task  Task
	host  string
	ports []string
}

// anew builds a fleet from nothing.
func (w *world) anew(p Policy, turn map[string]uint64) *Fleet {
	f := NewFleet(p, nil)
	for _, id := range slices.Sorted(maps.Keys(w.hosts)) {
		f.PutHost(w.hosts[id])
	}
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		f.PutTask(w.tasks[id].host, w.tasks[id].task, w.tasks[id].ports)
	}
	f.turn = maps.Clone(turn)
	return f
}

// holds fails when a host is overbooked.
func (w *world) holds(t *rapid.T, p Policy) {
	for id, h := range w.hosts {
		var sum model.Amounts
		ports, gpus, licences := map[string]string{}, int64(0), int64(0)
		for task, at := range w.tasks {
			if at.host != id {
				continue
			}
			sum.NanoCPUs += at.task.Reserve.NanoCPUs
			sum.MemoryBytes += at.task.Reserve.MemoryBytes
			sum.PIDs += at.task.Reserve.PIDs
			gpus += at.task.Devices["gpu"] + at.task.Devices["nvidia/gpu"]
			licences += at.task.Generic["licence"]
			for _, key := range at.ports {
				assert.Equal(t, ports[key], "", "port %s of %s is had twice, by %s too", key, id, task)
				assert.Equal(t, h.Ports[key], "", "port %s of %s is had by %s too", key, id, task)
				ports[key] = task
			}
		}
		assert.Assert(t, sum.NanoCPUs <= max(0, h.Capacity.NanoCPUs-p.Reserve.NanoCPUs), "%s: %v", id, sum)
		assert.Assert(t, sum.MemoryBytes <= max(0, h.Capacity.MemoryBytes-p.Reserve.MemoryBytes), "%s: %v", id, sum)
		assert.Assert(t, sum.PIDs <= h.Capacity.PIDs, "%s: %v", id, sum)
		assert.Assert(t, gpus <= h.Devices["gpu"] && licences <= h.Generic["licence"], "%s: %d gpus, %d licences", id, gpus, licences)
	}
}

// take notes what a decision reserved.
func (w *world) take(t *rapid.T, p Policy, d Decision) {
	r := d.Request
	if d.Host == "" {
		assert.Assert(t, len(d.Refusals) == len(w.hosts), "%v", d.Refusals)
		for _, x := range d.Refusals {
			assert.Assert(t, x.Filter != "" && x.Reason != "" && x.Host != "", "%+v", x)
		}
		assert.Assert(t, d.Err() != nil)
		return
	}
	h := w.hosts[d.Host]
	assert.Assert(t, h.Up && !h.Cordoned && d.Reason != "")
	assert.Assert(t, !slices.Contains(r.Avoid, d.Host))
	dev, gen := Taken(h, r.Resources)
	at := placed{host: d.Host, task: Task{
		ID: d.Task, App: r.App, Service: r.Service, Parent: r.Parent, Type: r.Type, Title: r.Title,
		Reserve: Reservation(p, r.Placement, r.Resources), Devices: dev, Generic: gen,
	}}
	for _, q := range d.Ports {
		assert.Assert(t, q.HostPort != 0)
		at.ports = append(at.ports, PortKey(q))
	}
	w.tasks[d.Task] = at
}

// Whatever comes and goes: no host is ever overbooked, a fleet that is told of
// changes decides as one that is built anew, each request goes where Explain
// says, and Room is what then fits.
func TestFleetUnderChurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{Strategies: anyChain(t, false)}
		if rapid.Bool().Draw(t, "kept") {
			p.Reserve = model.Amounts{NanoCPUs: 5e8, MemoryBytes: gib}
		}
		if rapid.IntRange(0, 3).Draw(t, "bounded") == 0 {
			p.MaxContainers = 5
		}
		if rapid.IntRange(0, 3).Draw(t, "rules") == 0 {
			p.Affinity = []string{"NOT ID b/s2"}
		}
		n := rapid.IntRange(1, 9).Draw(t, "hosts")
		w := &world{hosts: map[string]Host{}, tasks: map[string]placed{}}
		f := NewFleet(p, nil)
		put := func(i int) {
			h := anyHost(t, i)
			if old, known := w.hosts[h.ID]; known { // a host does not shrink under its tasks
				h.Capacity, h.Ports = old.Capacity, old.Ports
				f.UpdateHost(h)
			} else {
				f.PutHost(h)
			}
			w.hosts[h.ID] = h
		}
		for i := range n {
			put(i + 1)
		}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				put(rapid.IntRange(1, n).Draw(t, "host"))
			case 1:
				id := fmt.Sprint("id", rapid.IntRange(1, n).Draw(t, "host"))
				f.RemoveHost(id)
				delete(w.hosts, id)
				maps.DeleteFunc(w.tasks, func(_ string, at placed) bool { return at.host == id })
			case 2:
				for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
					if rapid.Bool().Draw(t, "goes") {
						f.RemoveTask(id)
						delete(w.tasks, id)
					}
				}
			default:
				var rs []Request
				for range rapid.IntRange(1, 3).Draw(t, "services") {
					r := anyRequest(t, n, false)
					for i := range rapid.IntRange(1, 4).Draw(t, "replicas") {
						r.Slot = i + 1
						rs = append(rs, r)
					}
				}
				fresh := w.anew(p, f.turn)
				for i := range rs {
					want := f.Explain(rs[i])
					assert.DeepEqual(t, want, fresh.Explain(rs[i]))
					room := f.Room(rs[i])
					d := f.Place(rs[i : i+1])[0]
					b := fresh.Place(rs[i : i+1])[0]
					assert.Equal(t, d.Host, b.Host)
					assert.DeepEqual(t, d.Ports, b.Ports)
					assert.Assert(t, (room > 0) == (d.Host != ""), "room %d, host %q", room, d.Host)
					if d.Host != "" {
						assert.Equal(t, w.hosts[d.Host].Name, want[0].Host)
					}
					w.take(t, p, d)
					w.holds(t, p)
				}
			}
		}
	})
}

// Requests of one call go where they would go one by one: what is worked out
// once for a call is kept in step with what the call reserves.
func TestOneCallIsManyCalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{Strategies: anyChain(t, false)}
		n := rapid.IntRange(1, 9).Draw(t, "hosts")
		var hs []Host
		for i := range n {
			hs = append(hs, anyHost(t, i+1))
		}
		var of []Request
		for range rapid.IntRange(1, 4).Draw(t, "services") {
			of = append(of, anyRequest(t, n, false))
		}
		var rs []Request
		for range rapid.IntRange(1, 25).Draw(t, "requests") {
			rs = append(rs, rapid.SampledFrom(of).Draw(t, "request"))
		}
		one, many := NewFleet(p, hs), NewFleet(p, hs)
		w := &world{hosts: map[string]Host{}, tasks: map[string]placed{}}
		for _, h := range hs {
			w.hosts[h.ID] = h
		}
		for i, d := range one.Place(rs) {
			e := many.Place(rs[i : i+1])[0]
			assert.Equal(t, d.Host, e.Host)
			assert.Equal(t, d.Reason, e.Reason)
			assert.DeepEqual(t, d.Refusals, e.Refusals)
			w.take(t, p, d)
		}
		w.holds(t, p)
	})
}

// Room is how many fit when they are placed one after the other.
func TestRoomIsWhatFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "hosts")
		var hs []Host
		for i := range n {
			hs = append(hs, anyHost(t, i+1))
		}
		r := anyRequest(t, n, false)
		r.Placement.Strategies = slices.DeleteFunc(r.Placement.Strategies, func(s model.Strategy) bool { return s.Name == strategy.Group })
		f := NewFleet(Policy{}, hs)
		room := f.Room(r)
		assert.Equal(t, f.Room(r), room) // asking reserves nothing
		fit := 0
		for fit < 200 && f.Place([]Request{r})[0].Host != "" {
			fit++
		}
		assert.Equal(t, min(room, 200), fit)
	})
}

// Every host is as likely, whatever went before.
func TestRandomIsFair(t *testing.T) {
	f := NewFleet(Policy{Strategies: []model.Strategy{{Name: strategy.Random}}}, hosts(10))
	r := Request{App: "a", Service: "web"}
	counts, pairs := map[string]int{}, map[string]int{}
	before := ""
	for _, d := range f.Place(slices.Repeat([]Request{r}, 20000)) {
		counts[d.Host]++
		pairs[before+" "+d.Host]++
		before = d.Host
	}
	for id, n := range counts {
		assert.Assert(t, n > 1800 && n < 2200, "%s: %d", id, n)
	}
	for pair, n := range pairs {
		assert.Assert(t, strings.HasPrefix(pair, " ") || n > 130 && n < 275, "%s: %d", pair, n)
	}
	assert.Equal(t, len(counts), 10)
}
