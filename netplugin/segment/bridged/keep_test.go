package bridged

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/pkg/record"
)

// pair is a bench with a container on each host.
func pair(t *testing.T, n segment.Network) (b *bench, here, there *nettest.Namespace, e segment.Endpoint) {
	t.Helper()
	b = newBench(t)
	for _, h := range b.hosts {
		h.Do(func() { assert.NilError(t, h.s.AddNetwork(n)) })
	}
	here, e = b.container(b.hosts[0], n, 2)
	there, _ = b.container(b.hosts[1], n, 4)
	return b, here, there, e
}

// Connections to a service's address are the host's to spread, and an answer
// that comes straight from the replica is translated back on its way.
func TestServicesAreHandedUp(t *testing.T) {
	b, here, _, _ := pair(t, both)
	b.container(b.hosts[0], both, 3)
	b.known.mu.Lock()
	b.known.t.Services["red"] = map[netip.Addr]record.Service{}
	for _, a := range []string{"10.208.1.1", "10.208.1.2", "fd00:1::101"} {
		b.known.t.Services["red"][netip.MustParseAddr(a)] = record.Service{App: "app", Service: a}
	}
	b.known.mu.Unlock()
	h := b.hosts[0]
	h.s.recheck()
	h.Do(func() { assert.NilError(t, h.s.catchUp()) })
	h.Set("ipv4/ip_forward", "1")
	h.Set("ipv6/conf/all/forwarding", "1")
	for _, to := range [][2]string{{"10.208.1.1", "10.208.0.3"}, {"10.208.1.2", "10.208.0.4"}, {"fd00:1::101", "fd00:1::4"}} {
		assert.Check(t, pings(here, to[0]) != nil, "%s answers although nobody is behind it", to[0])
		family := "ip"
		if strings.Contains(to[0], ":") {
			family = "ip6"
		}
		h.Run("nft", fmt.Sprintf("add table %s t; add chain %[1]s t c { type nat hook prerouting priority dstnat; }; add rule %[1]s t c %[1]s daddr %[2]s dnat to %[3]s", family, to[0], to[1]))
		assert.Check(t, pings(here, to[0]))
	}
}

// What an earlier run left is taken over as it is, but for what nobody has.
func TestAdopt(t *testing.T) {
	b, here, there, e := pair(t, both)
	_, stray := b.container(b.hosts[0], both, 9)
	h := b.hosts[0]
	lost := e
	lost.ID, lost.Address, lost.Address6 = strings.Repeat("77", 32), netip.MustParsePrefix("10.208.0.77/20"), netip.Prefix{}
	old := h.s
	h.s = New(old.Config)
	h.Do(func() {
		gone, err := h.s.Adopt([]segment.Network{both}, []segment.Endpoint{e, lost})
		assert.NilError(t, err)
		assert.Equal(t, len(gone), 1)
		assert.Equal(t, gone[0].ID, lost.ID)
		_, err = h.s.Check(true)
		assert.NilError(t, err)
		found, err := h.s.Check(false)
		assert.NilError(t, err)
		assert.Equal(t, len(found), 0, "%v", found)
	})
	assert.Check(t, pings(here, "10.208.0.4"))
	assert.Check(t, pings(there, "fd00:1::2"))
	rules := h.Run("nft", "list", "table", "bridge", TableName)
	assert.Check(t, strings.Contains(rules, segment.LinkName(e.ID)) && !strings.Contains(rules, segment.LinkName(stray.ID)), rules)
}

// What something else took away or added is found, told, and mended.
func TestCheck(t *testing.T) {
	b, here, _, e := pair(t, both)
	h := b.hosts[0]
	bridge, tunnel, link := segment.BridgeName(both.VNI), segment.TunnelName(both.VNI), segment.LinkName(e.ID)
	for _, harm := range []struct{ command, found string }{
		{"ip neigh del 10.208.0.4 dev " + bridge, "entry is missing"},
		{"bridge fdb del 02:42:0a:d0:00:04 dev " + tunnel + " master", "entry is missing"},
		{"bridge fdb replace 02:42:0a:d0:00:04 dev " + tunnel + " dst 10.77.0.99 self", "entry is missing"},
		{"bridge fdb add 02:00:00:00:00:99 dev " + tunnel + " dst 10.77.0.99 self", "belongs to nothing"},
		{"bridge fdb add 02:00:00:00:00:99 dev " + tunnel + " master static", "belongs to nothing"},
		{"ip neigh add 10.208.0.99 lladdr 02:00:00:00:00:99 dev " + bridge, "belongs to nothing"},
		{"ip link del " + tunnel, "is gone"},
		{"ip link set " + bridge + " down", "is down"},
		{"ip link del " + bridge, "is gone"},
		{"ip link set " + link + " nomaster", ""},
		{"nft delete table bridge " + TableName, "packet filter"},
	} {
		args := strings.Fields(harm.command)
		h.Run(args[0], args[1:]...)
		h.Do(func() {
			found, err := h.s.Check(false)
			assert.NilError(t, err, harm.command)
			assert.Check(t, harm.found == "" || len(found) > 0 && strings.Contains(found[0].Text+found[len(found)-1].Text, harm.found), "%s: %v", harm.command, found)
			_, err = h.s.Check(true)
			assert.NilError(t, err, harm.command)
			found, err = h.s.Check(false)
			assert.NilError(t, err)
			assert.Check(t, len(found) == 0, "%s: %v", harm.command, found)
		})
		assert.Check(t, pings(here, "10.208.0.4"), harm.command)
		assert.Check(t, pings(here, "fd00:1::4"), harm.command)
	}
}

