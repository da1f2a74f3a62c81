package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
)

// asPlugin in the environment makes the test binary be the plugin.
const asPlugin = "CLOCKER_TEST_AS_PLUGIN"

func TestMain(m *testing.M) {
	if os.Getenv(asPlugin) != "" {
		if err := run(os.Args[1:]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func plugin(args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), asPlugin+"=1", "CLOCKER_LOG_LEVEL=debug")
	return c
}

// network makes a network of the fleet, as the controller does.
func network(t testing.TB, w *nettest.World, name, egress string, internal bool) *record.Network {
	t.Helper()
	n, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{Name: name, App: "app", Egress: egress, Internal: internal})
	assert.NilError(t, err)
	return &n
}

// Containers of one network reach each other wherever they are, and nobody
// else reaches them.
func TestNetworkIsWholeAndClosed(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red, blue := network(t, w, "red", "plugin", false), network(t, w, "blue", "plugin", false)
	red1, red2, blue1 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil), h1.CreateNetwork(blue, nil)
	a, b, c := red1.Run(), red1.Run(), red2.Run()
	x := blue1.Run()
	for _, n := range []*nettest.Container{a, b, c, x} {
		n.Serve(n.Address + ":80")
	}
	h1.Serve("0.0.0.0:22")
	h1.Serve("0.0.0.0:81")
	h2.Serve(h2.Address + ":81")
	w.Outside.Serve("10.77.0.1:80")

	t.Run("same network, same host", func(t *testing.T) {
		assert.Equal(t, a.Reaches(t, b.Address+":80"), a.Address)
	})
	t.Run("same network, other host", func(t *testing.T) {
		assert.Equal(t, a.Reaches(t, c.Address+":80"), a.Address)
		assert.Equal(t, c.Reaches(t, b.Address+":80"), c.Address)
	})
	t.Run("other network", func(t *testing.T) {
		x.NotReaches(t, a.Address+":80")
		x.NotReaches(t, c.Address+":80")
		c.NotReaches(t, x.Address+":80")
	})
	t.Run("from outside, by the right route", func(t *testing.T) {
		w.Outside.Run("ip", "route", "add", red.Subnet, "via", h1.Address)
		w.Outside.NotReaches(t, a.Address+":80")
		w.Outside.NotReaches(t, c.Address+":80")
	})
	t.Run("from outside, with a container's address", func(t *testing.T) {
		w.Outside.Run("ip", "addr", "add", c.Address+"/32", "dev", "lo")
		_, err := w.Outside.Ask("udp4", c.Address, a.Address+":80", nettest.Doubt)
		assert.Check(t, err != nil, "an answer came")
		w.Outside.Run("ip", "addr", "add", b.Address+"/32", "dev", "lo")
		before := counter(t, h1, "guard")
		_, _ = w.Outside.Ask("udp4", b.Address, a.Address+":80", nettest.Doubt)
		assert.Check(t, counter(t, h1, "guard") > before, "a local container's address was taken from outside")
	})
	t.Run("with another container's address", func(t *testing.T) {
		a.Run("ip", "addr", "add", x.Address+"/32", "dev", "lo")
		before := counter(t, h1, "sender")
		_, err := a.Ask("udp4", x.Address, c.Address+":80", nettest.Doubt)
		assert.Check(t, err != nil, "an answer came")
		assert.Check(t, counter(t, h1, "sender") > before, "the packet was not dropped where it came from")
	})
	t.Run("the host's own services", func(t *testing.T) {
		for _, to := range []string{h1.Address + ":22", red.Gateway + ":22", red.Gateway + ":81", blue.Gateway + ":22"} {
			a.NotReaches(t, to)
		}
	})
	t.Run("the host to a container", func(t *testing.T) {
		h1.NotReaches(t, a.Address+":80")
	})
	t.Run("DNS on the host", func(t *testing.T) {
		h1.Run("ip", "addr", "add", hostconfig.DNSAddress+"/32", "dev", "lo", "scope", "host")
		h1.Serve(hostconfig.DNSAddress + ":53")
		assert.Equal(t, a.Reaches(t, hostconfig.DNSAddress+":53"), a.Address)
		a.NotReaches(t, hostconfig.DNSAddress+":81")
	})
	t.Run("the gateway answers pings", func(t *testing.T) {
		a.Run("ping", "-c1", "-W2", red.Gateway)
	})
	t.Run("the way out", func(t *testing.T) {
		assert.Equal(t, a.Reaches(t, "10.77.0.1:80"), h1.Address)
		assert.Equal(t, c.Reaches(t, "10.77.0.1:80"), h2.Address)
		w.Outside.Run("ip", "addr", "add", "169.254.169.254/32", "dev", "link")
		w.Outside.Serve("169.254.169.254:80")
		a.NotReaches(t, "169.254.169.254:80")
	})
}

