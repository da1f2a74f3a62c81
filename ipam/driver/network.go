package driver

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
)

// network is what a host knows of one of the fleet's networks: one that its
// engine uses, or that it still owns blocks of.
type network struct {
	// ops has one place, for who does something in etcd about the network's
	// blocks and uses; see lock.
	ops chan struct{}
	// id and grid never change; grid says where blocks are, not which
	// addresses are reserved.
	id   string
	grid *ipam.Layout

	// All below is guarded by Driver.mu.
	record  record.Network
	subnet  netip.Prefix
	gateway netip.Addr
	share   *ipam.Share
	// cooldown is the share's; it never changes.
	cooldown time.Duration
	// uses counts the Docker networks on it; made says that one was made by
	// hand here.
	uses int
	made bool
	// gone means that it does not exist in etcd any more.
	gone bool
	// unsaid means that etcd has not been told the truth about uses.
	unsaid bool
	// revisions are at which revision of etcd each block was last seen to
	// be ours; a block without one must be looked up first.
	revisions map[int]int64
	// taken are the blocks known to be somebody's; nil before the first
	// look. It may miss some: only etcd's answer to a claim counts.
	taken *ipam.Bitmap
	// unsure means that etcd may know more, or less, of our blocks than we.
	unsure bool
	// dirty addresses are to be published.
	dirty map[netip.Addr]struct{}
	// notes are what the network driver knows of endpoints.
	notes map[netip.Addr]Note
	// growing means that a block is being claimed ahead of need.
	growing bool
}

// Note is what else is known of an address's holder; see [Driver.Annotate].
type Note struct {
	MAC string
	// Endpoint is the engine's id of the endpoint.
	Endpoint string
}

func newNetwork(r record.Network, cooldown time.Duration) (*network, error) {
	layout, err := registry.Layout(r)
	if err != nil {
		return nil, err
	}
	gateway, err := netip.ParseAddr(r.Gateway)
	if err != nil {
		return nil, fmt.Errorf("read network %s: %w", r.ID, err)
	}
	return &network{
		ops: make(chan struct{}, 1), id: r.ID, grid: layout, record: r, subnet: layout.Subnet(), gateway: gateway, share: ipam.NewShare(layout, cooldown), cooldown: cooldown,
		revisions: map[int]int64{}, dirty: map[netip.Addr]struct{}{}, notes: map[netip.Addr]Note{},
	}, nil
}

// lock serialises what is done in etcd about the network, for as long as ctx
// lets the caller wait. It is called without Driver.mu. The caller must call
// unlock.
func (n *network) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case n.ops <- struct{}{}:
		return func() { <-n.ops }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// set takes a newer record of the network. Subnet and blocks never change;
// the gateway changes only before the first block.
func (n *network) set(r record.Network) error {
	fresh, err := newNetwork(r, n.cooldown)
	if err != nil {
		return err
	}
	if fresh.subnet != n.subnet || r.BlockBits != n.record.BlockBits {
		return fmt.Errorf("network %s was %s, not %s", r.ID, n.subnet, fresh.subnet)
	}
	for _, s := range r.Reserved {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("read network %s: %w", r.ID, err)
		}
		if _, held := n.share.Holder(a); held {
			n.dirty[a] = struct{}{}
		}
		n.share.Reserve(a)
	}
	if fresh.gateway != n.gateway && len(n.share.Blocks()) == 0 {
		n.share, n.gateway = fresh.share, fresh.gateway
	}
	n.record = r
	return nil
}

// afterReplay marks everything for publication: nobody knows what of it
// reached etcd before the end.
func (n *network) afterReplay() {
	n.unsaid, n.unsure = true, true
	n.share.EachHeld(func(h ipam.Held) { n.dirty[h.Addr] = struct{}{} })
}

// snapshot writes the network as records.
func (n *network) snapshot(emit func(entry)) {
	id := n.id
	emit(n.use())
	for _, i := range n.share.Blocks() {
		emit(entry{Op: opBlock, Network: id, Block: i, At: n.share.IdleSince(i).UnixMilli()})
	}
	n.share.EachUsed(func(h ipam.Held) {
		emit(entry{Op: opFree, Network: id, Addr: h.Addr, Name: h.Name, At: h.Since.UnixMilli()})
	})
	n.share.EachHeld(func(h ipam.Held) {
		emit(entry{Op: opAlloc, Network: id, Addr: h.Addr, Name: h.Name, At: h.Since.UnixMilli()})
	})
	for _, i := range n.share.Blocks() {
		if n.share.Withdrawn(i) {
			emit(entry{Op: opWithdraw, Network: id, Block: i})
		}
	}
}

// use is the record of the network and its uses.
func (n *network) use() entry {
	r := n.record
	return entry{Op: opUse, Record: &r, Uses: n.uses, Made: n.made}
}

// byEngine is the range whose addresses the host's own engine hands out.
func (n *network) byEngine(host string) (netip.Prefix, bool) {
	if n.record.Foreign != host {
		return netip.Prefix{}, false
	}
	return ipam.LowerHalf(n.subnet), true
}

// block is the key part of block i.
func (n *network) block(i int) string { return n.grid.Block(i).String() }

// held lists the addresses that somebody has.
func (n *network) held() []netip.Addr {
	var as []netip.Addr
	n.share.EachHeld(func(h ipam.Held) { as = append(as, h.Addr) })
	return as
}
