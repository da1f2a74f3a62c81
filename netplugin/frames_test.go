package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/nettest"
)

// Frames between containers of one bridged network must pass the bridge and
// the host's connection tracking by, until something translates them: then it
// must see all.
func TestPlainFramesGoTheShortWay(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddHost(), w.AddHost()
	red, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{Name: "red", App: "app", Egress: "plugin", Segment: "bridged"})
	assert.NilError(t, err)
	n1, n2 := h1.CreateNetwork(&red, nil), h2.CreateNetwork(&red, nil)
	a, b, c := n1.Run(), n2.Run(), n2.Run()
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
		c.Reaches(t, b.Address+":80")
		if tracked(h1, 80) || tracked(h2, 80) {
			return fmt.Errorf("connections are tracked")
		}
		return nil
	})
	// A caller on the host of a published port: its frames are translated, and
	// the answers, which go from port to port, must be too.
	web := n2.Run(nettest.Port{Proto: 6, Port: 81, HostPort: 8081}, nettest.Port{Proto: 17, Port: 81, HostPort: 8081})
	web.Serve("0.0.0.0:81")
	b.Reaches(t, h2.Address+":8081")
	assert.Equal(t, b.Reaches(t, web.Address+":81"), b.Address)
	assert.Equal(t, a.Reaches(t, web.Address+":81"), a.Address)
	assert.Check(t, tracked(h2, 81), "connections to a container that publishes are not tracked")
	web.Stop()
	again := n2.Run()
	again.Serve("0.0.0.0:80")
	a.Reaches(t, again.Address+":80")
	// The plugin ends: what it redirected goes by the bridge, unbroken.
	flow := a.Dial("udp4", b.Address+":80")
	flow.Answers(t)
	h1.Kill()
	flow.Answers(t)
	a.Reaches(t, b.Address+":80")
	h1.Start()
	flow.Answers(t)
	// A service's address comes: its connections are translated.
	vip := virtual(t, w, &red, "web")
	publish(t, w, b, red.ID, "web", "web-1")
	for _, from := range []*nettest.Container{a, c} {
		h1.Eventually(5*time.Second, "the service answers", func() error {
			s, err := open(from.Namespace, "tcp4", vip+":80")
			if err == nil {
				s.Close()
			}
			return err
		})
		assert.Equal(t, from.Reaches(t, b.Address+":80"), from.Address)
	}
	flow.Answers(t)
}
