package routed

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// shaky is a carrier that cannot be made at first.
type shaky struct {
	straight
	left *atomic.Int32
}

func (s shaky) Sync([]carrier.Peer) error {
	if s.left.Add(-1) >= 0 {
		return errors.New("the device is busy")
	}
	return nil
}

// What was not complete is completed soon, though nothing changes any more.
func TestRunTriesAgain(t *testing.T) {
	ns := nettest.NewNamespace(t)
	fleet := topology.New()
	n := segment.Network{ID: "n", Subnet: pfx("10.208.0.0/20"), Gateway: adr("10.208.0.1"), Carrier: "direct", MTU: 1500}
	fleet.Underlays["other"] = record.Underlay{Host: "other", Address: "10.0.0.2"}
	fleet.Blocks["n"] = map[netip.Prefix]record.Block{pfx("10.208.1.0/26"): {Host: "other"}}
	left := &atomic.Int32{}
	left.Store(3)
	s := New(Config{
		Host: "here", Handle: ns.Handle, Sysctl: "/proc/sys/net", Topology: told{fleet},
		Carriers: map[string]carrier.Carrier{"direct": shaky{left: left}}, Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	defer func() { cancel(); <-ended }()
	ns.Do(func() { assert.NilError(t, s.AddNetwork(n)) })
	go ns.Do(func() { ended <- s.Run(ctx, nil) })
	var have int
	for end := time.Now().Add(60 * time.Second); have < 2 && time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		all, err := Routes(ns.Handle)
		assert.NilError(t, err)
		have = len(all)
	}
	assert.Equal(t, have, 2, "the subnet and the other host's block")
}

// A link that is gone by itself is not removed for ever.
func TestRemoveLinksThatAreGone(t *testing.T) {
	ns := nettest.NewNamespace(t)
	s := New(Config{Host: "here", Handle: ns.Handle, Log: slog.New(slog.DiscardHandler)})
	link := func(name string) {
		v := netlink.NewVeth(netlink.LinkAttrs{Name: name, Group: Group})
		v.PeerName = "p" + name
		assert.NilError(t, ns.Handle.LinkAdd(v))
	}
	for _, here := range [][]string{{}, {"cka"}, {"cka", "ckb"}} {
		for _, name := range here {
			link(name)
		}
		ns.Do(func() { assert.Equal(t, len(s.removeLinks(append(here, "ckgone", "ckaway"))), 0, "%v", here) })
		for _, name := range here {
			_, err := ns.Handle.LinkByName(name)
			assert.ErrorContains(t, err, "not found")
		}
	}
}
