package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// BenchmarkChange measures how long it is from a change's coming in until it is
// answered from: of a fleet that is quiet otherwise, and of one in which a name
// changes every millisecond.
func BenchmarkChange(b *testing.B) {
	for _, names := range []int{1000, 10000} {
		for _, busy := range []bool{false, true} {
			b.Run(fmt.Sprintf("names=%d/busy=%t", names, busy), func(b *testing.B) { change(b, names, busy) })
		}
	}
}

func change(b *testing.B, names int, busy bool) {
	x := NewIndex(quiet)
	x.ApplyNetworks(store.Change{Reset: true, Puts: []store.Raw{rawOf("n", record.Network{ID: "n", Subnet: "10.208.0.0/12"})}})
	put := func(key, replica string, i int) store.Raw {
		return rawOf("names/h/"+key, record.NameRecord{
			App: fmt.Sprint("app", i%100), Service: fmt.Sprint("s", i%10), Replica: replica,
			Networks: map[string]record.NamedAddress{"n": {Address: fmt.Sprintf("10.%d.%d.%d", 209+i>>16, i>>8&255, i&255)}},
		})
	}
	all := store.Change{Reset: true}
	for i := range names {
		all.Puts = append(all.Puts, put(fmt.Sprint(i), fmt.Sprint("r", i), i))
	}
	x.ApplyNames(all)
	go x.Run(b.Context())
	if busy {
		go func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for i := 0; b.Context().Err() == nil; i++ {
				<-tick.C
				x.ApplyNames(store.Change{Puts: []store.Raw{put(fmt.Sprint(i%names), fmt.Sprint("again", i), i%names)}})
			}
		}()
	}
	src := netip.MustParseAddr("10.208.0.9")
	took := make([]time.Duration, 0, b.N)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("new", i)
		c := store.Change{Puts: []store.Raw{put("new", name, 1)}}
		start := time.Now()
		x.ApplyNames(c)
		for resolve(x.current.Load(), name, 1, src).kind != addresses {
			assert.Assert(b, time.Since(start) < 10*time.Second)
			<-time.After(100 * time.Microsecond)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
