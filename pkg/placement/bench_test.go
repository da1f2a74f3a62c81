package placement

import (
	"fmt"
	"runtime"
	"testing"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/strategy"
)

// benchFleet is a fleet of hosts with containers of many services, of which
// each has replicas on as many hosts.
func benchFleet(hosts, containers int) *Fleet {
	f := NewFleet(Policy{}, nil)
	for i := range hosts {
		f.PutHost(Host{
			ID: fmt.Sprintf("id%d", i), Name: fmt.Sprintf("host%05d", i), Up: true, Platform: "linux/amd64",
			Labels:   map[string]string{"zone": fmt.Sprint("z", i%5), "disk": []string{"ssd", "hdd"}[i%2]},
			Capacity: model.Amounts{NanoCPUs: 64e9, MemoryBytes: 256 * gib},
			Ports:    map[string]string{"tcp/22": "another program on the host"},
		})
	}
	for i := range containers {
		service := i / 100
		t := Task{
			ID: fmt.Sprintf("%012x", i), App: fmt.Sprint("app", service/10), Service: fmt.Sprint("service", service%10),
			Reserve: model.Amounts{NanoCPUs: 1e8, MemoryBytes: gib / 4},
		}
		var ports []string
		if service%10 == 0 {
			ports = []string{fmt.Sprint("tcp/", 8000+service%1000)}
		}
		f.PutTask(fmt.Sprintf("id%d", (i*7+service)%hosts), t, ports)
	}
	return f
}

// one is 10,000 replicas of one service.
func one() []Request {
	rs := make([]Request, 10000)
	for i := range rs {
		rs[i] = Request{App: "new", Service: "web", Slot: i + 1}
	}
	return rs
}

// mixed are 1,000 services of 10 replicas each with constraints, reservations
// and ports.
func mixed() []Request {
	var rs []Request
	for s := range 1000 {
		r := Request{App: fmt.Sprint("new", s/10), Service: fmt.Sprint("service", s)}
		switch s % 5 {
		case 0:
			r.Placement.Constraints = []string{"node.labels.disk == ssd"}
			r.Resources.Reserve = model.Amounts{NanoCPUs: 5e8, MemoryBytes: gib}
		case 1:
			r.Ports = []model.Port{{HostPort: uint16(9000 + s), ContainerPort: 80, Protocol: "tcp"}}
		case 2:
			r.Placement.Constraints = []string{"node.labels.zone != z1", "node.platform.arch == amd64"}
			r.Resources.Reserve = model.Amounts{MemoryBytes: gib / 2}
		case 3:
			r.Placement.MaxPerHost = 1
			r.Ports = []model.Port{{ContainerPort: 80, Protocol: "tcp"}}
		}
		for i := range 10 {
			r.Slot = i + 1
			rs = append(rs, r)
		}
	}
	return rs
}

func chained(name string, labels ...string) []Request {
	rs := one()
	for i := range rs {
		rs[i].Placement.Strategies = []model.Strategy{{Name: name, Labels: labels}}
	}
	return rs
}

func each(rs []Request, n int) [][]Request {
	var out [][]Request
	for len(rs) > 0 {
		out = append(out, rs[:n])
		rs = rs[n:]
	}
	return out
}

func bench(b *testing.B, hosts, containers int, calls [][]Request) {
	f := benchFleet(hosts, containers)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		var made []Decision
		for _, rs := range calls {
			made = append(made, f.Place(rs)...)
		}
		b.StopTimer()
		for _, d := range made {
			if d.Host == "" {
				b.Fatal(d.Err())
			}
			f.RemoveTask(d.Task)
		}
		n += len(made)
		b.StartTimer()
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "placements/s")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkPlace(b *testing.B) {
	for _, size := range []struct {
		name              string
		hosts, containers int
	}{{"1k-hosts-10k", 1000, 10000}, {"10k-hosts-1M", 10000, 1000000}} {
		b.Run(size.name+"/one-service", func(b *testing.B) { bench(b, size.hosts, size.containers, [][]Request{one()}) })
		b.Run(size.name+"/1000-services", func(b *testing.B) { bench(b, size.hosts, size.containers, [][]Request{mixed()}) })
		b.Run(size.name+"/1000-services-a-call-each", func(b *testing.B) { bench(b, size.hosts, size.containers, each(mixed(), 10)) })
		b.Run(size.name+"/a-call-for-each-replica", func(b *testing.B) { bench(b, size.hosts, size.containers, each(one()[:1000], 1)) })
		for _, s := range []string{strategy.BreadthFirst, strategy.Binpack, strategy.Random} {
			b.Run(size.name+"/"+s, func(b *testing.B) { bench(b, size.hosts, size.containers, [][]Request{chained(s)}) })
		}
		b.Run(size.name+"/"+strategy.ZoneSpread, func(b *testing.B) {
			bench(b, size.hosts, size.containers, [][]Request{chained(strategy.ZoneSpread, "zone")})
		})
		b.Run(size.name+"/"+strategy.Group, func(b *testing.B) {
			bench(b, size.hosts, size.containers, [][]Request{chained(strategy.Group)})
		})
	}
}

// BenchmarkFleet measures what a fleet of 10,000 hosts and 1,000,000
// containers takes: to build, in memory, and to follow a change.
func BenchmarkFleet(b *testing.B) {
	var f *Fleet
	b.Run("build-10k-hosts-1M", func(b *testing.B) {
		for b.Loop() {
			f = nil
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			f = benchFleet(10000, 1000000)
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "heap-MiB")
		}
	})
	if f == nil {
		f = benchFleet(10000, 1000000)
	}
	b.Run("replace-task", func(b *testing.B) {
		b.ReportAllocs()
		t := Task{App: "app1", Service: "service1", Reserve: model.Amounts{NanoCPUs: 1e8}}
		for i := 0; b.Loop(); i++ {
			t.ID = fmt.Sprintf("%012x", i%1000000)
			f.PutTask(fmt.Sprintf("id%d", i%10000), t, nil)
		}
	})
}
