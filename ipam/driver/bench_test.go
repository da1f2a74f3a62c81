package driver

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// measure lets callers do what work says b.N times and reports how many that
// are in a second, and how long each takes.
func measure(b *testing.B, callers int, work func(k int)) {
	b.Helper()
	next := make(chan int, callers)
	times := make([][]time.Duration, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for k := range next {
				start := time.Now()
				work(k)
				times[c] = append(times[c], time.Since(start))
			}
		})
	}
	b.ResetTimer()
	for k := range b.N {
		next <- k
	}
	close(next)
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(times...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "addresses/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
}

// Addresses asked for and given back, each on the disk before its answer,
// while endpoints are published to an etcd in the same process.
func BenchmarkAddress(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			f := newFleet(b)
			h := f.host("a", func(c *Config) { c.Cooldown, c.IdleReturn, c.Timeout = 1, time.Hour, 3*time.Second })
			pool := h.join(f.subnet("10.1.0.0/16"))
			h.get(pool, "", "")
			measure(b, callers, func(int) { h.put(pool, h.get(pool, "", "")) })
		})
	}
}

// Addresses outside the host's blocks: each waits for etcd.
func BenchmarkPin(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			f := newFleet(b)
			h := f.host("a", func(c *Config) { c.Timeout = 10 * time.Second })
			pool := h.join6(f.network(registry.Request{NoIPv4: true, Subnet6: netip.MustParsePrefix("fd12::/64")}))
			measure(b, callers, func(k int) { h.get(pool, fmt.Sprintf("fd12::1:0:%x:%x", k>>16, k&0xffff), "") })
		})
	}
}

// One host takes 20,000 addresses of an empty /16 as fast as it can; etcd
// knows all of them soon after.
func TestBigNetwork(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/16")
	h := f.host("a", func(c *Config) { c.Timeout = 5 * time.Second })
	pool := h.join(n)
	const want, callers = 20_000, 64
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	l := &ledger{held: map[string]string{}}
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range (want + callers - 1) / callers {
				l.take(t, h.get(pool, "", ""), "a")
			}
		})
	}
	wg.Wait()
	given := time.Since(start)
	f.wait(func() error {
		items, _, err := store.List[record.Endpoint](t.Context(), f.st, f.st.Keys.Endpoint(n.ID, ""))
		if err == nil && len(items) != len(l.held) {
			err = fmt.Errorf("etcd has %d endpoints of %d", len(items), len(l.held))
		}
		return err
	})
	published := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d addresses in %d blocks: given in %s, in etcd after %s; %d KiB of memory more, that of etcd included",
		len(l.held), len(f.owners(n)), given.Round(time.Millisecond), published.Round(time.Millisecond), (int64(after.HeapAlloc)-int64(before.HeapAlloc))>>10)
	dir := h.crash()
	start = time.Now()
	h = f.host("a", at(dir))
	t.Logf("read back in %s", time.Since(start).Round(time.Millisecond))
	assert.Equal(t, len(h.Held()[n.ID]), len(l.held))
	for range 1000 {
		l.take(t, h.get(pool, "", ""), "a")
	}
}
