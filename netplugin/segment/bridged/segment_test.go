package bridged

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// known is a topology that tests write.
type known struct {
	mu sync.Mutex
	t  *topology.Topology
}

func (k *known) Read(f func(*topology.Topology, topology.Knowledge)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k.t, topology.Followed)
}

// bench is two hosts on a link, with a segment each.
type bench struct {
	t     testing.TB
	known *known
	hosts []*benchHost
}

type benchHost struct {
	*nettest.Namespace
	s  *Segment
	id string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, known: &known{t: topology.New()}}
	link := nettest.NewNamespace(t)
	link.Run("ip", "link", "add", "name", "link", "type", "bridge")
	link.Run("ip", "link", "set", "dev", "link", "up")
	for i := range 2 {
		h := &benchHost{Namespace: nettest.NewNamespace(t), id: fmt.Sprintf("host%d", i)}
		address := fmt.Sprintf("10.77.0.%d", 11+i)
		h.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "port")
		link.Take(h.Namespace, "port")
		link.Run("ip", "link", "set", "port", "name", fmt.Sprintf("port%d", i), "master", "link", "up")
		h.Run("ip", "addr", "add", address+"/24", "dev", "eth0")
		h.Run("ip", "link", "set", "eth0", "up")
		h.s = New(Config{
			Host: h.id, Address: netip.MustParseAddr(address), Handle: h.Handle, Remover: h.Handle, Sysctl: "/proc/sys/net", Topology: b.known, Forward6: func() error { return nil },
			Log: slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		t.Cleanup(func() { h.s.aside.Wait() })
		b.known.t.Underlays[h.id] = record.Underlay{Host: h.id, Address: address, MTU: 1500}
		b.hosts = append(b.hosts, h)
	}
	return b
}

type writer struct{ t testing.TB }

func (w writer) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

var both = segment.Network{
	ID: "red", Kind: "bridged", VNI: 4711, MTU: 1450,
	Subnet: netip.MustParsePrefix("10.208.0.0/20"), Gateway: netip.MustParseAddr("10.208.0.1"),
	Subnet6: netip.MustParsePrefix("fd00:1::/64"), Gateway6: netip.MustParseAddr("fd00:1::1"),
}

// container attaches an endpoint and makes a namespace of it.
func (b *bench) container(h *benchHost, n segment.Network, last int) (*nettest.Namespace, segment.Endpoint) {
	b.t.Helper()
	a4 := netip.MustParseAddr(fmt.Sprintf("10.208.0.%d", last))
	a6 := netip.MustParseAddr(fmt.Sprintf("fd00:1::%x", last))
	e := segment.Endpoint{
		ID: strings.Repeat(fmt.Sprintf("%02x", last), 32), Network: n, MAC: segment.MAC(a4),
		Address: netip.PrefixFrom(a4, 20), Address6: netip.PrefixFrom(a6, 64),
	}
	h.Do(func() { assert.NilError(b.t, h.s.Attach(e)) })
	c := nettest.NewNamespace(b.t)
	peer := segment.PeerName(e.ID)
	c.Take(h.Namespace, peer)
	for _, args := range []string{
		"link set " + peer + " name eth0", "addr add " + e.Address.String() + " dev eth0", "addr add " + e.Address6.String() + " dev eth0 nodad",
		"link set eth0 up", "route add default via " + n.Gateway.String(), "-6 route add default via " + n.Gateway6.String(),
	} {
		c.Run("ip", strings.Fields(args)...)
	}
	b.publish(h, e)
	return c, e
}

// publish tells everybody where an endpoint is.
func (b *bench) publish(h *benchHost, e segment.Endpoint) {
	b.known.mu.Lock()
	if b.known.t.Endpoints["red"] == nil {
		b.known.t.Endpoints["red"] = map[netip.Addr]record.Endpoint{}
	}
	for _, a := range e.Addresses() {
		b.known.t.Endpoints["red"][a] = record.Endpoint{Host: h.id, MAC: e.MAC.String(), Endpoint: e.ID}
	}
	b.known.mu.Unlock()
	for _, x := range b.hosts {
		x.s.mu.Lock()
		x.s.everything = true
		x.s.mu.Unlock()
		x.Do(func() { assert.NilError(b.t, x.s.catchUp()) })
	}
}

func command(name string, args ...string) ([]byte, error) {
	return exec.Command(name, args...).CombinedOutput()
}

func pings(c *nettest.Namespace, to string) error {
	var out []byte
	var err error
	c.Do(func() { out, err = command("ping", "-c1", "-W1", "-n", to) })
	if err != nil {
		return fmt.Errorf("ping %s: %w: %s", to, err, out)
	}
	return nil
}

func TestSegmentCarriesFrames(t *testing.T) {
	b := newBench(t)
	for _, h := range b.hosts {
		h.Do(func() { assert.NilError(t, h.s.AddNetwork(both)) })
	}
	a, _ := b.container(b.hosts[0], both, 2)
	_, _ = b.container(b.hosts[0], both, 3)
	c, _ := b.container(b.hosts[1], both, 4)
	for _, to := range []string{"10.208.0.1", "fd00:1::1", "10.208.0.3", "fd00:1::3", "10.208.0.4", "fd00:1::4"} {
		assert.Check(t, pings(a, to))
	}
	for _, to := range []string{"10.208.0.1", "10.208.0.2", "fd00:1::3"} {
		assert.Check(t, pings(c, to))
	}
	for _, h := range b.hosts {
		h.Do(func() {
			found, err := h.s.Check(false)
			assert.NilError(t, err)
			assert.Equal(t, len(found), 0, "%v", found)
		})
	}
}
