package underlay_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

func ours(protocol int, link string) bool { return protocol == 142 || link == "ours" }

func TestLook(t *testing.T) {
	h := nettest.NewWorld(t, nil).FirstLink(1500).AddBareHost(false)
	h.Run("sh", "-c", "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up; "+
		"ip link add ours type bridge; ip addr add 10.1.1.1/24 dev ours; ip link set ours up; ip addr add 10.77.1.5/28 dev eth0; "+
		"ip route add 10.2.0.0/16 via 10.77.0.1; ip route add 10.208.0.0/26 via 10.77.0.1 proto 142; ip route add 2001:db8:9::/48 via 2001:db8:77::1; "+
		"ip route add unreachable 10.3.0.0/24; ip addr add 169.254.53.53/16 dev docker0")
	u, err := underlay.Look(h.Handle, netip.MustParseAddr(h.Address), ours)
	assert.NilError(t, err)
	assert.DeepEqual(t, u.Routes, []string{"10.2.0.0/16", "10.3.0.0/24", "10.77.0.0/24", "10.77.1.0/28", "172.17.0.0/16", "2001:db8:9::/48", "2001:db8:77::/64"})
	assert.DeepEqual(t, u.Links, []string{"10.77.0.0/24", "10.77.1.0/28", "2001:db8:77::/64"})
	eth0, err := h.Handle.LinkByName("eth0")
	assert.NilError(t, err)
	assert.Equal(t, u.MAC, eth0.Attrs().HardwareAddr.String())
	assert.Equal(t, u.MTU, 1500)
	assert.Check(t, netip.MustParseAddr(u.LinkLocal).IsLinkLocalUnicast())
	assert.Equal(t, u.Address, h.Address)
	_, err = underlay.Look(h.Handle, netip.MustParseAddr("10.9.9.9"), ours)
	assert.ErrorIs(t, err, underlay.ErrNoLink)
}

// What changes on the host is in etcd at once.
func TestAnnouncer(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	h := w.AddBareHost()
	address, log := netip.MustParseAddr(h.Address), slog.New(slog.DiscardHandler)
	_, err := w.Store.Txn().Put(w.Store.Keys.Underlay(h.ID), record.Underlay{Host: h.ID, Epoch: 7, Routes: []string{"192.0.2.0/24"}}).Commit(t.Context())
	assert.NilError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	changed := make(chan struct{})
	a := underlay.Announcer{
		Host: h.ID, Store: w.Store, Changed: changed, Log: log, Every: time.Hour,
		Look: func() (record.Underlay, error) { return underlay.Look(h.Handle, address, ours) },
	}
	go func() { defer close(ended); _ = a.Run(ctx) }() // its error is that ctx ended
	defer func() { cancel(); <-ended }()

	has := func(what string, ok func(record.Underlay) bool) {
		t.Helper()
		start := time.Now()
		h.Eventually(5*time.Second, what, func() error {
			it, err := store.Get[record.Underlay](t.Context(), w.Store, w.Store.Keys.Underlay(h.ID))
			if err == nil && !ok(it.Value) {
				return errNotYet
			}
			return err
		})
		t.Logf("%s: after %s", what, time.Since(start).Round(time.Millisecond))
	}
	has("first", func(u record.Underlay) bool { return u.MTU == 1500 && u.Epoch == 7 && len(u.Links) == 1 })
	for what, do := range map[string]func(){
		"MTU": func() { h.SetMTU(1400) }, "route": func() { h.Run("ip", "route", "add", "10.2.0.0/16", "via", "10.77.0.1") },
	} {
		do()
		changed <- struct{}{}
		has(what, func(u record.Underlay) bool {
			return what == "MTU" && u.MTU == 1400 || slices.Contains(u.Routes, "10.2.0.0/16")
		})
	}
	// Not while the address is away, and again when it is back.
	h.Run("ip", "addr", "del", h.Address+"/24", "dev", "eth0")
	changed <- struct{}{}
	h.Run("ip", "addr", "add", h.Address+"/16", "dev", "eth0")
	has("address", func(u record.Underlay) bool { return slices.Contains(u.Links, "10.77.0.0/16") })
}

var errNotYet = errors.New("not yet")
