package routed_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/segment/routed"
	"clocker.io/clocker/netplugin/topology"
)

// known is the topology of a fleet of one that etcd has been heard of.
type known struct{}

func (known) Read(f func(*topology.Topology, topology.Knowledge)) {
	f(topology.New(), topology.Followed)
}

// Whatever is taken away, or is there too much, is found, said, and mended.
func TestCheck(t *testing.T) {
	ns := nettest.NewNamespace(t)
	s := routed.New(routed.Config{Host: "h", Handle: ns.Handle, Sysctl: "/proc/sys/net", Topology: known{}, Log: slog.New(slog.DiscardHandler)})
	e := endpoint("a", dual, "10.208.0.5/32", "fd12:3456:789a:1::5/128")
	defer s.Settle(t)
	subjects := func(fix bool) (all []string) {
		ns.Do(func() {
			found, err := s.Check(fix)
			assert.NilError(t, err)
			for _, f := range found {
				assert.Equal(t, f.Fixed, fix && f.Hint == "", "%+v", f)
				all = append(all, f.Part+" "+f.Subject)
			}
		})
		slices.Sort(all)
		return all
	}
	ns.Do(func() {
		assert.NilError(t, routed.Sysctl("/proc/sys/net").EnsureForwarding())
		assert.NilError(t, s.AddNetwork(dual))
		assert.NilError(t, s.Attach(e))
		assert.NilError(t, s.SetMachine("dual", []netip.Addr{netip.MustParseAddr("10.208.0.9")}))
	})
	assert.Equal(t, len(subjects(false)), 0)

	ns.Run("ip", "addr", "del", "10.208.0.1/32", "dev", "lo")
	ns.Run("ip", "addr", "del", "fd12:3456:789a:1::1/128", "dev", "lo")
	ns.Run("ip", "addr", "add", "10.208.99.1/32", "dev", "lo", "label", routed.AddressLabel)
	ns.Run("ip", "route", "flush", "proto", "142")
	ns.Run("ip", "route", "add", "unreachable", "10.99.0.0/16", "proto", "142", "metric", "142")
	assert.NilError(t, ns.Handle.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "ckstray", Group: routed.Group}, PeerName: "cxstray"}))
	want := []string{
		"addresses 10.208.0.1", "addresses 10.208.99.1", "addresses fd12:3456:789a:1::1", "links ckstray",
		"routes 10.208.0.0/20", "routes 10.208.0.5/32", "routes 10.99.0.0/16",
		"routes fd12:3456:789a:1::5/128", // it has lost its source with the gateway
	}
	for _, fix := range []bool{false, true} {
		assert.DeepEqual(t, subjects(fix), want)
	}
	assert.Equal(t, fmt.Sprint(subjects(false)), "[]")

	ns.Run("ip", "link", "set", segment.LinkName(e.ID), "down")
	assert.Check(t, slices.Contains(subjects(true), "links "+segment.LinkName(e.ID)))
	assert.Equal(t, fmt.Sprint(subjects(false)), "[]")
	ns.Run("ip", "link", "del", segment.LinkName(e.ID))
	assert.Check(t, slices.Contains(subjects(true), "links "+segment.LinkName(e.ID)), "it cannot be mended, and is told")
}
