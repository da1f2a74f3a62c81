package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
)

// Packets between containers of one network must pass the host's connection
// tracking by, but for those that published ports may translate: of these it
// must see all.
func TestPlainPacketsGoTheShortWay(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red := network(t, w, "red", "plugin", false)
	n1, n2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil)
	a, b := n1.Run(), n2.Run()
	b.Serve("0.0.0.0:80")
	tracked := func(h *nettest.Host, port uint16) bool {
		flows, err := h.Handle.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
		assert.NilError(t, err)
		return slices.ContainsFunc(flows, func(f *netlink.ConntrackFlow) bool { return f.Forward.DstPort == port })
	}
	h1.Eventually(5*time.Second, "the short way is taken", func() error {
		assert.NilError(t, h1.Handle.ConntrackTableFlush(netlink.ConntrackTable))
		assert.NilError(t, h2.Handle.ConntrackTableFlush(netlink.ConntrackTable))
		a.Reaches(t, b.Address+":80")
		if tracked(h1, 80) || tracked(h2, 80) {
			return fmt.Errorf("connections are tracked")
		}
		return nil
	})
	// A caller on the host of a published port: its packets are translated,
	// and the answers must be too.
	web := n2.Run(nettest.Port{Proto: 6, Port: 81, HostPort: 8081}, nettest.Port{Proto: 17, Port: 81, HostPort: 8081})
	web.Serve("0.0.0.0:81")
	assert.Equal(t, b.Reaches(t, h2.Address+":8081"), b.Address)
	assert.Equal(t, b.Reaches(t, web.Address+":81"), b.Address)
	assert.Equal(t, a.Reaches(t, web.Address+":81"), a.Address)
	assert.Check(t, tracked(h2, 81), "connections to a container that publishes are not tracked")
	// The plugin ends: what it redirected goes the long way, unbroken.
	flow := a.Dial("udp4", b.Address+":80")
	flow.Answers(t)
	h1.Kill()
	flow.Answers(t)
	a.Reaches(t, b.Address+":80")
	h1.Start()
	flow.Answers(t)
}

// Packets begin to go the short way at different moments on the two hosts and
// in the two directions. A connection that is made meanwhile must not wait for
// its packets to be sent again, which takes a second.
func TestConnectionsDoNotStallAsTheShortWayBegins(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red := network(t, w, "red", "plugin", false)
	n1, n2 := h1.CreateNetwork(red, nil), h2.CreateNetwork(red, nil)
	first := n2.Run()
	first.Serve("0.0.0.0:80")
	n1.Run().Reaches(t, first.Address+":80")
	stalls := 0 // a busy machine may make one
	for range 5 {
		a, b := n1.Run(), n2.Run()
		b.Serve("0.0.0.0:80")
		for _, c := range []*nettest.Container{a, b} {
			// The kernel drops what is sent on a link that has just come up.
			h1.Eventually(5*time.Second, "the link carries", func() error { return c.Ping(red.Gateway, time.Second) })
		}
		for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); {
			if _, err := a.Ask("tcp4", "", b.Address+":80", 900*time.Millisecond); err != nil {
				stalls++
				t.Logf("a connection within a network waits: %v", err)
				break
			}
		}
	}
	assert.Assert(t, stalls < 2, "%d of 5 times a connection waited", stalls)
}
