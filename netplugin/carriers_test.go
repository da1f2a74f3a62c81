package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// across is a network with a container on each of two hosts.
type across struct {
	carrier string
	mtu     int
	a, b    *nettest.Container
}

func networksAcross(t testing.TB, w *nettest.World, h1, h2 *nettest.Host, mtus map[string]int) []across {
	t.Helper()
	for _, h := range []*nettest.Host{h1, h2} {
		h.Eventually(5*time.Second, "the host is announced", func() error {
			_, err := store.Get[record.Underlay](t.Context(), w.Store, w.Store.Keys.Underlay(h.ID))
			return err
		})
	}
	var all []across
	for carrier, mtu := range mtus {
		n, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{
			Name: "by-" + carrier, App: carrier, Egress: "plugin", IPv6: true, Carrier: carrier,
		})
		assert.NilError(t, err)
		assert.Equal(t, n.MTU, mtu, carrier)
		x := across{carrier, mtu, h1.CreateNetwork(&n, nil).Run(), h2.CreateNetwork(&n, nil).Run()}
		for _, c := range []*nettest.Container{x.a, x.b} {
			for _, a := range bothOf(c) {
				c.Serve(net.JoinHostPort(a, "80"))
				serveMuch(t, c, net.JoinHostPort(a, "81"))
			}
		}
		all = append(all, x)
	}
	return all
}

func bothOf(c *nettest.Container) []string { return []string{c.Address, c.Address6} }

// much is what is sent to see whether large packets get through.
const much = 1 << 20

func serveMuch(t testing.TB, c *nettest.Container, address string) {
	t.Helper()
	var l net.Listener
	c.Do(func() {
		var err error
		l, err = net.Listen("tcp", address)
		assert.NilError(t, err)
	})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Write(make([]byte, much)) // the other side counts
			}()
		}
	}()
}

// fetch reads all of it.
func fetch(from *nettest.Container, address string) error {
	var c net.Conn
	var err error
	from.Do(func() { c, err = net.DialTimeout("tcp", address, time.Second) })
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, c)
	if err == nil && n != much {
		err = fmt.Errorf("%d bytes instead of %d", n, much)
	}
	return err
}

// whole checks that every network carries what it should, both ways and by
// both families.
func whole(t testing.TB, all []across) {
	t.Helper()
	for _, x := range all {
		for _, way := range [][2]*nettest.Container{{x.a, x.b}, {x.b, x.a}} {
			for _, to := range bothOf(way[1]) {
				x.a.Network.Host.Eventually(15*time.Second, x.carrier+" to "+to, func() error {
					return fetch(way[0], net.JoinHostPort(to, "81"))
				})
			}
		}
	}
}

// full checks that packets of just the network's size get through as they are.
func full(t *testing.T, all []across) {
	t.Helper()
	for _, x := range all {
		x.a.Run("ping", "-c1", "-W3", "-M", "do", "-s", fmt.Sprint(x.mtu-28), x.b.Address)
		x.b.Run("ping", "-6", "-c1", "-W3", "-M", "do", "-s", fmt.Sprint(x.mtu-48), x.a.Address6)
	}
}

func TestCarriersOnOneLink(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	l := w.FirstLink(1500)
	h1, h2 := l.AddHost(false), l.AddHost(false)
	all := networksAcross(t, w, h1, h2, map[string]int{"auto": 1500, "direct": 1500, "vxlan": 1450, "wireguard": 1440})
	whole(t, all)
	full(t, all)
	route := h1.Run("ip", "route", "get", all[index(all, "auto")].b.Address)
	assert.Check(t, strings.Contains(route, "via "+h2.Address+" dev eth0"), route)
	changeMTU(t, h1, h2, all)
}

