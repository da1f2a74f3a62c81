package vxlan

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/nft"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/netplugin/underlay"
)

// TableName is the name of the table, of family inet.
const TableName = "clocker-vxlan"

const priorityRaw = -300

// View is where the guard learns from which hosts there are.
type View interface {
	Read(func(t *topology.Topology, k topology.Knowledge))
	Changes(ctx context.Context, of ...topology.Kind) <-chan struct{}
}

// Guard lets packets to the port of VXLAN in from the fleet's hosts only,
// whatever network they are of, for as long as this host has a device on the
// port. VXLAN itself asks nobody for a proof: who can send in another's name
// on the underlay can send into networks, which the carrier wireguard forbids.
type Guard struct {
	handle *netlink.Handle
	log    *slog.Logger

	mu   sync.Mutex
	conn nft.Connection // guarded by mu
	// hosts are the fleet's underlay addresses, nil when not known; guarded
	// by mu.
	hosts []netip.Addr
	// loaded is the table in the kernel, its zero value when there is none;
	// guarded by mu.
	loaded nft.Ruleset
}

// NewGuard returns a guard that has put nothing in the kernel yet.
func NewGuard(h *netlink.Handle, log *slog.Logger) *Guard { return &Guard{handle: h, log: log} }

// guardEvery is how often the table is looked after.
const guardEvery = 3 * time.Second

// Run keeps the table in step with the fleet until ctx ends.
func (g *Guard) Run(ctx context.Context, v View) error {
	changed := v.Changes(ctx, topology.Underlay)
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		v.Read(func(t *topology.Topology, k topology.Knowledge) {
			if k != topology.Unknown {
				g.learn(t)
			}
		})
		if err := g.follow(); err != nil {
			g.log.Warn("packet filter of VXLAN not in place, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
		}
	}
}

func (g *Guard) learn(t *topology.Topology) {
	hosts := []netip.Addr{}
	for _, u := range t.Underlays {
		if a, err := netip.ParseAddr(u.Address); err == nil {
			hosts = append(hosts, a)
		}
	}
	slices.SortFunc(hosts, netip.Addr.Compare)
	g.mu.Lock()
	g.hosts = slices.Compact(hosts)
	g.mu.Unlock()
}

// Hold puts the table in place before a device is made on the port.
func (g *Guard) Hold() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.load()
}

// follow has the table in place while there is a device on the port.
func (g *Guard) follow() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	used, err := onPort(g.handle)
	if err != nil {
		return err
	}
	if used {
		return g.load()
	}
	if g.loaded.Table == "" {
		return nil
	}
	g.loaded = nft.Ruleset{}
	return g.conn.Remove(Rules(nil))
}

// load puts the table in place, if it is not; callers hold mu.
func (g *Guard) load() error {
	if g.hosts == nil {
		return nil // whatever an earlier run put there is better
	}
	want := Rules(g.hosts)
	if reflect.DeepEqual(want, g.loaded) && g.conn.Compare(want, true) == nil {
		return nil
	}
	if err := g.conn.Load(want); err != nil {
		return fmt.Errorf("guard port %d: %w", Port, err)
	}
	g.loaded = want
	return nil
}

// onPort reports whether the host has a VXLAN device of ours.
func onPort(h *netlink.Handle) (bool, error) {
	if _, err := h.LinkByName(DeviceName); !tunnel.Missing(err) {
		return true, err
	}
	all, err := underlay.Whole(h.LinkList)
	if err != nil {
		return false, fmt.Errorf("list links: %w", err)
	}
	return slices.ContainsFunc(all, func(l netlink.Link) bool {
		return l.Type() == "vxlan" && strings.HasPrefix(l.Attrs().Name, segment.TunnelPrefix)
	}), nil
}

// Rules is the table for a fleet's hosts. Packets of VXLAN are not tracked as
// connections: there is nothing to know about them, and it costs time.
func Rules(hosts []netip.Addr) nft.Ruleset {
	v4 := nft.Set{Name: "hosts", Key: []string{"ipv4_addr"}}
	v6 := nft.Set{Name: "hosts6", Key: []string{"ipv6_addr"}}
	for _, a := range hosts {
		to := &v4
		if a.Is6() {
			to = &v6
		}
		to.Elements = append(to.Elements, nft.Element{Set: to.Name, Key: []string{a.String()}})
	}
	port := nft.DestinationPort("udp", Port)
	return nft.Ruleset{Family: nft.INet, Table: TableName, Sets: []nft.Set{v4, v6}, Chains: []nft.Chain{
		{Name: "prerouting", Type: "filter", Hook: "prerouting", Priority: priorityRaw, Rules: []nft.Rule{
			{port, nft.LocalDestination(), nft.Jump("arrived")},
		}},
		{Name: "arrived", Rules: []nft.Rule{
			{nft.InSet(v4.Name, nft.FieldSource), nft.Untracked(), nft.Return()},
			{nft.InSet(v6.Name, nft.FieldSource6), nft.Untracked(), nft.Return()},
			{nft.Drop()},
		}},
		{Name: "output", Type: "filter", Hook: "output", Priority: priorityRaw, Rules: []nft.Rule{{port, nft.Untracked()}}},
	}}
}

// RemoveTable takes the table away, if it is there.
func RemoveTable() error {
	var c nft.Connection
	defer c.Close()
	if err := c.Remove(Rules(nil)); err != nil {
		return fmt.Errorf("remove table %s: %w", TableName, err)
	}
	return nil
}
