package main

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
)

// BenchmarkRemoteBlock measures the time from a block's publication by another
// host to its route on this one, among 1,000 endpoints of which some are
// published all the time.
func BenchmarkRemoteBlock(b *testing.B) {
	w := nettest.NewWorld(b, quietPlugin)
	h := w.AddHost()
	w.AddHost()
	red := network(b, w, "red", "plugin", false)
	h.CreateNetwork(red, nil)
	base := netip.MustParsePrefix(red.Subnet).Addr().As4()
	ip := func(i int) string {
		return netip.AddrFrom4([4]byte{base[0], base[1], base[2] + byte(i>>8), byte(i)}).String()
	}
	for i := range 1000 {
		put(b, w, w.Store.Keys.Endpoint(red.ID, ip(i)), record.Endpoint{Host: "host1"})
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
				_, _ = w.Store.Txn().Put(w.Store.Keys.Endpoint(red.ID, ip(i%1000)), record.Endpoint{Host: "host1", MAC: fmt.Sprint(i)}).Commit(b.Context())
			}
		}
	}()
	updates := make(chan netlink.RouteUpdate, 1024)
	h.Do(func() { assert.NilError(b, netlink.RouteSubscribe(updates, done)) })
	var took []time.Duration
	for n := 0; b.Loop(); n++ {
		block, err := netip.MustParseAddr(ip(2048 + n%32*64)).Prefix(26)
		assert.NilError(b, err)
		key := w.Store.Keys.Block(red.ID, block.String())
		put(b, w, key, record.Block{Host: "host2", State: record.BlockOwned})
		start := time.Now()
		for u := range updates {
			if u.Dst != nil && u.Dst.String() == block.String() {
				break
			}
		}
		took = append(took, time.Since(start))
		_, err = w.Store.Txn().Delete(key).Commit(b.Context())
		assert.NilError(b, err)
		for u := range updates {
			if u.Dst != nil && u.Dst.String() == block.String() {
				break
			}
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
