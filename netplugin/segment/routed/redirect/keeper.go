package redirect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/netplugin/topology"
)

// Topology is where a [Keeper] learns which networks have virtual addresses.
type Topology interface {
	Read(f func(t *topology.Topology, k topology.Knowledge))
}

// Config is what a [Keeper] works with.
type Config struct {
	Handle   *netlink.Handle
	Table    *policy.Table
	Topology Topology
	// Bridges are the host's bridged networks; nil for none.
	Bridges segment.Bridges
	// Protocol marks the segment's routes.
	Protocol int
	Log      *slog.Logger
}

// Keeper redirects packets between the endpoints of the packet filter's table
// by the segment's routes. It stands in for the table where endpoints are put
// and removed, to know of them in time.
type Keeper struct {
	*policy.Table
	Config

	r *Redirect // nil where the kernel cannot

	// leaving is held from the look at which networks are left to when they
	// are, so that an older look never comes after a newer one.
	leaving sync.Mutex

	mu sync.Mutex
	// publishing are links of endpoints whose ports are published or about to
	// be; guarded by mu.
	publishing map[string]bool
	addresses  map[string]netip.Addr // by link; guarded by mu
	kick       chan struct{}
}

// NewKeeper loads the programs. Where the kernel has not what they need, that
// is logged, and the keeper does nothing.
func NewKeeper(c Config) *Keeper {
	k := &Keeper{Table: c.Table, Config: c, publishing: map[string]bool{}, addresses: map[string]netip.Addr{}, kick: make(chan struct{}, 1)}
	r, err := New(c.Handle)
	if err != nil {
		c.Log.Info("packets between containers go the long way", "reason", err)
		return k
	}
	k.r = r
	return k
}

// Prepare makes a link of an endpoint ready for the short way. It is for links
// that are not up yet: see [prepare].
func (k *Keeper) Prepare(index int) error {
	if k.r == nil {
		return nil
	}
	return prepare(k.Handle, index)
}

// Close ends all redirecting.
func (k *Keeper) Close() { k.r.Close() }

// PutEndpoint is that of the table. Redirecting ends before ports are
// published, as packets by them are translated.
func (k *Keeper) PutEndpoint(e policy.Endpoint) error {
	k.mu.Lock()
	k.publishing[e.Link], k.addresses[e.Link] = len(e.Ports) > 0, e.Address
	k.mu.Unlock()
	if len(e.Ports) > 0 {
		if err := errors.Join(k.r.Drop(e.Address), k.r.Frames().dropPort(e.Link)); err != nil {
			return fmt.Errorf("redirect no more to %s: %w", e.Address, err)
		}
	}
	defer k.again()
	return k.Table.PutEndpoint(e)
}

// RemoveEndpoint is that of the table.
func (k *Keeper) RemoveEndpoint(link string) error {
	k.mu.Lock()
	a := k.addresses[link]
	delete(k.publishing, link)
	delete(k.addresses, link)
	k.mu.Unlock()
	err := errors.Join(k.r.DropLink(a, link), k.r.Frames().dropPort(link))
	return errors.Join(err, k.Table.RemoveEndpoint(link))
}

func (k *Keeper) again() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Times between a change and what follows from it: until then packets go the
// long way, and a container that starts does not wait for links that programs
// are put on meanwhile.
const (
	settleTime  = 100 * time.Millisecond
	verifyEvery = 30 * time.Second
	// Without a beat for lifeTime packets go the long way.
	beatEvery = time.Second
	lifeTime  = 5 * time.Second
)