// Broadcasts reach all of a network that asks for them, and nobody else's.
func TestBroadcast(t *testing.T) {
	for _, wanted := range []bool{true, false} {
		n := both
		n.Broadcast = wanted
		_, here, there, _ := pair(t, n)
		there.Set("ipv4/icmp_echo_ignore_broadcasts", "0")
		var err error
		for end := time.Now().Add(60 * time.Second); ; {
			here.Do(func() { _, err = command("ping", "-b", "-c1", "-W1", "-n", "10.208.15.255") })
			if err == nil || !wanted || time.Now().After(end) {
				break
			}
		}
		assert.Check(t, (err == nil) == wanted, "broadcast wanted: %v: %v", wanted, err)
	}
}

// An address that moves is where the newer record says.
func TestMove(t *testing.T) {
	b, here, there, e := pair(t, both)
	moved := segment.Endpoint{ID: strings.Repeat("05", 32), Network: both, MAC: e.MAC, Address: e.Address, Address6: e.Address6}
	first, second := b.hosts[0], b.hosts[1]
	second.Do(func() { assert.NilError(t, second.s.Attach(moved)) })
	c := nettest.NewNamespace(t)
	peer := segment.PeerName(moved.ID)
	c.Take(second.Namespace, peer)
	c.Run("ip", "link", "set", peer, "name", "eth0", "up")
	c.Run("ip", "addr", "add", e.Address.String(), "dev", "eth0")
	// The first host has told etcd of its endpoint, and now there is a newer
	// record.
	first.s.mu.Lock()
	n := first.s.networks[both.ID]
	first.s.mu.Unlock()
	for a, l := range n.here {
		l.told = true
		n.here[a] = l
	}
	other, _ := b.container(first, both, 6)
	b.publish(second, moved)
	assert.Check(t, pings(other, "10.208.0.2"))
	assert.Check(t, pings(there, "10.208.0.2"))
	assert.Check(t, pings(here, "10.208.0.4") != nil, "who has lost the address goes on with it")
	first.Do(func() { first.s.Detach(e) })
	assert.Check(t, pings(other, "10.208.0.2"))
}

// A network that is removed leaves nothing.
func TestRemove(t *testing.T) {
	b, _, _, e := pair(t, both)
	h := b.hosts[0]
	h.Do(func() {
		h.s.Detach(e)
		h.s.RemoveNetwork(both.ID)
	})
	deadline := time.Now().Add(60 * time.Second)
	for strings.Contains(h.Run("nft", "list", "tables"), "bridge") {
		assert.Assert(t, time.Now().Before(deadline), "the packet filter is still there")
	}
	assert.ErrorContains(t, h.s.Attach(e), "is not on this host")
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	h := b.hosts[0]
	none, secret, taken := both, both, both
	none.VNI, secret.Carrier, taken.Subnet = 0, "wireguard", netip.MustParsePrefix("10.77.0.0/20")
	for _, x := range []struct {
		n    segment.Network
		want error
	}{{none, ErrNoVNI}, {secret, ErrEncrypted}, {taken, segment.ErrRouteTaken}} {
		h.Do(func() { assert.ErrorIs(t, h.s.AddNetwork(x.n), x.want) })
	}
	assert.Check(t, !strings.Contains(h.Run("ip", "-br", "link"), segment.BridgePrefix))
}

// A host that is on the network itself is a neighbour of all its containers.
func TestMachine(t *testing.T) {
	b, here, there, _ := pair(t, both)
	h := b.hosts[0]
	addrs := []netip.Addr{netip.MustParseAddr("10.208.2.1"), netip.MustParseAddr("fd00:1::201")}
	b.known.mu.Lock()
	for _, a := range addrs {
		b.known.t.Endpoints["red"][a] = record.Endpoint{Host: h.id, MAC: segment.MAC(a).String(), Machine: true}
	}
	b.known.mu.Unlock()
	for _, x := range b.hosts {
		x.s.recheck()
		x.Do(func() {
			if x == h {
				assert.NilError(t, x.s.SetMachine("red", addrs))
			}
			assert.NilError(t, x.s.catchUp())
		})
	}
	for _, a := range addrs {
		assert.Check(t, pings(here, a.String()))
		assert.Check(t, pings(there, a.String()))
	}
	assert.Check(t, pings(h.Namespace, "10.208.0.4"), "the host by itself")
	h.Do(func() {
		found, err := h.s.Check(false)
		assert.NilError(t, err)
		assert.Equal(t, len(found), 0, "%v", found)
		assert.NilError(t, h.s.SetMachine("red", nil))
	})
	assert.Check(t, pings(there, "10.208.2.1") != nil)
}
