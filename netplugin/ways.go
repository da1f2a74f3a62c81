package main

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/carrier/auto"
	"clocker.io/clocker/netplugin/carrier/direct"
	"clocker.io/clocker/netplugin/carrier/vxlan"
	"clocker.io/clocker/netplugin/carrier/wireguard"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// ways are this host's ways to others, and what others are told of it.
type ways struct {
	byName  map[string]carrier.Carrier
	guard   *vxlan.Guard
	secret  *wireguard.Carrier
	address netip.Addr
	kernel  *netlink.Handle
	log     *slog.Logger
}

func newWays(h host, c *hostconfig.Config, address netip.Addr, kernel *netlink.Handle, log *slog.Logger) (*ways, error) {
	secret, err := wireguard.New(wireguard.Config{
		Host: c.HostID, Address: address, Handle: kernel, Sysctl: h.sysctl, Dir: h.state, Now: time.Now, Log: log,
	})
	if err != nil {
		return nil, err
	}
	w := &ways{address: address, kernel: kernel, log: log, secret: secret, guard: vxlan.NewGuard(kernel, log)}
	far := vxlan.New(vxlan.Config{
		Host: c.HostID, Address: address, Handle: kernel, Sysctl: h.sysctl, SoftwareChecksums: c.SoftwareChecksums, Guard: w.guard, Log: log,
	})
	w.byName = map[string]carrier.Carrier{
		"direct": direct.New(kernel, address), "vxlan": far, "auto": auto.New(direct.New(kernel, address), far.Also()),
		"wireguard": secret,
	}
	return w, nil
}

// own reports whether a route is the plugin's.
func own(protocol int, link string) bool { return segment.OurRoute(protocol) || quiet(link) }

var quiet = underlay.HasPrefix(segment.LinkPrefix, segment.PeerPrefix, "clk-")

// run announces the host until ctx ends, and calls refresh when the ways to
// other hosts may have changed.
func (w *ways) run(ctx context.Context, host, name string, st *store.Store, view *topology.View, refresh func()) error {
	// Devices of the carriers are of interest, containers' links are not.
	moved := underlay.Watch(ctx, underlay.HasPrefix(segment.LinkPrefix, segment.PeerPrefix), own, w.log)
	here := make(chan struct{}, 1)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.guard.Run(ctx, view) })
	g.Go(func() error {
		peers := view.Changes(ctx, topology.Underlay)
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-peers:
			case <-moved:
				select {
				case here <- struct{}{}:
				default:
				}
			}
			refresh()
		}
	})
	g.Go(func() error {
		return underlay.Announcer{
			Host: host, Name: name, Store: st, Changed: here, Log: w.log, Every: time.Minute,
			Look: func() (record.Underlay, error) {
				u, err := underlay.Look(w.kernel, w.address, own)
				u.WireGuard = w.secret.PublicKey()
				return u, err
			},
		}.Run(ctx)
	})
	return g.Wait()
}
