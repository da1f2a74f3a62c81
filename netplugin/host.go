package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	addresses "clocker.io/clocker/ipam/driver"
	"clocker.io/clocker/netplugin/driver"
	"clocker.io/clocker/netplugin/lb"
	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/segment/routed"
	"clocker.io/clocker/netplugin/segment/routed/redirect"
	"clocker.io/clocker/netplugin/server"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/store"
)

// spaces are the address spaces of the IPAM driver, which engines may ask for
// before it is there.
var spaces = ipam.AddressSpacesResponse{
	LocalDefaultAddressSpace: addresses.LocalSpace, GlobalDefaultAddressSpace: addresses.GlobalSpace,
}

// host is the part of the plugin that needs the host to be in a fleet.
type host struct {
	config, state, sysctl string
	log                   *slog.Logger
}

// retry is the wait after a start that failed.
const retry = 2 * time.Second

// keep runs the plugin until ctx ends. As long as it cannot start, the engine
// is told why.
func (h host) keep(ctx context.Context, s *server.Server) error {
	for {
		err := h.run(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.log.Error("not serving the fleet, trying again", "error", err)
		s.Use(server.Refuse(fmt.Errorf("the network plugin cannot serve the fleet: %w", err), spaces))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retry):
		}
	}
}

// run waits for the host to be adopted, puts the real drivers in place, and
// keeps them running until ctx ends.
func (h host) run(ctx context.Context, s *server.Server) error {
	c, err := hostconfig.Load(h.config)
	if errors.Is(err, hostconfig.ErrNotAdopted) {
		s.Use(server.Refuse(err, spaces))
		c, err = hostconfig.Wait(ctx, h.config, time.Second)
	}
	if err != nil {
		return err
	}
	log := h.log.With("fleet", c.Fleet, "host", c.HostID)
	address, err := netip.ParseAddr(c.Address)
	if err != nil {
		return fmt.Errorf("read host configuration: %w", err)
	}
	client, err := c.EtcdClient()
	if err != nil {
		return err
	}
	defer client.Close()
	st := store.New(client, c.Fleet)
	view, err := topology.NewView(st, h.state, log)
	if err != nil {
		return err
	}
	kernel, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer kernel.Close()
	sysctl := routed.Sysctl(h.sysctl)
	if err := sysctl.EnsureForwarding(); err != nil {
		return err
	}
	ways, err := newWays(h, c, address, kernel, log)
	if err != nil {
		return err
	}
	defer ways.secret.Close()
	links := routed.New(routed.Config{
		Host: c.HostID, Handle: kernel, Sysctl: sysctl, Topology: view,
		Carriers: ways.byName, Log: log,
	})
	frames, err := newBridged(h, c.HostID, address, view, log)
	if err != nil {
		return err
	}
	defer frames.Close()
	table := policy.NewTable(log)
	fast := redirect.NewKeeper(redirect.Config{Handle: kernel, Table: table, Topology: view, Bridges: frames, Protocol: routed.Protocol, Log: log})
	defer fast.Close()
	frames.Shortcut, frames.Prepare, links.Prepare = fast, fast.Prepare, fast.Prepare
	var networks *driver.Driver
	pools, err := addresses.Open(addresses.Config{
		Host: c.HostID, Store: st, Dir: h.state, Log: log,
		Routes: func() ([]netip.Prefix, error) { return routed.ForeignRoutes(kernel) },
		InUse:  func(network string, a netip.Addr) bool { return networks.InUse(network, a) },
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := pools.Close(); err != nil {
			log.Error("journal not closed", "error", err)
		}
	}()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	networks, err = driver.New(driver.Config{
		Host: c.HostID, Name: c.Name, StateDir: filepath.Join(h.state, "docker"), Boot: strings.TrimSpace(string(boot)),
		AddressSpace: addresses.LocalSpace, Addresses: pools, Segments: map[string]segment.Segment{"routed": links, "bridged": frames}, Filter: fast, Topology: view,
		Now: time.Now, Log: log,
	})
	if err != nil {
		return err
	}
	s.Use(server.Drivers{Network: networks, IPAM: pools})
	log.Info("serving the fleet", "address", c.Address)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return view.Run(ctx, frames.observe(st.Keys), pools.Observe) })
	g.Go(func() error { return pools.Run(ctx) })
	g.Go(func() error { return links.Run(ctx, view.Changes(ctx, routed.Kinds...)) })
	g.Go(func() error { return frames.Run(ctx, nil) })
	g.Go(func() error { return networks.Run(ctx, view.Changes(ctx, driver.Kinds...)) })
	g.Go(func() error { return table.Run(ctx) })
	g.Go(func() error {
		return fast.Run(ctx, view.Changes(ctx, topology.Service, topology.Published, topology.Network))
	})
	// Routes follow the topology at their own pace; names and services come
	// after them.
	routes := func(ctx context.Context) error { return links.Applied(ctx, view.ChangedAt(routed.Kinds...)) }
	balancer := lb.New(lb.Config{Host: c.HostID, View: view, Clear: fast.Settle, Routes: routes, Now: time.Now, Log: log})
	g.Go(func() error { return balancer.Run(ctx, view.Changes(ctx, lb.Kinds...)) })
	g.Go(func() error {
		return h.answerAgent(ctx, c.HostID, view, table, kernel, ways.byName, log, balancer, routes, links, frames, table, networks, pools)
	})
	g.Go(func() error { return ways.run(ctx, c.HostID, c.Name, st, view, links.Refresh) })
	return g.Wait()
}