// counter is how many packets a chain has dropped.
func counter(t *testing.T, h *nettest.Host, chain string) int {
	t.Helper()
	var list struct {
		Nftables []struct {
			Rule *struct {
				Expr []map[string]json.RawMessage `json:"expr"`
			} `json:"rule"`
		} `json:"nftables"`
	}
	assert.NilError(t, json.Unmarshal([]byte(h.Run("nft", "-j", "list", "chain", "inet", "clocker", chain)), &list))
	sum := 0
	for _, x := range list.Nftables {
		if x.Rule == nil {
			continue
		}
		for _, e := range x.Rule.Expr {
			var c struct{ Packets int }
			if raw, ok := e["counter"]; ok && json.Unmarshal(raw, &c) == nil {
				sum += c.Packets
			}
		}
	}
	return sum
}

// An internal network has no way out, and names are still asked for.
func TestInternalNetwork(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	n := network(t, w, "inner", "plugin", true)
	a, b := h1.CreateNetwork(n, nil).Run(), h2.CreateNetwork(n, nil).Run()
	b.Serve(b.Address + ":80")
	w.Outside.Serve("10.77.0.1:80")
	h1.Run("ip", "addr", "add", hostconfig.DNSAddress+"/32", "dev", "lo", "scope", "host")
	h1.Serve(hostconfig.DNSAddress + ":53")
	a.Reaches(t, b.Address+":80")
	a.Reaches(t, hostconfig.DNSAddress+":53")
	assert.Equal(t, a.Join.Gateway, "")
	assert.Check(t, a.Join.DisableGatewayService)
	a.Run("ip", "route", "add", "default", "via", n.Gateway)
	a.NotReaches(t, "10.77.0.1:80")
}

// A published port is reached from wherever the host's address is, and
// nothing else of the container is.
func TestPublishedPorts(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red, blue := network(t, w, "red", "plugin", false), network(t, w, "blue", "plugin", false)
	n1 := h1.CreateNetwork(red, nil)
	web := n1.Run(
		nettest.Port{Proto: 6, Port: 80, HostPort: 8080}, nettest.Port{Proto: 17, Port: 80, HostPort: 8080},
		nettest.Port{Proto: 6, Port: 80, HostIP: "127.0.0.1", HostPort: 8081}, nettest.Port{Proto: 17, Port: 80, HostIP: "127.0.0.1", HostPort: 8081},
		nettest.Port{Proto: 6, Port: 80, HostPort: 53}, nettest.Port{Proto: 17, Port: 80, HostPort: 53},
	)
	web.Serve("0.0.0.0:80")
	web.Serve("0.0.0.0:90")
	near, far, other := n1.Run(), h2.CreateNetwork(red, nil).Run(), h1.CreateNetwork(blue, nil).Run()
	public, private := h1.Address+":8080", "127.0.0.1:8081"

	t.Run("from outside", func(t *testing.T) {
		assert.Equal(t, w.Outside.Reaches(t, public), "10.77.0.1")
		w.Outside.NotReaches(t, h1.Address+":8081")
		w.Outside.NotReaches(t, h1.Address+":90")
	})
	t.Run("from another host", func(t *testing.T) { h2.Reaches(t, public) })
	t.Run("from the host itself", func(t *testing.T) {
		h1.Reaches(t, public)
		h1.Reaches(t, "127.0.0.1:8080")
		h1.Reaches(t, private)
	})
	t.Run("from containers", func(t *testing.T) {
		for _, c := range []*nettest.Container{near, far, other, web} {
			c.Reaches(t, public)
		}
		near.NotReaches(t, h1.Address+":8081")
	})
	t.Run("DNS cannot be published over", func(t *testing.T) {
		h1.Run("ip", "addr", "add", hostconfig.DNSAddress+"/32", "dev", "lo", "scope", "host")
		h1.Serve(hostconfig.DNSAddress + ":53")
		assert.Equal(t, near.Reaches(t, hostconfig.DNSAddress+":53"), near.Address)
	})
	t.Run("a port is published once", func(t *testing.T) {
		_, err := n1.TryRun(nettest.Port{Proto: 6, Port: 80, HostPort: 8080})
		assert.ErrorContains(t, err, "publish port 0.0.0.0:8080->80/tcp")
		assert.ErrorContains(t, err, "address already in use")
	})
	t.Run("a port in use is not published", func(t *testing.T) {
		h1.Serve("0.0.0.0:9999")
		_, err := n1.TryRun(nettest.Port{Proto: 6, Port: 80, HostPort: 9999})
		assert.ErrorContains(t, err, "address already in use")
	})
	t.Run("the plugin is killed", func(t *testing.T) {
		h1.Kill()
		w.Outside.Reaches(t, public)
		h1.Start()
		w.Outside.Reaches(t, public)
		_, err := n1.TryRun(nettest.Port{Proto: 6, Port: 80, HostPort: 8080})
		assert.ErrorContains(t, err, "address already in use")
	})
	t.Run("withdrawn when the container stops", func(t *testing.T) {
		flow := w.Outside.Dial("udp4", public)
		flow.Answers(t)
		web.Stop()
		w.Outside.NotReaches(t, public)
		again := n1.Run(nettest.Port{Proto: 6, Port: 80, HostPort: 8080}, nettest.Port{Proto: 17, Port: 80, HostPort: 8080})
		again.Serve("0.0.0.0:80")
		w.Outside.Reaches(t, public)
		flow.Answers(t) // a flow that goes on must follow
	})
}

