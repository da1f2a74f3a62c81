package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/netplugin/matrix"
	"clocker.io/clocker/netplugin/nettest"
)

// On every data plane, every pair of places must get what the table of package
// matrix says: containers of the same network, of another one, of another
// application, their own host, another host and the world outside, both ways,
// over TCP, UDP and ICMP, IPv4 and IPv6. The containers and networks are the
// engines' own; only who speaks in them is the test.
func TestEveryPairMustGetItsVerdict(t *testing.T) {
	for _, plane := range []struct{ segment, carrier string }{
		{"routed", "direct"}, {"routed", "vxlan"}, {"bridged", "vxlan"}, {"routed", "wireguard"},
	} {
		t.Run(plane.segment+" by "+plane.carrier, func(t *testing.T) {
			start := time.Now()
			spots := places(t, shared, "--segment", plane.segment, "--carrier", plane.carrier)
			made := time.Since(start)
			matrix.Try(t, spots)
			t.Logf("made in %s, tried in %s", made, time.Since(start)-made)
		})
	}
}

// places makes two applications' networks and containers on two hosts.
func places(t *testing.T, f *fleet, flags ...string) []matrix.Spot {
	h1, h2 := f.bed.Host("h1"), f.bed.Host("h2")
	for _, name := range []string{"red", "green", "blue"} {
		f.network(t, name, append([]string{"--ipv6"}, flags...)...)
	}
	wanted := []struct {
		name, app, network string
		host               *testbed.Host
	}{
		{"red-1", "shop", "red", h1}, {"red-again", "shop", "red", h1}, {"red-2", "shop", "red", h2},
		{"green-1", "shop", "green", h1}, {"blue-1", "bank", "blue", h1}, {"blue-2", "bank", "blue", h2},
	}
	spots := make([]matrix.Spot, len(wanted))
	var wg sync.WaitGroup
	for i, w := range wanted {
		wg.Go(func() {
			f.container(t, w.host.Name, w.name, w.network)
			network := fmt.Sprintf("(index .NetworkSettings.Networks %q)", w.network)
			said, err := w.host.Exec(t.Context(), "docker", "inspect", "-f", "{{.State.Pid}} {{"+network+".IPAddress}} {{"+network+".GlobalIPv6Address}}", w.name)
			about := strings.Fields(said)
			if err != nil || len(about) != 3 {
				t.Errorf("%s has not both addresses: %q, %v", w.name, said, err)
				return
			}
			spots[i] = matrix.Spot{
				Place:     matrix.Place{Name: w.name, Kind: matrix.Container, App: w.app, Network: w.network, Host: w.host.Name},
				Namespace: nettest.OpenNamespace(t, w.host.Root()+"/proc/"+about[0]+"/ns/net"),
				Addresses: map[string]string{"4": about[1], "6": about[2]},
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	hub, err := f.bed.Hub()
	if err != nil {
		t.Fatal(err)
	}
	outside := machine(t, hub, matrix.Place{Name: "outside", Kind: matrix.Outside})
	for _, s := range spots {
		h := f.bed.Host(s.Host)
		for family, via := range map[string]string{"4": h.Address, "6": h.Address6} {
			outside.Run("ip", "-"+family, "route", "replace", s.Addresses[family], "via", via)
			t.Cleanup(func() { outside.Run("ip", "-"+family, "route", "del", s.Addresses[family]) })
		}
	}
	for _, h := range []*testbed.Host{h1, h2} {
		spots = append(spots, machine(t, h, matrix.Place{Name: h.Name, Kind: matrix.Host, Host: h.Name}))
	}
	return append(spots, outside)
}

func machine(t *testing.T, h *testbed.Host, p matrix.Place) matrix.Spot {
	t.Helper()
	return matrix.Spot{
		Place: p, Namespace: nettest.OpenNamespace(t, fmt.Sprintf("/proc/%d/ns/net", h.PID())),
		Addresses: map[string]string{"4": h.Address, "6": h.Address6},
	}
}
