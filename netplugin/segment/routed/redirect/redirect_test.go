package redirect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
)

// site is a host whose kernel forwards nothing: what gets through was
// redirected.
type site struct {
	*nettest.Namespace
	r *Redirect
	// underlay is the index of its interface to the other, inner of those to
	// its containers.
	underlay   int
	inner      []int
	containers []*nettest.Namespace
	addresses  []netip.Addr
}

// sites are two hosts on one link, each with two containers; 10.208.N.2 and
// 10.208.N.3 on host N.
func sites(t *testing.T) (a, b *site) {
	t.Helper()
	a, b = &site{Namespace: nettest.NewNamespace(t)}, &site{Namespace: nettest.NewNamespace(t)}
	pair(t, a.Namespace, b.Namespace, "eth0", "eth0")
	for i, s := range []*site{a, b} {
		s.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", i+1), "dev", "eth0")
		s.underlay = index(t, s.Namespace, "eth0")
		s.Run("sysctl", "-qw", "net.ipv4.ip_forward=0")
		for k := range 2 {
			c := nettest.NewNamespace(t)
			link := fmt.Sprintf("ck%d", k)
			pair(t, s.Namespace, c, link, "eth0")
			address := fmt.Sprintf("10.208.%d.%d", i+1, k+2)
			s.Run("ip", "addr", "add", "169.254.1.1/32", "dev", link)
			s.Run("ip", "route", "add", address, "dev", link)
			c.Run("ip", "addr", "add", address+"/32", "dev", "eth0")
			c.Run("ip", "route", "add", "169.254.1.1", "dev", "eth0")
			c.Run("ip", "route", "add", "default", "via", "169.254.1.1")
			c.Serve(address + ":80")
			s.inner = append(s.inner, index(t, s.Namespace, link))
			s.containers = append(s.containers, c)
			s.addresses = append(s.addresses, addr(address))
		}
		s.Do(func() {
			var err error
			s.r, err = New(s.Handle)
			assert.NilError(t, err)
			assert.NilError(t, s.r.Beat(time.Minute))
		})
		t.Cleanup(s.r.Close)
	}
	return a, b
}

// pair joins two namespaces by a veth pair.
func pair(t *testing.T, one, other *nettest.Namespace, name, peer string) {
	t.Helper()
	var ns netns.NsHandle
	other.Do(func() {
		var err error
		ns, err = netns.Get()
		assert.NilError(t, err)
	})
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	assert.NilError(t, one.Handle.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(int(ns))}))
	one.Run("ip", "link", "set", name, "up")
	other.Run("ip", "link", "set", peer, "up")
}

func index(t *testing.T, n *nettest.Namespace, name string) int {
	t.Helper()
	l, err := n.Handle.LinkByName(name)
	assert.NilError(t, err)
	return l.Attrs().Index
}

// apply redirects between the site's containers, each of the network named,
// and those of the other site.
func (s *site) apply(t *testing.T, other *site, gateway string, networks ...string) {
	t.Helper()
	var ends []End
	// A way that leads to everything, own addresses too, as a wide block may.
	ways := []Way{{Network: networks[0], Dst: prefix("10.208.0.0/16"), Link: s.underlay, Gateway: addr(gateway)}}
	for i, n := range networks {
		ends = append(ends, End{Network: n, Address: s.addresses[i], Link: s.inner[i]})
		ways = append(ways, Way{Network: n, Dst: netip.PrefixFrom(other.addresses[i], 32), Link: s.underlay, Gateway: addr(gateway)})
	}
	s.r.Begin()
	s.Do(func() { assert.NilError(t, s.r.Apply(ends, ways, []int{s.underlay})) })
}

