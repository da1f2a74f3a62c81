package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/matrix"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// twoDual are two hosts with addresses of both families.
func twoDual(t testing.TB) (*nettest.World, *nettest.Host, *nettest.Host) {
	t.Helper()
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddBareHost(), w.AddBareHost()
	matrix.Dual(w, h1, h2)
	for _, h := range []*nettest.Host{h1, h2} {
		h.Adopt()
		h.Start()
	}
	return w, h1, h2
}

// put writes a record as the controller does.
func put(t testing.TB, w *nettest.World, key string, v any) {
	t.Helper()
	_, err := w.Store.Txn().Put(key, v).Commit(t.Context())
	assert.NilError(t, err)
}

func drop(t testing.TB, w *nettest.World, key string) {
	t.Helper()
	_, err := w.Store.Txn().Delete(key).Commit(t.Context())
	assert.NilError(t, err)
}

// eventually waits for a connection to get through, or not to.
func eventually(t testing.TB, h *nettest.Host, from *nettest.Namespace, protocol, to string, through bool) {
	t.Helper()
	h.Eventually(5*time.Second, fmt.Sprintf("%s to %s gets through is %t", protocol, to, through), func() error {
		_, err := from.Ask(protocol, "", to, 300*time.Millisecond)
		if (err == nil) != through {
			return fmt.Errorf("got: %w", err)
		}
		return nil
	})
}

// A port is published on addresses of both families, with the caller's address
// kept, and on the one address that was chosen.
func TestPublishedPortsOfBothFamilies(t *testing.T) {
	w, h1, h2 := twoDual(t)
	red := dual(t, w, "red", "shop")
	at6 := "2001:db8:77::11"
	web := h1.CreateNetwork(red, nil).Run(
		nettest.Port{Proto: 6, Port: 80, HostPort: 8080}, nettest.Port{Proto: 17, Port: 80, HostPort: 8080},
		nettest.Port{Proto: 6, Port: 80, HostIP: at6, HostPort: 8081}, nettest.Port{Proto: 17, Port: 80, HostIP: at6, HostPort: 8081},
		nettest.Port{Proto: 6, Port: 80, HostIP: h1.Address, HostPort: 8082}, nettest.Port{Proto: 17, Port: 80, HostIP: h1.Address, HostPort: 8082},
		nettest.Port{Proto: 6, Port: 80, HostIP: "::", HostPort: 8083}, nettest.Port{Proto: 17, Port: 80, HostIP: "::", HostPort: 8083},
	)
	web.Serve("0.0.0.0:80")
	web.Serve("[" + web.Address6 + "]:80")
	far := h2.CreateNetwork(dual(t, w, "blue", "bank"), nil).Run()
	v4, v6 := h1.Address, "["+at6+"]"

	assert.Equal(t, w.Outside.Reaches(t, v4+":8080"), "10.77.0.1")
	assert.Equal(t, w.Outside.Reaches(t, v6+":8080"), "2001:db8:77::1")
	w.Outside.Reaches(t, v6+":8081")
	w.Outside.Reaches(t, v4+":8082")
	w.Outside.Reaches(t, v6+":8083")
	for _, to := range []string{v4 + ":8081", v6 + ":8082", v4 + ":8083", v6 + ":80"} {
		w.Outside.NotReaches(t, to)
	}
	h1.Reaches(t, v6+":8080")
	h2.Reaches(t, v6+":8080")
	eventually(t, h2, far.Namespace, "tcp6", v6+":8080", true)
	far.Reaches(t, v4+":8080")
	far.Reaches(t, v6+":8081")
	web.Stop()
	w.Outside.NotReaches(t, v6+":8080")
}

