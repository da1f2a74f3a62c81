package wireguard

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/links"
)

// reaches checks that packets of just that many bytes get through whole, of
// both families.
//
// Two hosts that call each other at the same moment need a moment more.
func (e *end) reaches(to *end, mtu int) {
	e.t.Helper()
	e.Eventually(3*time.Second, "the first packet gets through", func() error { return ping(e, to) })
	e.Run("ping", "-c2", "-i0.2", "-W3", "-M", "do", "-s", fmt.Sprint(mtu-28), "-I", e.v4, to.v4)
	e.Run("ping", "-6", "-c2", "-i0.2", "-W3", "-M", "do", "-s", fmt.Sprint(mtu-48), "-I", e.v6, to.v6)
}

func (e *end) mtu() int {
	e.t.Helper()
	l, err := e.Handle.LinkByName(DeviceName)
	assert.NilError(e.t, err)
	return l.Attrs().MTU
}

func TestOverARouter(t *testing.T) {
	for _, c := range []struct {
		name string
		by6  bool
		mtu  int
	}{{"IPv4 underlay", false, 1440}, {"IPv6 underlay", true, 1420}} {
		t.Run(c.name, func(t *testing.T) {
			w := nettest.NewWorld(t, nil)
			far := w.AddLink(1500)
			a, b := newEnd(t, w.FirstLink(1500).AddBareHost(c.by6)), newEnd(t, far.AddBareHost(c.by6))
			meet(a, b)
			assert.Equal(t, a.mtu(), c.mtu)
			a.reaches(b, c.mtu)
			b.reaches(a, c.mtu)
			assert.Equal(t, len(a.ask(question{Check: true}).Found), 0)

			// Smaller packets at one end.
			b.SetMTU(1400)
			meet(a, b)
			assert.Equal(t, b.mtu(), c.mtu-100)
			assert.Equal(t, a.mtu(), c.mtu)
			a.reaches(b, links.Padded(c.mtu-100))
			b.reaches(a, c.mtu-100)
			// What is larger is refused, not lost.
			out := a.Run("sh", "-c", fmt.Sprintf("ping -c1 -W2 -M do -s %d -I %s %s 2>&1 || true", c.mtu-28, a.v4, b.v4))
			assert.Check(t, strings.Contains(out, "message too long"), out)

			a.sync()
			_, err := a.Handle.LinkByName(DeviceName)
			assert.ErrorContains(t, err, "not found")
		})
	}
}

// Nothing of what is sent can be read on the way.
func TestEncrypted(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	meet(a, b)
	w.Outside.Run("nft", "add table bridge seen; add chain bridge seen every { type filter hook forward priority 0; }; "+
		"add rule bridge seen every ip protocol icmp counter; add rule bridge seen every udp dport 7484 counter")
	a.reaches(b, 1440)
	counters := regexp.MustCompile(`packets (\d+)`).FindAllStringSubmatch(w.Outside.Run("nft", "list", "table", "bridge", "seen"), -1)
	assert.Equal(t, counters[0][1], "0", "packets as they are on the link")
	assert.Check(t, counters[1][1] != "0")
}

// A process that is killed leaves device and routes; traffic goes on within a
// second after the next is there.
func TestRestart(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	meet(a, b)
	a.reaches(b, 1440)
	before := a.Run("ip", "route", "show", b.v4)

	quiet := a.Run("ip", "-s", "link", "show", DeviceName)
	pings := make(chan string)
	go func() { pings <- b.Run("sh", "-c", "ping -D -i0.02 -c250 -W1 -I "+b.v4+" "+a.v4+" || true") }()
	a.Eventually(5*time.Second, "packets come", func() error {
		out := a.Run("ip", "-s", "link", "show", DeviceName)
		if out == quiet {
			return fmt.Errorf("no packets: %s", out)
		}
		return nil
	})
	a.kill()
	assert.Equal(t, strings.ReplaceAll(a.Run("ip", "route", "show", b.v4), "linkdown ", ""), before)
	a.start()
	back := time.Now()
	a.sync(b)
	out := <-pings
	// Each line has the time of the reply.
	first := 0.0
	var missed int
	last := 0
	for _, m := range regexp.MustCompile(`\[(\d+\.\d+)\].*icmp_seq=(\d+)`).FindAllStringSubmatch(out, -1) {
		at, _ := strconv.ParseFloat(m[1], 64)
		seq, _ := strconv.Atoi(m[2])
		missed += max(0, seq-last-1)
		last = seq
		if first == 0 && at > float64(back.UnixMicro())/1e6 {
			first = at - float64(back.UnixMicro())/1e6
		}
	}
	t.Logf("%d packets of 20 ms lost; the first after %.3f s", missed, first)
	assert.Check(t, last > 240 && first > 0 && first < 1, "last %d, first reply after %.3f s:\n%s", last, first, out)
	assert.Equal(t, len(a.ask(question{Check: true}).Found), 0)
}

// A host whose key is lost has another, and is reached when others know.
func TestKeyLost(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	meet(a, b)
	a.reaches(b, 1440)
	info, err := os.Stat(filepath.Join(a.Dir, KeyFile))
	assert.NilError(t, err)
	assert.Equal(t, info.Mode().Perm(), os.FileMode(0o600))
	old := a.key
	a.kill()
	a.start()
	assert.Equal(t, a.key, old)
	a.kill()
	assert.NilError(t, os.Remove(filepath.Join(a.Dir, KeyFile)))
	a.start()
	assert.Check(t, a.key != old)
	meet(a, b)
	a.reaches(b, 1440)
}

func TestRepair(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	meet(a, b)
	for _, c := range []struct{ what, want string }{
		{"ip link del " + DeviceName, "the device is not there"},
		{"ip link set " + DeviceName + " down", "it is down"},
		{"ip link set " + DeviceName + " mtu 1300", "its MTU is 1300 instead of 1440"},
	} {
		a.Run("sh", "-c", c.what)
		found := a.ask(question{Check: true})
		assert.Check(t, strings.Contains(fmt.Sprintf("%+v", found.Found), c.want), "after %s: %+v", c.what, found)
		a.ask(question{Check: true, Fix: true})
		meet(a, b)
		a.reaches(b, 1440)
		assert.Equal(t, len(a.ask(question{Check: true}).Found), 0, c.what)
	}
	b.key = ""
	refused := a.ask(question{Peers: []carrier.Peer{b.peer()}})
	assert.Check(t, strings.Contains(refused.Error, "host host2 has not announced its key"), refused.Error)
	assert.Equal(t, len(a.ask(question{Check: true}).Found), 1)
}

// A host behind one that translates addresses is found where its packets come
// from, also by a process that starts anew.
func TestBehindNAT(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	far := w.AddLink(1500)
	a, b := newEnd(t, far.AddBareHost(false)), newEnd(t, w.FirstLink(1500).AddBareHost(false))
	// Nobody on the first link reaches the far one.
	w.Outside.Run("nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }; "+
		"add rule ip nat post oifname link masquerade; add table ip filter; "+
		"add chain ip filter forward { type filter hook forward priority 0; }; "+
		"add rule ip filter forward iifname link ct state new drop")
	b.sync(a)
	a.sync(b)
	b.Eventually(10*time.Second, "the host behind is reached", func() error {
		return ping(b, a)
	})
}

func ping(from, to *end) error {
	out := from.Run("sh", "-c", "ping -c1 -W1 -I "+from.v4+" "+to.v4+" || true")
	if !strings.Contains(out, " 0% packet loss") {
		return fmt.Errorf("no answer: %s", out)
	}
	return nil
}