// Whatever ends, what runs goes on, and what was lost comes back.
func TestPluginEndsAndStarts(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red := network(t, w, "red", "plugin", false)
	n1, n2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil)
	a, b := n1.Run(), n2.Run()
	for _, c := range []*nettest.Container{a, b} {
		c.Serve(c.Address + ":80")
	}
	a.Reaches(t, b.Address+":80")

	h1.Kill()
	w.Etcd.Stop()
	a.Reaches(t, b.Address+":80")
	h1.Start()
	a.Reaches(t, b.Address+":80")
	t.Log("without etcd, a container starts and stops")
	c := n1.Run()
	c.Serve(c.Address + ":80")
	a.Reaches(t, c.Address+":80")
	b.Reaches(t, c.Address+":80")
	c.Stop()
	a.Stop()
	w.Etcd.Start()

	t.Log("what others remove is put back")
	a = n1.Run()
	a.Serve(a.Address + ":80")
	h1.Run("nft", "flush", "ruleset")
	h1.Run("ip", "route", "flush", "proto", "142")
	h1.Run("ip", "addr", "del", red.Gateway+"/32", "dev", "lo")
	h1.Eventually(5*time.Second, "repaired", func() error {
		_, err := b.Ask("tcp4", "", a.Address+":80", 200*time.Millisecond)
		if err == nil && !strings.Contains(h1.Run("nft", "list", "ruleset"), "chain entering") {
			err = fmt.Errorf("no packet filter")
		}
		return err
	})
	h1.Run("nft", "add table ip filter; add chain ip filter DOCKER-USER; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add rule ip filter FORWARD jump DOCKER-USER; add rule ip filter DOCKER-USER return")
	h1.Eventually(5*time.Second, "DOCKER-USER", func() error {
		_, err := b.Ask("tcp4", "", a.Address+":80", 200*time.Millisecond)
		return err
	})
	h2.Kill()
	h2.Start()
	a.Reaches(t, b.Address+":80")
}

