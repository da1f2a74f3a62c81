package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"clocker.io/clocker/netplugin/nettest"
)

// BenchmarkCalls measures the engine's calls for one container, at one and at
// 16 callers: what the plugin takes, without the container.
func BenchmarkCalls(b *testing.B) {
	for _, callers := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
			w := nettest.NewWorld(b, quietPlugin)
			h := w.AddHost()
			n := h.CreateNetwork(dual(b, w, "red", "shop"), nil)
			took := map[string][]time.Duration{}
			var mu sync.Mutex
			work := make(chan struct{})
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for range work {
						one := oneLife(b, h, n)
						mu.Lock()
						for call, d := range one {
							took[call] = append(took[call], d)
						}
						mu.Unlock()
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			for call, ds := range took {
				slices.Sort(ds)
				b.ReportMetric(float64(ds[len(ds)/2].Microseconds())/1000, call+"-p50-ms")
				b.ReportMetric(float64(ds[len(ds)*99/100].Microseconds())/1000, call+"-p99-ms")
			}
		})
	}
}

// quietPlugin logs as it does by default.
func quietPlugin(args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), asPlugin+"=1")
	return c
}

// oneLife makes the calls for one container and says what each took.
func oneLife(b *testing.B, h *nettest.Host, n *nettest.Network) map[string]time.Duration {
	took := map[string]time.Duration{}
	call := func(name string, request, reply any) {
		start := time.Now()
		if err := h.Try(name, request, reply); err != nil {
			b.Errorf("%s: %v", name, err)
		}
		_, name, _ = strings.Cut(name, ".")
		took[name] = time.Since(start)
	}
	id := strings.ReplaceAll(uuid.NewString(), "-", "")
	var a, a6 struct{ Address string }
	call("IpamDriver.RequestAddress", map[string]any{"PoolID": n.Pool}, &a)
	call("IpamDriver.RequestAddress", map[string]any{"PoolID": n.Pool6}, &a6)
	call("NetworkDriver.CreateEndpoint", map[string]any{"NetworkID": n.ID, "EndpointID": id, "Interface": map[string]string{"Address": a.Address, "AddressIPv6": a6.Address}}, nil)
	call("NetworkDriver.Join", map[string]any{"NetworkID": n.ID, "EndpointID": id, "SandboxKey": "/run/" + id}, nil)
	took["CreateEndpoint+Join"] = took["CreateEndpoint"] + took["Join"]
	call("NetworkDriver.Leave", map[string]any{"NetworkID": n.ID, "EndpointID": id}, nil)
	call("NetworkDriver.DeleteEndpoint", map[string]any{"NetworkID": n.ID, "EndpointID": id}, nil)
	for pool, x := range map[string]string{n.Pool: a.Address, n.Pool6: a6.Address} {
		x, _, _ = strings.Cut(x, "/")
		call("IpamDriver.ReleaseAddress", map[string]any{"PoolID": pool, "Address": x}, nil)
	}
	return took
}