// A rule opens one network to another for what it names and nothing else,
// wherever the containers are, and closes when it goes.
func TestRules(t *testing.T) {
	w, h1, h2 := twoDual(t)
	red, blue := dual(t, w, "red", "shop"), dual(t, w, "blue", "bank")
	a, b := h1.CreateNetwork(red, nil).Run(), h2.CreateNetwork(blue, nil).Run()
	near := h1.CreateNetwork(blue, nil).Run()
	for _, c := range []*nettest.Container{a, b, near} {
		for _, port := range []string{"80", "81"} {
			c.Serve(c.Address + ":" + port)
			c.Serve("[" + c.Address6 + "]:" + port)
		}
	}
	to := func(c *nettest.Container, port string) []string {
		return []string{c.Address + ":" + port, "[" + c.Address6 + "]:" + port}
	}
	key := w.Store.Keys.Rule("one")
	put(t, w, key, record.Rule{From: red.ID, To: blue.ID, Protocol: "tcp", Port: 80})
	for i, family := range []string{"tcp4", "tcp6"} {
		eventually(t, h1, a.Namespace, family, to(b, "80")[i], true)
		eventually(t, h1, a.Namespace, family, to(near, "80")[i], true)
		for _, c := range []*nettest.Container{b, near} {
			_, err := a.Ask(family, "", to(c, "81")[i], nettest.Doubt)
			assert.Check(t, err != nil, "another port")
		}
		_, err := b.Ask(family, "", to(a, "80")[i], nettest.Doubt)
		assert.Check(t, err != nil, "the other way")
	}
	seen, err := a.Ask("tcp4", "", b.Address+":80", nettest.Patience)
	assert.NilError(t, err)
	assert.Equal(t, seen, a.Address)
	_, err = a.Ask("udp4", "", b.Address+":80", nettest.Doubt)
	assert.Check(t, err != nil, "another protocol")

	t.Log("from a range outside")
	put(t, w, w.Store.Keys.Rule("two"), record.Rule{From: "10.77.0.1/32", To: red.ID})
	w.Outside.Run("ip", "route", "add", red.Subnet, "via", h1.Address)
	eventually(t, h1, w.Outside, "tcp4", a.Address+":80", true)
	w.Outside.Reaches(t, a.Address+":81")

	t.Log("a host's own services, for those who need them")
	h2.Serve(h2.Address + ":5000")
	a.NotReaches(t, h2.Address+":5000")
	put(t, w, w.Store.Keys.Rule("three"), record.Rule{From: red.ID, To: h2.Address + "/32", Protocol: "tcp", Port: 5000})
	eventually(t, h1, a.Namespace, "tcp4", h2.Address+":5000", true)

	drop(t, w, key)
	eventually(t, h1, a.Namespace, "tcp4", b.Address+":80", false)
	a.NotReaches(t, b.Address+":80")
}

// A network that is not filtered is open to whoever has a route, keeps its
// containers' addresses on the way out, and reaches no host's own services.
func TestUnfiltered(t *testing.T) {
	w, h1, h2 := twoDual(t)
	wild := dual(t, w, "wild", "lab")
	_, err := registry.Change(t.Context(), w.Store, wild.ID, func(n *record.Network) error { n.Unfiltered = true; return nil })
	assert.NilError(t, err)
	red := dual(t, w, "red", "shop")
	a, b := h1.CreateNetwork(wild, nil).Run(), h1.CreateNetwork(red, nil).Run()
	a.Serve(a.Address + ":80")
	b.Serve(b.Address + ":80")
	w.Outside.Run("ip", "route", "add", wild.Subnet, "via", h1.Address)
	w.Outside.Serve("10.77.0.1:80")
	h1.Serve("0.0.0.0:22")
	h2.Serve("0.0.0.0:22")
	eventually(t, h1, w.Outside, "tcp4", a.Address+":80", true)
	assert.Equal(t, a.Reaches(t, "10.77.0.1:80"), a.Address)
	h1.Reaches(t, a.Address+":80")
	assert.Equal(t, b.Reaches(t, a.Address+":80"), b.Address)
	for _, to := range []string{b.Address + ":80", h1.Address + ":22", h2.Address + ":22", wild.Gateway + ":22"} {
		a.NotReaches(t, to)
	}
}

