package main

import (
	"fmt"
	"math"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
)

// A port of every host leads to every replica, from outside, from containers
// and from hosts themselves.
func TestEveryHostAnswers(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2, h3 := w.AddHost(), w.AddHost(), w.AddHost()
	red := network(t, w, "red", "plugin", false)
	on1, on2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil)
	var all []named
	for i, n := range []*nettest.Network{on1, on2, on2} {
		c := n.Run()
		answer(t, c.Namespace, fmt.Sprint("r", i), ":80")
		all = append(all, publish(t, w, c, red.ID, "web", fmt.Sprint("web-", i)))
	}
	port := func(host string, number uint16) record.Published {
		p := record.Published{App: "app", Service: "web", Network: red.ID, HostIP: host, Protocol: "tcp", HostPort: number, Port: 80}
		_, err := w.Store.Txn().Put(w.Store.Keys.Published("tcp", number), p).Commit(t.Context())
		assert.NilError(t, err)
		return p
	}
	port("", 8080)
	port(h1.Address, 8081)
	_, err := w.Store.Txn().Put(w.Store.Keys.Published("udp", 8080), record.Published{
		App: "app", Service: "web", Network: red.ID, Protocol: "udp", HostPort: 8080, Port: 80,
	}).Commit(t.Context())
	assert.NilError(t, err)

	// spread asks until all replicas have answered, then counts.
	spread := func(from *nettest.Namespace, protocol, to string, replicas, n int) map[string]int {
		t.Helper()
		h1.Eventually(5*time.Second, "all replicas answer "+to, func() error {
			seen := map[string]bool{}
			for range 40 {
				name, _, err := once(from, protocol, to)
				if err != nil {
					return err
				}
				seen[name] = true
			}
			if len(seen) != replicas {
				return fmt.Errorf("%v answer", seen)
			}
			return nil
		})
		counts := map[string]int{}
		for range n {
			name, _, err := once(from, protocol, to)
			assert.NilError(t, err)
			counts[name]++
		}
		return counts
	}
	for _, h := range []*nettest.Host{h1, h2, h3} {
		for _, protocol := range []string{"tcp4", "udp4"} {
			const n = 300
			counts, chi := spread(w.Outside, protocol, h.Address+":8080", 3, n), 0.0
			for _, c := range counts {
				chi += math.Pow(float64(c)-n/3, 2) / (n / 3)
			}
			assert.Assert(t, chi < 20, "%s %s: %v, chi square %.1f", h.ID, protocol, counts, chi)
		}
	}
	t.Run("the client's address is kept where the replica is", func(t *testing.T) {
		for _, h := range []*nettest.Host{h1, h2} {
			for range 30 {
				name, seen, err := once(w.Outside, "tcp4", h.Address+":8080")
				assert.NilError(t, err)
				if local := name == "r0"; local == (h == h1) {
					assert.Equal(t, seen, "10.77.0.1", "%s, asked at %s", name, h.ID)
				} else {
					assert.Equal(t, seen, h.Address, "%s, asked at %s", name, h.ID)
				}
			}
		}
	})
	t.Run("from containers and hosts", func(t *testing.T) {
		spread(all[0].Namespace, "tcp4", h1.Address+":8080", 3, 0)
		spread(all[1].Namespace, "tcp4", h3.Address+":8080", 3, 0)
		spread(h1.Namespace, "tcp4", h1.Address+":8080", 3, 0)
		spread(h1.Namespace, "tcp4", h3.Address+":8080", 3, 0)
		// A host that another one chose gives the connection to its own.
		counts := spread(h3.Namespace, "tcp4", h2.Address+":8080", 2, 50)
		assert.Equal(t, counts["r0"], 0)
	})
	t.Run("one address", func(t *testing.T) {
		spread(w.Outside, "tcp4", h1.Address+":8081", 3, 0)
		_, _, err := once(w.Outside, "tcp4", h3.Address+":8081")
		assert.ErrorContains(t, err, "refused")
	})
	t.Run("nothing else on the host gets the port", func(t *testing.T) {
		_, err := h3.TryCreateNetwork(red, nil)
		assert.NilError(t, err)
		h3.Do(func() {
			_, err = listenTCP("0.0.0.0:8080")
		})
		assert.ErrorContains(t, err, "in use")
	})
	t.Run("a replica less, and none", func(t *testing.T) {
		all[0].hide(t, w)
		spread(w.Outside, "tcp4", h3.Address+":8080", 2, 0)
		spread(w.Outside, "tcp4", h1.Address+":8080", 2, 0)
		all[1].hide(t, w)
		all[2].hide(t, w)
		for _, h := range []*nettest.Host{h1, h2, h3} {
			h.Eventually(2*time.Second, "refused", func() error {
				_, _, err := once(w.Outside, "tcp4", h.Address+":8080")
				if err == nil {
					return fmt.Errorf("answered")
				}
				return nil
			})
		}
	})
}