// Run keeps what is redirected in step until ctx ends. changed signals a
// change of the topology.
func (k *Keeper) Run(ctx context.Context, changed <-chan struct{}) error {
	if k.r == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	routes := k.watch(ctx)
	verify := time.NewTicker(verifyEvery)
	defer verify.Stop()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	look := true
	for {
		err := k.r.Beat(lifeTime)
		if look {
			err = errors.Join(err, k.apply())
		}
		if err != nil {
			k.Log.Warn("packets go the long way", "error", err)
		}
		look = true
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			look = false
		case <-changed:
		case <-verify.C:
		case <-k.kick:
			settle(ctx)
		case <-routes:
			settle(ctx)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func settle(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(settleTime):
	}
}

// watch signals changes of the segment's routes. Should it miss any, the next
// comparison finds them.
func (k *Keeper) watch(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	updates := make(chan netlink.RouteUpdate, 256)
	err := netlink.RouteSubscribeWithOptions(updates, ctx.Done(), netlink.RouteSubscribeOptions{ErrorCallback: func(err error) {
		k.Log.Debug("routes not watched", "error", err)
	}})
	if err != nil {
		k.Log.Warn("routes not watched", "error", err)
		return out
	}
	go func() {
		for u := range updates {
			if int(u.Protocol) == k.Protocol {
				select {
				case out <- struct{}{}:
				default:
				}
			}
		}
	}()
	return out
}

// apply makes a plan and carries it out. What comes meanwhile, an endpoint that
// goes or a network that is balanced from now on, holds over the plan. Only Run
// calls it.
func (k *Keeper) apply() error {
	if err := k.leave(); err != nil {
		return err
	}
	routes, err := k.routes()
	if err != nil {
		return err
	}
	k.r.Begin()
	k.r.Frames().begin()
	k.mu.Lock()
	publishing := maps.Clone(k.publishing)
	k.mu.Unlock()
	var not map[string]bool
	k.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) { not = translated(t) })
	state := k.State()
	ends, ways, entries := plan(state, not, publishing, routes)
	err = k.r.Apply(ends, ways, entries)
	if k.Bridges != nil {
		ports, tunnels := k.Bridges.Shortened()
		err = errors.Join(err, k.r.Frames().apply(planFrames(state, not, publishing, ports, tunnels)))
	}
	return err
}

var _ segment.Shortcut = (*Keeper)(nil)

// PutStation is that of [segment.Shortcut].
func (k *Keeper) PutStation(vni int, mac [6]byte, link int, local bool) {
	if err := k.r.Frames().putStation(vni, mac, link, local); err != nil {
		k.Log.Warn("frames go by the bridge", "error", err)
	}
}

// DropStation is that of [segment.Shortcut].
func (k *Keeper) DropStation(vni int, mac [6]byte) {
	if err := k.r.Frames().dropStation(vni, mac); err != nil {
		k.Log.Warn("frames still pass the bridge by", "error", err)
	}
}

// Changed is that of [segment.Shortcut].
func (k *Keeper) Changed() { k.again() }

// routes are the segment's IPv4 routes in the kernel.
func (k *Keeper) routes() ([]Route, error) {
	f := &netlink.Route{Protocol: netlink.RouteProtocol(k.Protocol), Table: unix.RT_TABLE_MAIN}
	have, err := k.Handle.RouteListFiltered(netlink.FAMILY_V4, f, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	ethernet := map[int]bool{}
	var all []Route
	for _, h := range have {
		dst, ok := prefixOf(h)
		if !ok || h.Type != unix.RTN_UNICAST {
			continue
		}
		r := Route{Dst: dst, Link: h.LinkIndex, MTU: h.MTU}
		switch {
		case h.Gw != nil:
			r.Gateway, _ = netip.AddrFromSlice(h.Gw)
			r.Gateway = r.Gateway.Unmap()
			if _, known := ethernet[r.Link]; !known {
				l, err := k.Handle.LinkByIndex(r.Link)
				// Into a tunnel large packets would go in pieces; see speed.md.
				ethernet[r.Link] = err == nil && l.Attrs().EncapType == "ether" && l.Type() != "vxlan"
			}
			r.Ethernet = ethernet[r.Link]
		case h.Via != nil || len(h.MultiPath) > 0:
			continue
		}
		all = append(all, r)
	}
	return all, nil
}

func prefixOf(r netlink.Route) (netip.Prefix, bool) {
	if r.Dst == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits), ok && a.Unmap().Is4()
}
