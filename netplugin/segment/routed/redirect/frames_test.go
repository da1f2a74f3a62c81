package redirect

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
)

// bridgeless is a host with two containers and a tunnel to the other host, but
// no bridge: what gets through was redirected.
type bridgeless struct {
	*nettest.Namespace
	r          *Redirect
	tunnel     segment.Tunnel
	ports      []segment.Port
	containers []*nettest.Namespace
}

// frameSites are two of them, with 10.208.0.12 and .13 on the first, and .22
// and .23 on the second.
func frameSites(t *testing.T) (a, b *bridgeless) {
	t.Helper()
	a, b = &bridgeless{Namespace: nettest.NewNamespace(t)}, &bridgeless{Namespace: nettest.NewNamespace(t)}
	pair(t, a.Namespace, b.Namespace, "eth0", "eth0")
	for i, s := range []*bridgeless{a, b} {
		s.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		s.Run("sysctl", "-qw", "net.ipv4.ip_forward=0")
		s.Run("ip", "link", "add", "ckx7", "type", "vxlan", "id", "7", "local", fmt.Sprintf("192.0.2.%d", i+1), "dstport", "7483", "nolearning")
		s.Run("ip", "link", "set", "ckx7", "up")
		s.tunnel = segment.Tunnel{Network: "red", VNI: 7, Index: index(t, s.Namespace, "ckx7")}
		for k := range 2 {
			c, link := nettest.NewNamespace(t), fmt.Sprintf("ck%d", k)
			pair(t, s.Namespace, c, link, "eth0")
			address := addr(fmt.Sprintf("10.208.0.%d%d", i+1, k+2))
			p := segment.Port{Network: "red", VNI: 7, Name: link, Index: index(t, s.Namespace, link), Address: address, MAC: [6]byte(segment.MAC(address))}
			c.Run("ip", "link", "set", "eth0", "address", net.HardwareAddr(p.MAC[:]).String())
			c.Run("ip", "addr", "add", address.String()+"/24", "dev", "eth0")
			c.Serve(address.String() + ":80")
			s.containers, s.ports = append(s.containers, c), append(s.ports, p)
		}
		s.Do(func() {
			var err error
			s.r, err = New(s.Handle)
			assert.NilError(t, err)
			assert.NilError(t, s.r.Beat(time.Minute))
		})
		t.Cleanup(s.r.Close)
	}
	for i, s := range []*bridgeless{a, b} {
		other := []*bridgeless{b, a}[i]
		for _, p := range s.ports {
			other.Run("bridge", "fdb", "append", net.HardwareAddr(p.MAC[:]).String(), "dev", "ckx7", "dst", fmt.Sprintf("192.0.2.%d", i+1))
			assert.NilError(t, s.r.Frames().putStation(7, p.MAC, p.Index, true))
			assert.NilError(t, other.r.Frames().putStation(7, p.MAC, other.tunnel.Index, false))
			for _, c := range append(a.containers, b.containers...) {
				c.Run("ip", "neigh", "replace", p.Address.String(), "lladdr", net.HardwareAddr(p.MAC[:]).String(), "dev", "eth0")
			}
		}
	}
	return a, b
}

func (s *bridgeless) apply(t *testing.T, ports ...segment.Port) {
	t.Helper()
	s.r.Frames().begin()
	s.Do(func() { assert.NilError(t, s.r.Frames().apply(ports, []segment.Tunnel{s.tunnel})) })
}

