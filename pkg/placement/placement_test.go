package placement

import (
	"fmt"
	"strings"
	"testing"

	"clocker.io/clocker/pkg/model"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

func hosts(n int) []Host {
	out := make([]Host, n)
	for i := range out {
		out[i] = Host{ID: fmt.Sprintf("id%d", i+1), Name: fmt.Sprintf("h%d", i+1), Up: true}
	}
	return out
}

func TestServicesOfOneApplicationSpread(t *testing.T) {
	ds := Place(hosts(3), []Request{{App: "a", Service: "redis"}, {App: "a", Service: "dnmonster"}, {App: "a", Service: "identidock"}})
	seen := map[string]bool{}
	for _, d := range ds {
		assert.NilError(t, d.Err())
		seen[d.Host] = true
	}
	assert.Equal(t, len(seen), 3)
}

func TestRefusalsNameEveryHostAndReason(t *testing.T) {
	hs := hosts(4)
	hs[0].Up = false
	hs[1].Cordoned = true
	hs[2].Ports = map[string]string{"tcp/80": "other/web"}
	d := Place(hs, []Request{{App: "a", Service: "web", Slot: 1, Host: "h3", Ports: []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp"}}}})[0]
	msg := d.Err().Error()
	for _, want := range []string{"no host for web.1", "h1: its agent does not answer", "h2: it is cordoned", "h3: port tcp/80 is taken by other/web", "h4: the service is pinned to host h3"} {
		assert.Assert(t, strings.Contains(msg, want), "%q lacks %q", msg, want)
	}
}

func TestNoHosts(t *testing.T) {
	d := Place(nil, []Request{{App: "a", Service: "web", Slot: 1}})[0]
	assert.ErrorContains(t, d.Err(), "docker clocker host add")
}

func TestPortsOnAddresses(t *testing.T) {
	p := func(ip string) []model.Port {
		return []model.Port{{HostIP: ip, HostPort: 80, ContainerPort: 80, Protocol: "tcp"}}
	}
	// Two addresses of one host do not clash; every address clashes with one.
	ds := Place(hosts(1), []Request{{App: "a", Service: "x", Ports: p("10.0.0.1")}, {App: "a", Service: "y", Ports: p("10.0.0.2")}, {App: "a", Service: "z", Ports: p("")}})
	assert.NilError(t, ds[0].Err())
	assert.NilError(t, ds[1].Err())
	assert.ErrorContains(t, ds[2].Err(), "is taken by a/")
	// UDP and TCP are apart.
	udp := []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "udp"}}
	assert.NilError(t, Place(hosts(1), []Request{{App: "a", Service: "x", Ports: p("")}, {App: "a", Service: "u", Ports: udp}})[1].Err())
}

func TestPreferredHostWins(t *testing.T) {
	hs := hosts(2)
	hs[1].Tasks = []Task{{App: "a", Service: "web"}, {App: "a", Service: "web"}}
	assert.Equal(t, Place(hs, []Request{{App: "a", Service: "web", Prefer: "id2"}})[0].Host, "id2")
}

// Nothing is overbooked: no two decisions of a call share a host port, each
// service is spread as evenly as can be, and the same input gives the same
// output.
func TestPlaceProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hs := hosts(rapid.IntRange(1, 6).Draw(t, "hosts"))
		var rs []Request
		for s := range rapid.IntRange(1, 5).Draw(t, "services") {
			var ports []model.Port
			if rapid.Bool().Draw(t, "port") {
				ports = []model.Port{{HostPort: uint16(rapid.SampledFrom([]int{0, 80, 81}).Draw(t, "hostport")), ContainerPort: 80, Protocol: "tcp"}}
			}
			for i := range rapid.IntRange(1, 8).Draw(t, "replicas") {
				rs = append(rs, Request{App: "a", Service: fmt.Sprint("s", s), Slot: i + 1, Ports: ports})
			}
		}
		ds := Place(hs, rs)
		assert.DeepEqual(t, ds, Place(hs, rs))
		used := map[string]bool{}
		count := map[string]map[string]int{}
		fixed := map[string]bool{}
		for _, d := range ds {
			if len(d.Request.Ports) > 0 && d.Request.Ports[0].HostPort != 0 {
				fixed[d.Request.Service] = true
			}
			if d.Host == "" {
				assert.Assert(t, len(d.Refusals) == len(hs))
				continue
			}
			for _, p := range d.Ports {
				k := d.Host + PortKey(p)
				assert.Assert(t, p.HostPort != 0 && !used[k], k)
				used[k] = true
			}
			if count[d.Request.Service] == nil {
				count[d.Request.Service] = map[string]int{}
			}
			count[d.Request.Service][d.Host]++
		}
		for s, byHost := range count {
			lo, hi := 1<<30, 0
			for _, h := range hs {
				lo, hi = min(lo, byHost[h.ID]), max(hi, byHost[h.ID])
			}
			assert.Assert(t, fixed[s] || hi-lo <= 1, "service %s: %v", s, byHost)
		}
	})
}