// A host that is attached is on the network like a container: it is reached
// and reaches, by its own address there, from every host.
func TestMachineOnANetwork(t *testing.T) {
	w, h1, h2 := twoDual(t)
	red, blue := dual(t, w, "red", "shop"), dual(t, w, "blue", "bank")
	a := h1.CreateNetwork(red, nil).Run()
	x := h1.CreateNetwork(blue, nil).Run()
	a.Serve(a.Address + ":80")
	a.Serve("[" + a.Address6 + "]:80")
	h1.NotReaches(t, a.Address+":80")
	for _, h := range []*nettest.Host{h1, h2} {
		put(t, w, w.Store.Keys.Attached(red.ID, h.ID), record.Attached{Host: h.ID, Network: red.ID, Since: time.Now()})
	}
	addresses := map[*nettest.Host][]string{}
	for _, h := range []*nettest.Host{h1, h2} {
		h.Eventually(5*time.Second, "machine's addresses are published", func() error {
			all, _, err := store.List[record.Endpoint](t.Context(), w.Store, w.Store.Keys.Endpoints()+red.ID+"/")
			assert.NilError(t, err)
			addresses[h] = nil
			for _, e := range all {
				if e.Value.Machine && e.Value.Host == h.ID {
					addresses[h] = append(addresses[h], e.Key[strings.LastIndex(e.Key, "/")+1:])
				}
			}
			if len(addresses[h]) != 2 {
				return fmt.Errorf("%d addresses", len(addresses[h]))
			}
			return nil
		})
		for _, text := range addresses[h] {
			ip, family := netip.MustParseAddr(text), "tcp4"
			at := text + ":90"
			target := a.Address + ":80"
			if ip.Is6() {
				at, family, target = "["+text+"]:90", "tcp6", "["+a.Address6+"]:80"
			}
			h.Serve(at)
			eventually(t, h, a.Namespace, family, at, true)
			eventually(t, h, h.Namespace, family, target, true)
			seen, err := h.Ask(family, "", target, nettest.Patience)
			assert.NilError(t, err)
			assert.Equal(t, seen, text, "the host talks as itself on the network")
			x.NotReaches(t, at)
		}
	}
	w.Outside.Run("ip", "route", "add", red.Subnet, "via", h2.Address)
	for _, text := range addresses[h2] {
		if netip.MustParseAddr(text).Is4() {
			w.Outside.NotReaches(t, text+":90")
			h1.Reaches(t, text+":90") // machine to machine
		}
	}
	t.Log("a restart keeps it, detaching takes it away")
	h2.Kill()
	h2.Start()
	h2.Reaches(t, a.Address+":80")
	for _, h := range []*nettest.Host{h1, h2} {
		drop(t, w, w.Store.Keys.Attached(red.ID, h.ID))
		h.Eventually(5*time.Second, "addresses are gone", func() error {
			for _, text := range addresses[h] {
				if strings.Contains(h.Run("ip", "addr", "show", "dev", "lo"), text+"/") {
					return fmt.Errorf("%s is there", text)
				}
			}
			return nil
		})
		h.NotReaches(t, a.Address+":80")
	}
	a.Run("ping", "-c1", "-W2", red.Gateway)
}

// An IPv6-only network works by itself, and a network made by hand with both
// families is one network.
func TestIPv6Networks(t *testing.T) {
	w, h1, h2 := twoDual(t)
	n, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{Name: "six", App: "shop", Egress: "plugin", NoIPv4: true, IPv6: true})
	assert.NilError(t, err)
	a, b := h1.CreateNetwork(&n, nil).Run(), h2.CreateNetwork(&n, nil).Run()
	assert.Equal(t, a.Address, "")
	b.Serve("[" + b.Address6 + "]:80")
	assert.Equal(t, a.Reaches(t, "["+b.Address6+"]:80"), a.Address6)
	w.Outside.Serve("[2001:db8:77::1]:80")
	assert.Equal(t, a.Reaches(t, "[2001:db8:77::1]:80"), "2001:db8:77::11")

	hand, err := h1.TryCreateNetworkByHand(nil, true, true)
	assert.NilError(t, err)
	all, err := registry.List(t.Context(), w.Store)
	assert.NilError(t, err)
	assert.Equal(t, len(all), 2)
	c := hand.Run()
	assert.Equal(t, c.Join.Gateway+c.Join.GatewayIPv6, "", "docker_gwbridge is to be there for IPv4")
	assert.Equal(t, c.Reaches(t, "[2001:db8:77::1]:80"), "2001:db8:77::11", "the way out of IPv6 is ours")
	only, err := h1.TryCreateNetworkByHand(nil, false, true)
	assert.NilError(t, err)
	d := only.Run()
	_, err = d.Ask("tcp6", "", "["+b.Address6+"]:80", nettest.Doubt)
	assert.Check(t, err != nil, "another network")
	hand.Delete()
	only.Delete()
}