// What is redirected is what may pass, and nothing else.
func TestOnlyOneNetworksOwnPackets(t *testing.T) {
	a, b := sites(t)
	to := func(s *site, i int) string { return s.addresses[i].String() + ":80" }
	t.Run("nothing yet", func(t *testing.T) {
		a.containers[0].NotReaches(t, to(b, 0))
		a.containers[0].NotReaches(t, to(a, 1))
	})
	a.apply(t, b, "192.0.2.2", "red", "red")
	b.apply(t, a, "192.0.2.1", "red", "red")
	t.Run("one network", func(t *testing.T) {
		assert.Equal(t, a.containers[0].Reaches(t, to(b, 0)), a.addresses[0].String())
		assert.Equal(t, b.containers[1].Reaches(t, to(a, 0)), b.addresses[1].String())
		assert.Equal(t, a.containers[0].Reaches(t, to(a, 1)), a.addresses[0].String())
		a.containers[0].Run("ping", "-c1", "-W2", b.addresses[0].String())
	})
	t.Run("a packet that has come far enough", func(t *testing.T) {
		a.containers[0].Run("sh", "-c", "! ping -c1 -W1 -t1 "+b.addresses[0].String())
	})
	t.Run("another's address", func(t *testing.T) {
		c := a.containers[0]
		c.Run("ip", "addr", "add", a.addresses[1].String()+"/32", "dev", "lo")
		_, err := c.Ask("udp4", a.addresses[1].String(), to(b, 0), nettest.Doubt)
		assert.Check(t, err != nil)
		before := received(t, b.containers[0])
		_, _ = c.Ask("udp4", a.addresses[1].String(), to(b, 0), nettest.Doubt)
		assert.Equal(t, received(t, b.containers[0]), before, "a packet with another's address got through")
	})
	t.Run("an address of the host, from outside", func(t *testing.T) {
		b.Run("ip", "addr", "add", a.addresses[1].String()+"/32", "dev", "lo")
		b.Run("ip", "route", "add", a.addresses[0].String(), "via", "192.0.2.1")
		before := received(t, a.containers[0])
		_, _ = b.Ask("udp4", a.addresses[1].String(), to(a, 0), nettest.Doubt)
		assert.Equal(t, received(t, a.containers[0]), before, "a packet with a local address came in")
		b.Run("ip", "addr", "del", a.addresses[1].String()+"/32", "dev", "lo")
	})
	t.Run("two networks", func(t *testing.T) {
		a.apply(t, b, "192.0.2.2", "red", "blue")
		b.apply(t, a, "192.0.2.1", "red", "blue")
		a.containers[0].Reaches(t, to(b, 0))
		a.containers[1].Reaches(t, to(b, 1))
		a.containers[0].NotReaches(t, to(b, 1))
		a.containers[0].NotReaches(t, to(a, 1))
		b.containers[1].NotReaches(t, to(a, 0))
	})
	t.Run("an endpoint that is dropped", func(t *testing.T) {
		assert.NilError(t, b.r.Drop(b.addresses[0]))
		a.containers[0].NotReaches(t, to(b, 0))
		a.containers[1].Reaches(t, to(b, 1))
		// A plan that was begun before does not bring it back.
		b.Do(func() {
			assert.NilError(t, b.r.Apply([]End{{Network: "red", Address: b.addresses[0], Link: b.inner[0]}}, nil, nil))
		})
		_, there := b.r.have[b.addresses[0]]
		assert.Assert(t, !there)
		b.apply(t, a, "192.0.2.1", "red", "blue")
		a.containers[0].Reaches(t, to(b, 0))
	})
	t.Run("a network that is left", func(t *testing.T) {
		assert.NilError(t, b.r.Leave(map[string]bool{"red": true}))
		b.apply(t, a, "192.0.2.1", "red", "blue")
		a.containers[0].NotReaches(t, to(b, 0))
		a.containers[1].Reaches(t, to(b, 1))
		assert.NilError(t, b.r.Leave(nil))
		b.apply(t, a, "192.0.2.1", "red", "blue")
		a.containers[0].Reaches(t, to(b, 0))
	})
	t.Run("no beat", func(t *testing.T) {
		assert.NilError(t, a.r.Beat(0))
		a.containers[1].NotReaches(t, to(b, 1))
		assert.NilError(t, a.r.Beat(time.Minute))
		a.containers[1].Reaches(t, to(b, 1))
	})
	t.Run("closed", func(t *testing.T) {
		a.r.Close()
		a.containers[1].NotReaches(t, to(b, 1))
		assert.NilError(t, Clean(a.Handle))
		qdiscs, err := a.Handle.QdiscList(nil)
		assert.NilError(t, err)
		for _, q := range qdiscs {
			assert.Check(t, q.Attrs().LinkIndex != a.underlay || q.Type() != "clsact", "something is left on the underlay")
		}
	})
}

// received counts the bytes of IP packets that a namespace has been given.
func received(t *testing.T, n *nettest.Namespace) (octets int) {
	t.Helper()
	for line := range strings.Lines(n.Run("cat", "/proc/net/netstat")) {
		if f := strings.Fields(line); f[0] == "IpExt:" && f[1] != "InNoRoutes" {
			_, err := fmt.Sscan(f[7], &octets) // InOctets
			assert.NilError(t, err)
		}
	}
	return octets
}

// A nil Redirect is that of a kernel that cannot.
func TestNone(t *testing.T) {
	var r *Redirect
	assert.NilError(t, r.Apply([]End{{}}, nil, nil))
	assert.NilError(t, r.Drop(addr("10.208.0.5")))
	r.Close()
}