func TestCarriersOverARouter(t *testing.T) {
	for _, c := range []struct {
		name string
		by6  bool
		mtus map[string]int
	}{
		{"IPv4 underlay", false, map[string]int{"auto": 1450, "vxlan": 1450, "wireguard": 1440}},
		{"IPv6 underlay", true, map[string]int{"auto": 1430, "vxlan": 1430, "wireguard": 1408}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := nettest.NewWorld(t, plugin)
			far := w.AddLink(1500)
			h1, h2 := w.FirstLink(1500).AddHost(c.by6), far.AddHost(c.by6)
			all := networksAcross(t, w, h1, h2, c.mtus)
			whole(t, all)
			full(t, all)
			route := h1.Run("ip", "route", "get", all[index(all, "auto")].b.Address)
			assert.Check(t, strings.Contains(route, "dev clk-vxlan"), route)
			// What a host says itself comes from its own address, not from
			// one that every host has.
			assert.Check(t, c.by6 || strings.Contains(route, "src "+h1.Address), route)
			changeMTU(t, h1, h2, all)
			breakDevices(t, h1, h2, all)
		})
	}
}

func index(all []across, carrier string) int {
	for i, x := range all {
		if x.carrier == carrier {
			return i
		}
	}
	return -1
}

// changeMTU makes one host's packets smaller and larger again.
func changeMTU(t *testing.T, h1, h2 *nettest.Host, all []across) {
	t.Helper()
	h2.SetMTU(1400)
	whole(t, all)
	// Where a packet is too large its sender is told, and nothing is lost in
	// silence.
	for _, x := range all {
		h1.Eventually(10*time.Second, x.carrier+" says what is too large", func() error {
			out := x.a.Run("sh", "-c", fmt.Sprintf("ping -c1 -W1 -M do -s %d %s 2>&1 || true", x.mtu-28, x.b.Address))
			if !strings.Contains(out, "rag needed") && !strings.Contains(out, "too long") {
				return errors.New(out)
			}
			return nil
		})
	}
	h2.SetMTU(1500)
	// What a container was told it keeps for ten minutes.
	for _, x := range all {
		for _, c := range []*nettest.Container{x.a, x.b} {
			c.Run("ip", "route", "flush", "cache")
			c.Run("ip", "-6", "route", "flush", "cache")
		}
		h1.Eventually(10*time.Second, x.carrier+" has its size again", func() error {
			for _, c := range []*nettest.Container{x.a, x.b} {
				c.Run("ip", "route", "flush", "cache")
			}
			out := x.a.Run("sh", "-c", fmt.Sprintf("ping -c1 -W1 -M do -s %d %s 2>&1 || true", x.mtu-28, x.b.Address))
			if !strings.Contains(out, " 0% packet loss") {
				return errors.New(out)
			}
			return nil
		})
	}
}

// breakDevices takes the carriers' devices away from under them.
func breakDevices(t *testing.T, h1, h2 *nettest.Host, all []across) {
	t.Helper()
	for _, name := range []string{"clk-vxlan", "clk-wireguard"} {
		for _, h := range []*nettest.Host{h1, h2} {
			start := time.Now()
			h.Run("ip", "link", "del", name)
			whole(t, all)
			t.Logf("%s removed from %s: whole again after %s", name, h.ID, time.Since(start).Round(time.Millisecond))
		}
	}
}

// A host that moves to another link is reached by a tunnel from then on, and
// directly when it is back.
func TestAutoFollowsAHost(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	w.AddLink(1500)
	l := w.FirstLink(1500)
	h1, h2 := l.AddHost(false), l.AddHost(false)
	all := networksAcross(t, w, h1, h2, map[string]int{"auto": 1500, "wireguard": 1440})
	whole(t, all)
	home := h2.Address
	for _, place := range []struct{ bridge, address, router, by string }{
		{"far", "10.78.0.12", "10.78.0.1", "clk-vxlan"}, {"link", home, "10.77.0.1", "eth0"},
	} {
		h2.Kill()
		w.Outside.Run("ip", "link", "set", "port2", "master", place.bridge)
		h2.Run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
		h2.Run("ip", "addr", "add", place.address+"/24", "dev", "eth0")
		h2.Run("ip", "route", "replace", "default", "via", place.router)
		h2.Address = place.address
		h2.Adopt()
		h2.Start()
		whole(t, all)
		for _, ends := range []struct {
			h  *nettest.Host
			to string
		}{{h1, all[index(all, "auto")].b.Address}, {h2, all[index(all, "auto")].a.Address}} {
			route := ends.h.Run("ip", "route", "get", ends.to)
			assert.Check(t, strings.Contains(route, "dev "+place.by), route)
		}
	}
}
