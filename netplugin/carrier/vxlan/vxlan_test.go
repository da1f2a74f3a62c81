package vxlan

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
)

// end is a host with the carrier, and with addresses as of a container.
type end struct {
	*nettest.Host
	*Carrier
	v4, v6 string
}

func newEnd(t *testing.T, h *nettest.Host) *end {
	t.Helper()
	e := &end{Host: h, v4: "10.208.0." + h.ID[4:], v6: "fd00:208::" + h.ID[4:]}
	e.Carrier = New(Config{
		Host: h.ID, Address: netip.MustParseAddr(h.Address), Handle: h.Handle, Sysctl: "/proc/sys/net", Log: slog.New(slog.DiscardHandler),
	})
	h.Set("ipv4/ip_forward", "1")
	h.Set("ipv6/conf/all/forwarding", "1")
	h.Run("ip", "addr", "add", e.v4+"/32", "dev", "lo", "scope", "host")
	h.Run("ip", "addr", "add", e.v6+"/128", "dev", "lo")
	return e
}

func (e *end) peer(t *testing.T) carrier.Peer {
	t.Helper()
	u, err := underlay.Look(e.Handle, netip.MustParseAddr(e.Address), func(int, string) bool { return false })
	assert.NilError(t, err)
	u.Host = e.ID
	p, err := carrier.PeerOf(u, nil)
	assert.NilError(t, err)
	return p
}

// sync makes the others reachable, with routes to their containers.
func (e *end) sync(t *testing.T, others ...*end) {
	t.Helper()
	var peers []carrier.Peer
	for _, o := range others {
		peers = append(peers, o.peer(t))
	}
	var err error
	e.Do(func() { err = e.Sync(peers) })
	assert.NilError(t, err)
	for i, o := range others {
		hop, err := e.Hop(peers[i])
		assert.NilError(t, err)
		for dst, gateway := range map[string]netip.Addr{o.v4 + "/32": hop.Gateway, o.v6 + "/128": hop.Gateway6} {
			_, n, err := net.ParseCIDR(dst)
			assert.NilError(t, err)
			r := &netlink.Route{Dst: n, LinkIndex: hop.Link, Gw: gateway.AsSlice(), MTU: hop.MTU}
			r.SetFlag(netlink.FLAG_ONLINK)
			assert.NilError(t, e.Handle.RouteReplace(r))
		}
	}
}

func meet(t *testing.T, a, b *end) {
	t.Helper()
	a.sync(t, b)
	b.sync(t, a)
}

// reaches checks that packets of just that many bytes get through whole, of
// both families.
func (e *end) reaches(t *testing.T, to *end, mtu int) {
	t.Helper()
	e.Run("ping", "-c2", "-i0.2", "-W3", "-M", "do", "-s", fmt.Sprint(mtu-28), "-I", e.v4, to.v4)
	e.Run("ping", "-6", "-c2", "-i0.2", "-W3", "-M", "do", "-s", fmt.Sprint(mtu-48), "-I", e.v6, to.v6)
}

func (e *end) check(t *testing.T, fix bool) []finding.Finding {
	t.Helper()
	var f []finding.Finding
	var err error
	e.Do(func() { f, err = e.Check(fix) })
	assert.NilError(t, err)
	return f
}

func (e *end) mtu(t *testing.T) int {
	t.Helper()
	l, err := e.Handle.LinkByName(DeviceName)
	assert.NilError(t, err)
	return l.Attrs().MTU
}

func TestOverARouter(t *testing.T) {
	for _, c := range []struct {
		name string
		by6  bool
		mtu  int
	}{{"IPv4 underlay", false, 1450}, {"IPv6 underlay", true, 1430}} {
		t.Run(c.name, func(t *testing.T) {
			w := nettest.NewWorld(t, nil)
			far := w.AddLink(1500)
			a, b := newEnd(t, w.FirstLink(1500).AddBareHost(c.by6)), newEnd(t, far.AddBareHost(c.by6))
			meet(t, a, b)
			assert.Equal(t, a.mtu(t), c.mtu)
			assert.Equal(t, a.Overhead(), 1500-c.mtu)
			a.reaches(t, b, c.mtu)
			b.reaches(t, a, c.mtu)
			assert.Equal(t, len(a.check(t, false)), 0)
			// What the other host says itself arrives, though its address
			// is reached another way.
			b.Run("ip", "route", "add", "unreachable", "10.208.0.99")
			hop, err := a.Hop(b.peer(t))
			assert.NilError(t, err)
			a.Run("ip", "route", "add", "10.208.0.99", "via", hop.Gateway.String(), "dev", DeviceName, "onlink")
			out := a.Run("sh", "-c", "ping -c1 -W2 -I "+a.v4+" 10.208.0.99 || true")
			assert.Check(t, strings.Contains(out, "From 10.78.0.12 icmp_seq=1 Destination Host Unreachable"), out)
			a.sync(t)
			_, err = a.Handle.LinkByName(DeviceName)
			assert.Check(t, tunnel.Missing(err), "the device stays without a peer")
		})
	}
}