// What is redirected is what the bridge would let pass, and nothing else.
func TestFrames(t *testing.T) {
	a, b := frameSites(t)
	to := func(s *bridgeless, i int) string { return s.ports[i].Address.String() + ":80" }
	t.Run("nothing yet", func(t *testing.T) {
		a.containers[0].NotReaches(t, to(b, 0))
		a.containers[0].NotReaches(t, to(a, 1))
	})
	a.apply(t, a.ports...)
	b.apply(t, b.ports...)
	t.Run("one network", func(t *testing.T) {
		a.containers[0].Reaches(t, to(b, 0))
		b.containers[1].Reaches(t, to(a, 0))
		a.containers[0].Reaches(t, to(a, 1))
		assert.NilError(t, a.containers[1].Ping(b.ports[1].Address.String(), nettest.Patience))
	})
	t.Run("large packets stay whole", func(t *testing.T) {
		b.containers[0].Sink(b.ports[0].Address.String() + ":95")
		before := packetsIn(t, b.containers[0])
		assert.NilError(t, a.containers[0].Deliver(b.ports[0].Address.String()+":95", 8<<20, 2*nettest.Patience))
		// One by one it would be some 6000.
		got := packetsIn(t, b.containers[0]) - before
		assert.Check(t, got < 3000, "%d packets came in", got)
	})
	silent := func(t *testing.T, from *nettest.Namespace, source string) {
		t.Helper()
		before := packetsIn(t, b.containers[0])
		_, _ = from.Ask("udp4", source, to(b, 0), nettest.Doubt)
		assert.Equal(t, packetsIn(t, b.containers[0]), before, "a frame in another's name got through")
	}
	t.Run("another's address", func(t *testing.T) {
		a.containers[0].Run("ip", "addr", "add", a.ports[1].Address.String()+"/32", "dev", "lo")
		silent(t, a.containers[0], a.ports[1].Address.String())
	})
	t.Run("another's hardware address", func(t *testing.T) {
		c := a.containers[1]
		c.Run("ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
		c.Run("ip", "neigh", "replace", b.ports[0].Address.String(), "lladdr", net.HardwareAddr(b.ports[0].MAC[:]).String(), "dev", "eth0")
		silent(t, c, a.ports[1].Address.String())
		c.Run("ip", "link", "set", "eth0", "address", net.HardwareAddr(a.ports[1].MAC[:]).String())
	})
	t.Run("another network", func(t *testing.T) {
		blue := a.ports[0]
		blue.Network, blue.VNI = "blue", 8
		a.apply(t, blue, a.ports[1])
		a.containers[0].NotReaches(t, to(b, 0))
		a.containers[0].NotReaches(t, to(a, 1))
		a.apply(t, a.ports...)
		a.containers[0].Reaches(t, to(b, 0))
	})
	t.Run("a port that is dropped", func(t *testing.T) {
		assert.NilError(t, b.r.Frames().dropPort("ck0"))
		a.containers[0].NotReaches(t, to(b, 0))
		a.containers[0].Reaches(t, to(b, 1))
		b.apply(t, b.ports...)
		a.containers[0].Reaches(t, to(b, 0))
	})
	t.Run("a station that is dropped", func(t *testing.T) {
		assert.NilError(t, a.r.Frames().dropStation(7, b.ports[0].MAC))
		a.containers[0].NotReaches(t, to(b, 0))
		assert.NilError(t, a.r.Frames().putStation(7, b.ports[0].MAC, a.tunnel.Index, false))
		a.containers[0].Reaches(t, to(b, 0))
	})
	t.Run("no beat", func(t *testing.T) {
		assert.NilError(t, a.r.Beat(0))
		a.containers[0].NotReaches(t, to(b, 0))
		assert.NilError(t, a.r.Beat(time.Minute))
		a.containers[0].Reaches(t, to(b, 0))
	})
}

// packetsIn counts the packets that a namespace's link has been given.
func packetsIn(t *testing.T, n *nettest.Namespace) (count int) {
	t.Helper()
	for line := range strings.Lines(n.Run("cat", "/proc/net/snmp")) {
		if f := strings.Fields(line); f[0] == "Ip:" && f[1] != "Forwarding" {
			_, err := fmt.Sscan(f[3], &count) // InReceives
			assert.NilError(t, err)
		}
	}
	return count
}

func TestPlanFrames(t *testing.T) {
	s := policy.State{Endpoints: []policy.Endpoint{
		{Link: "ck1"},
		{Link: "ck2", Ports: []policy.Port{{Protocol: 6, HostPort: 80, Port: 80}}},
		{Link: "ck3"}, // about to publish
		{Link: "ck5"}, // of a network with services
	}}
	var ports []segment.Port
	for i := 1; i <= 5; i++ {
		network := "red"
		if i == 5 {
			network = "balanced"
		}
		ports = append(ports, segment.Port{Network: network, Name: fmt.Sprintf("ck%d", i), Index: i, Address: netip.MustParseAddr("10.208.0.5")})
	}
	gotPorts, gotTunnels := planFrames(s, map[string]bool{"balanced": true}, map[string]bool{"ck3": true}, ports,
		[]segment.Tunnel{{Network: "red", VNI: 1, Index: 11}, {Network: "balanced", VNI: 2, Index: 12}})
	assert.Equal(t, len(gotPorts), 1, "%v", gotPorts)
	assert.Equal(t, gotPorts[0].Name, "ck1")
	assert.DeepEqual(t, gotTunnels, []segment.Tunnel{{Network: "red", VNI: 1, Index: 11}})
}

// Nil Frames are those of a kernel that cannot.
func TestNoFrames(t *testing.T) {
	var r *Redirect
	assert.NilError(t, r.Frames().apply([]segment.Port{{}}, nil))
	assert.NilError(t, r.Frames().putStation(1, [6]byte{}, 1, true))
	assert.NilError(t, r.Frames().dropStation(1, [6]byte{}))
	assert.NilError(t, r.Frames().dropPort("ck0"))
}
