package routed_test

import (
	"fmt"
	"log/slog"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/segment/routed"
)

// BenchmarkAttach is what a container's link costs, with one family and with
// both; links stay while it runs.
func BenchmarkAttach(b *testing.B) {
	for _, c := range []struct{ name, a, a6 string }{{"IPv4", "10.208.%d.%d/32", ""}, {"both", "10.208.%d.%d/32", "fd12:3456:789a:1::%x:%x/128"}} {
		b.Run(c.name, func(b *testing.B) {
			ns := nettest.NewNamespace(b)
			s := routed.New(routed.Config{Host: "h", Handle: ns.Handle, Sysctl: "/proc/sys/net", Topology: alone{}, Log: slog.New(slog.DiscardHandler)})
			ns.Do(func() {
				assert.NilError(b, s.AddNetwork(dual))
				i := 0
				for b.Loop() {
					i++
					a6 := ""
					if c.a6 != "" {
						a6 = fmt.Sprintf(c.a6, i>>8, i&255)
					}
					e := endpoint("x", dual, fmt.Sprintf(c.a, i>>8, i&255), a6)
					e.ID = fmt.Sprintf("%013x", i)
					assert.NilError(b, s.Attach(e))
				}
			})
		})
	}
}

var _ segment.Segment = (*routed.Segment)(nil)
