package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	dockernetwork "github.com/docker/go-plugins-helpers/network"
	"github.com/vishvananda/netlink"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
)

// endpoints is how many are made.
const endpoints = 1000

// BenchmarkProgrammingDelay measures, with 1,000 endpoints made on one of
// three hosts, the time from CreateEndpoint's reply until the other hosts'
// kernels know the way there (routed: a route; bridged: a neighbour) and until
// the endpoint is in etcd for all to read, and counts the watches on etcd. The
// machine carries all three hosts and etcd.
func BenchmarkProgrammingDelay(b *testing.B) {
	for _, kind := range []string{"routed", "bridged"} {
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				delays(b, kind)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func delays(b *testing.B, kind string) {
	w := nettest.NewWorld(b, plugin)
	h1, h2, h3 := w.AddHost(), w.AddHost(), w.AddHost()
	record, err := registry.Create(b.Context(), w.Store, time.Now(), registry.Request{Name: "many", App: "app", Egress: "plugin", Segment: kind})
	assert.NilError(b, err)
	n := h1.CreateNetwork(&record, nil)
	others := []*nettest.Host{h2, h3}
	for _, h := range others {
		h.CreateNetwork(&record, nil)
	}
	published := arrivals{at: map[string]time.Time{}}
	watch := w.Store.Client().Watch(b.Context(), w.Store.Keys.Endpoints(), clientv3.WithPrefix())
	go func() {
		for r := range watch {
			for _, e := range r.Events {
				published.arrived(string(e.Kv.Key[strings.LastIndexByte(string(e.Kv.Key), '/')+1:]))
			}
		}
	}()
	known := make([]arrivals, len(others))
	for i, h := range others {
		known[i].at = map[string]time.Time{}
		if kind == "bridged" {
			updates := make(chan netlink.NeighUpdate, 4096)
			h.Do(func() { assert.NilError(b, netlink.NeighSubscribe(updates, b.Context().Done())) })
			go func() {
				for u := range updates {
					if u.IP != nil && u.State&unix.NUD_PERMANENT != 0 {
						known[i].arrived(u.IP.String())
					}
				}
			}()
		}
	}
	replied := map[string]time.Time{}
	for range endpoints {
		var a ipam.RequestAddressResponse
		h1.Call("IpamDriver.RequestAddress", ipam.RequestAddressRequest{PoolID: n.Pool}, &a)
		h1.Call("NetworkDriver.CreateEndpoint", dockernetwork.CreateEndpointRequest{
			NetworkID: n.ID, EndpointID: endpointID(), Interface: &dockernetwork.EndpointInterface{Address: a.Address},
			Options: map[string]any{},
		}, nil)
		address := netip.MustParsePrefix(a.Address).Addr().String()
		replied[address] = time.Now()
		if kind == "routed" {
			for i, h := range others {
				for !leadsTo(h, address, h1.Address) {
					assert.Assert(b, time.Since(replied[address]) < 10*time.Second, "%s has no route to %s", h.ID, address)
				}
				known[i].arrived(address)
			}
		}
	}
	h1.Eventually(30*time.Second, "everything has arrived", func() error {
		for _, k := range append([]*arrivals{&published}, &known[0], &known[1]) {
			if missing := k.missing(replied); missing > 0 {
				return fmt.Errorf("%d have not", missing)
			}
		}
		return nil
	})
	report(b, "etcd", published.after(replied))
	report(b, "kernel", append(known[0].after(replied), known[1].after(replied)...))
	metrics := page(b, w.Etcd.URL()+"/metrics")
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "etcd_debugging_mvcc_watcher_total") {
			var watchers float64
			_, err := fmt.Sscan(strings.Fields(line)[1], &watchers)
			assert.NilError(b, err)
			b.ReportMetric((watchers-1)/3, "watches/host") // one is the bench's
		}
	}
}

// leadsTo tells whether a host's route to an address is by another host.
func leadsTo(h *nettest.Host, address, by string) bool {
	routes, err := h.Handle.RouteGet(netip.MustParseAddr(address).AsSlice())
	return err == nil && len(routes) == 1 && routes[0].Gw.String() == by
}

// arrivals are when something was first seen, by address.
type arrivals struct {
	mu sync.Mutex
	at map[string]time.Time // guarded by mu
}

func (a *arrivals) arrived(address string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.at[address]; !ok {
		a.at[address] = time.Now()
	}
}

func (a *arrivals) missing(wanted map[string]time.Time) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for address := range wanted {
		if a.at[address].IsZero() {
			n++
		}
	}
	return n
}

// after are the delays since the replies; what was there before counts as 0.
func (a *arrivals) after(replied map[string]time.Time) (all []time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for address, t := range replied {
		all = append(all, max(0, a.at[address].Sub(t)))
	}
	return all
}

func report(b *testing.B, name string, all []time.Duration) {
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, name+"-p99-ms")
}

func page(b *testing.B, url string) string {
	r, err := http.Get(url)
	assert.NilError(b, err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	assert.NilError(b, err)
	return string(body)
}

func endpointID() string {
	b := make([]byte, 32)
	rand.Read(b) //nolint:errcheck // never fails
	return hex.EncodeToString(b)
}
