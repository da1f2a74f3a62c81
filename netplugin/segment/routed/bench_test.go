package routed

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// big is a /16 of 1,000 blocks of 20 hosts, with 20,000 endpoints, of which
// one in a hundred is outside its host's blocks.
func big() (place, *topology.Topology) {
	t := topology.New()
	n := segment.Network{ID: "big", Subnet: pfx("10.208.0.0/16"), Gateway: adr("10.208.0.1"), Carrier: "direct", MTU: 1500}
	p := place{host: "h0", networks: []segment.Network{n}}
	host := func(i int) string { return fmt.Sprint("h", i%20) }
	for i := range 20 {
		t.Underlays[host(i)] = record.Underlay{Host: host(i), Address: fmt.Sprint("10.0.0.", i+1)}
	}
	blocks, endpoints := map[netip.Prefix]record.Block{}, map[netip.Addr]record.Endpoint{}
	for i := range 1000 {
		base := netip.AddrFrom4([4]byte{10, 208, byte(i >> 2), byte(i<<6) & 0xc0})
		blocks[netip.PrefixFrom(base, 26)] = record.Block{Host: host(i)}
		for k := range 20 {
			a := netip.AddrFrom4([4]byte{10, 208, byte(i >> 2), byte(i<<6)&0xc0 + byte(k) + 2})
			at := host(i)
			if (i*20+k)%100 == 0 {
				at = host(i + 1)
			}
			endpoints[a] = record.Endpoint{Host: at}
			if at == "h0" {
				p.endpoints = append(p.endpoints, segment.Endpoint{ID: fmt.Sprintf("%013x", i*20+k), Network: n, Address: netip.PrefixFrom(a, 32)})
			}
		}
	}
	t.Blocks["big"], t.Endpoints["big"] = blocks, endpoints
	return p, t
}

func BenchmarkPlan(b *testing.B) {
	p, t := big()
	var routes []Route
	for b.Loop() {
		routes = plan(p, t)
	}
	b.ReportMetric(float64(len(routes)), "routes")
}

// BenchmarkLook is all that a change of the fleet costs when it changes no
// route.
func BenchmarkLook(b *testing.B) {
	p, t := big()
	for b.Loop() {
		routes := plan(p, t)
		peers := peersOf(routes, t)
		beyond := slices.DeleteFunc(routes, func(r Route) bool { return r.Target == ToLink })
		if len(beyond) == 0 || len(peers) == 0 {
			b.Fatal("nothing planned")
		}
	}
}

// told is a topology that is followed.
type told struct{ t *topology.Topology }

func (f told) Read(g func(*topology.Topology, topology.Knowledge)) { g(f.t, topology.Followed) }

// straight is a carrier for which every host is on the loopback.
type straight struct{}

func (straight) Name() string                          { return "direct" }
func (straight) Overhead() int                         { return 0 }
func (straight) Underlay() (int, error)                { return 1500, nil }
func (straight) Sync([]carrier.Peer) error             { return nil }
func (straight) Hop(carrier.Peer) (carrier.Hop, error) { return carrier.Hop{Link: 1}, nil }

// BenchmarkNewBlock is the time from a block's appearance among 1,000 others
// and 20,000 endpoints to its route in the kernel.
func BenchmarkNewBlock(b *testing.B) {
	ns := nettest.NewNamespace(b)
	p, t := big()
	s := New(Config{
		Host: "h0", Handle: ns.Handle, Sysctl: "/proc/sys/net", Topology: told{t},
		Carriers: map[string]carrier.Carrier{"direct": straight{}}, Log: slog.New(slog.DiscardHandler),
	})
	n := p.networks[0]
	n.Subnet = pfx("10.208.0.0/15")
	for _, e := range p.endpoints {
		s.know(e)
	}
	ns.Do(func() {
		if err := s.AddNetwork(n); err != nil {
			b.Fatal(err)
		}
		block, _ := adr("10.209.0.0").Prefix(26)
		for i := 0; b.Loop(); i++ {
			if i%2 == 0 {
				t.Blocks["big"][block] = record.Block{Host: "h3"}
			} else {
				delete(t.Blocks["big"], block)
			}
			if err := s.sync(false); err != nil {
				b.Fatal(err)
			}
		}
	})
	routes, err := Routes(ns.Handle)
	if err != nil || len(routes) < 1000 {
		b.Fatalf("%d routes: %v", len(routes), err)
	}
}