// Nothing is left of what was taken away, nor, after a kill, of anything once
// the host has been cleaned.
func TestNothingIsLeft(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h := w.AddHost()
	h.Eventually(5*time.Second, "DOCKER-USER", func() error {
		if !strings.Contains(h.Run("nft", "list", "chain", "ip", "filter", "DOCKER-USER"), "ck*") {
			return fmt.Errorf("no rules yet")
		}
		if !strings.Contains(h.Run("nft", "list", "ruleset"), "elements = { "+h.Address+" }") {
			return fmt.Errorf("the host has not heard of itself yet")
		}
		return nil
	})
	before := kernel(h)
	red := dual(t, w, "red", "app")
	n := h.CreateNetwork(red, nil)
	var all []*nettest.Container
	for i := range 5 {
		all = append(all, n.Run(nettest.Port{Proto: 6, Port: 80, HostPort: uint16(8000 + i)}))
	}
	for _, c := range all {
		c.Stop()
	}
	n.Delete()
	h.Eventually(10*time.Second, "as before", func() error { return same(before, kernel(h)) })
	for _, dir := range []string{"networks", "endpoints"} {
		left, err := os.ReadDir(h.Dir + "/state/net/docker/" + dir)
		assert.NilError(t, err)
		assert.Equal(t, len(left), 0)
	}

	bare, fresh := w.AddBareHost(), ""
	h.Eventually(10*time.Second, "the link carries", func() error {
		fresh = kernel(bare)
		if !strings.Contains(fresh, "fe80::/64 dev eth0") || !strings.Contains(fresh, "multicast ff00::/8 dev eth0") || strings.Contains(fresh, "NO-CARRIER") {
			return errors.New(fresh)
		}
		return nil
	})
	n = h.CreateNetwork(red, nil)
	n.Run(nettest.Port{Proto: 6, Port: 80, HostPort: 8000})
	h.Kill()
	h.Do(func() { assert.NilError(t, clean(h)) })
	left := kernel(h)
	// The hosts differ by their own addresses only.
	assert.NilError(t, same(fresh, strings.ReplaceAll(left, h.Address, "10.77.0.12")))
}

// Before a host is adopted the plugin answers, and says what to do.
func TestUnadoptedHost(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h := w.AddBareHost()
	h.Start()
	_, err := h.TryCreateNetwork(nil, nil)
	assert.ErrorContains(t, err, hostconfig.ErrNotAdopted.Error())
	h.Call("NetworkDriver.DeleteNetwork", map[string]string{"NetworkID": "unknown"}, nil)
	h.Call("IpamDriver.GetDefaultAddressSpaces", nil, nil)
	h.Adopt()
	h.Eventually(10*time.Second, "serves the fleet", func() error {
		_, err := h.TryCreateNetwork(nil, nil)
		return err
	})
}

// A plugin that cannot start says why, and starts when it can.
func TestBrokenConfiguration(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h := w.AddBareHost()
	h.Adopt()
	path := h.Dir + "/etc/host.json"
	good, err := os.ReadFile(path)
	assert.NilError(t, err)
	var c hostconfig.Config
	assert.NilError(t, json.Unmarshal(good, &c))
	c.Etcd, c.CAFile = []string{"https://10.77.0.1:1"}, "missing.pem"
	bad, err := json.Marshal(c)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(path, bad, 0o600))
	h.Start()
	_, err = h.TryCreateNetwork(nil, nil)
	assert.ErrorContains(t, err, "the network plugin cannot serve the fleet: read fleet CA")
	assert.NilError(t, os.WriteFile(path, good, 0o600))
	h.Eventually(10*time.Second, "serves the fleet", func() error {
		_, err := h.TryCreateNetwork(nil, nil)
		return err
	})
}

// Many containers that start at once all work.
func TestManyAtOnce(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red := network(t, w, "red", "plugin", false)
	n1, n2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil)
	server := n2.Run()
	server.Serve(server.Address + ":80")
	const n = 30
	var wg sync.WaitGroup
	containers := make([]*nettest.Container, n)
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() {
			containers[i], errs[i] = n1.TryRun(nettest.Port{Proto: 6, Port: 80, HostPort: uint16(8000 + i)})
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, c := range containers {
		assert.NilError(t, errs[i])
		assert.Equal(t, c.Reaches(t, server.Address+":80"), c.Address)
		seen[c.Address] = true
	}
	assert.Equal(t, len(seen), n, "addresses given twice")
	for _, c := range containers {
		wg.Go(c.Stop)
	}
	wg.Wait()
	h1.Eventually(5*time.Second, "links are gone", func() error {
		if left := h1.Run("ip", "-br", "link", "show", "type", "veth"); strings.Contains(left, "\nck") {
			return fmt.Errorf("left: %s", left)
		}
		return nil
	})
}