// Whatever somebody does to the device is found and mended.
func TestRepair(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	meet(t, a, b)
	mac := tunnel.Identify(b.ID).MAC.String()
	for _, c := range []struct{ what, want string }{
		{"ip link del " + DeviceName, "the device is not there"},
		{"ip link set " + DeviceName + " down", "it is down"},
		{"ip link set " + DeviceName + " mtu 1300", "its MTU is 1300 instead of 1450"},
		{"ip link set " + DeviceName + " address 02:00:00:00:00:01", "its hardware address is 02:00:00:00:00:01"},
		{"ip link del " + DeviceName + "; ip link add " + DeviceName + " type vxlan id 9 dstport 9 ", "it has another network identifier or port"},
		{"bridge fdb del " + mac + " dev " + DeviceName + " dst " + b.Address, "the entry of " + mac + " to " + b.Address + " is missing or wrong"},
		{"bridge fdb replace " + mac + " dev " + DeviceName + " dst 10.77.0.99", "the entry of " + mac + " to " + b.Address + " is missing or wrong"},
		{"ip neigh del " + b.Address + " dev " + DeviceName, "the entry of " + b.Address + " to " + mac + " is missing or wrong"},
		{"ip neigh add 10.77.0.99 lladdr " + mac + " dev " + DeviceName, "the entry of 10.77.0.99 to " + mac + " is of no host"},
	} {
		a.Run("sh", "-c", c.what)
		text := func(all []finding.Finding) string { return fmt.Sprintf("%+v", all) }
		found := text(a.check(t, false))
		assert.Check(t, strings.Contains(found, c.want), "after %s: %s", c.what, found)
		for _, f := range a.check(t, true) {
			assert.Check(t, f.Fixed, "%+v", f)
		}
		assert.Equal(t, len(a.check(t, false)), 0, "%s", c.what)
		meet(t, a, b)
		a.reaches(t, b, 1450)
	}
}

func TestUnderlayChanges(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	far := w.AddLink(1500)
	a, b := newEnd(t, w.FirstLink(1500).AddBareHost(false)), newEnd(t, far.AddBareHost(false))
	meet(t, a, b)

	// One host's packets get smaller: both use less, and the other's device
	// stays as large as it is for others.
	b.SetMTU(1400)
	meet(t, a, b)
	assert.Equal(t, b.mtu(t), 1350)
	assert.Equal(t, a.mtu(t), 1450)
	a.reaches(t, b, 1350)
	b.reaches(t, a, 1350)
	b.SetMTU(1500)
	meet(t, a, b)
	a.reaches(t, b, 1450)

	// The peer moves to another address.
	b.Run("ip", "addr", "del", b.Address+"/24", "dev", "eth0")
	b.Run("ip", "addr", "add", "10.78.0.77/24", "dev", "eth0")
	b.Run("ip", "route", "replace", "default", "via", "10.78.0.1")
	b.Address = "10.78.0.77"
	b.device.Address = netip.MustParseAddr(b.Address)
	meet(t, a, b)
	a.reaches(t, b, 1450)
	assert.Equal(t, len(a.check(t, false)), 0)
}

// Two users of the device do not take each other's peers away.
func TestTwoUsers(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b, c := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	other := &end{Host: a.Host, Carrier: a.Also(), v4: a.v4, v6: a.v6}
	other.sync(t, c)
	a.sync(t, b)
	b.sync(t, a)
	c.sync(t, a)
	a.reaches(t, b, 1450)
	a.reaches(t, c, 1450)
	// What is wrong with the device is said once.
	a.Run("ip", "link", "set", DeviceName, "down")
	assert.Check(t, len(a.check(t, false)) > 0)
	assert.Equal(t, len(other.check(t, true)), 0)
	a.check(t, true)
	other.sync(t, c)
	a.sync(t)
	a.reaches(t, c, 1450)
	other.sync(t)
	_, err := a.Handle.LinkByName(DeviceName)
	assert.Check(t, tunnel.Missing(err))
}

func TestOtherVXLANDevices(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	a.Run("ip", "link", "add", "theirs", "type", "vxlan", "id", "77", "dstport", fmt.Sprint(Port), "dev", "eth0")
	a.Run("ip", "link", "set", "theirs", "up")
	meet(t, a, b)
	a.reaches(t, b, 1450)
	a.sync(t)
	for _, args := range []string{"type vxlan id 1 dstport 7483", "type vxlan external dstport 7483"} {
		a.Run("ip", "link", "del", "theirs")
		a.Run("ip", append([]string{"link", "add", "theirs"}, strings.Fields(args)...)...)
		a.Run("ip", "link", "set", "theirs", "up")
		var err error
		a.Do(func() { err = a.Sync([]carrier.Peer{b.peer(t)}) })
		assert.ErrorContains(t, err, "theirs has UDP port 7483", args)
		_, err = a.Hop(b.peer(t))
		assert.ErrorIs(t, err, carrier.ErrUnreachable)
	}
	a.Run("ip", "link", "del", "theirs")
	meet(t, a, b)
	a.reaches(t, b, 1450)
}

func TestPeersThatCannotBeReached(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	six := carrier.Peer{Host: "six", Address: netip.MustParseAddr("2001:db8::1")}
	same := carrier.Peer{Host: "same", Address: netip.MustParseAddr(a.Address)}
	var err error
	a.Do(func() { err = a.Sync([]carrier.Peer{six, b.peer(t), same}) })
	assert.NilError(t, err)
	_, err = a.Hop(b.peer(t))
	assert.NilError(t, err)
	for _, p := range []carrier.Peer{six, same} {
		_, err = a.Hop(p)
		assert.ErrorIs(t, err, carrier.ErrUnreachable)
	}
	assert.Equal(t, len(a.check(t, true)), 2)
}

func TestSoftwareChecksums(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	a.device.SoftwareChecksums = true
	meet(t, a, b)
	for e, want := range map[*end]uint32{a: 0, b: 1} {
		var on uint32
		e.Do(func() { assert.NilError(t, ethtool(DeviceName, unix.ETHTOOL_GTXCSUM, &on)) })
		assert.Equal(t, on, want)
	}
	a.reaches(t, b, 1450)
}
