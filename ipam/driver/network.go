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
	// id never changes.
	id string

	// All below is guarded by Driver.mu.
	record record.Network
	// families are its IPv4 and its IPv6 half; nil where it has none.
	families [2]*family
	// made says that one of the Docker networks on it was made by hand here.
	made bool
	// gone means that it does not exist in etcd any more.
	gone bool
	// unsaid means that etcd has not been told the truth about uses.
	unsaid bool
	// unsure means that etcd may know more, or less, of our blocks and pins
	// than we.
	unsure bool
	// dirty addresses are to be published.
	dirty map[netip.Addr]struct{}
	// notes are what the network driver knows of endpoints.
	notes map[netip.Addr]Note
	// pins are the addresses that this host holds outside its own blocks, and
	// unpin those whose pins in etcd are to go, if they are ours.
	pins map[netip.Addr]*pin
	// They have the names of their last holders.
	unpin map[netip.Addr]string
	// busy are the addresses about whose pins somebody speaks with etcd; see
	// lockAddress.
	busy map[netip.Addr]chan struct{}
	// kept are the addresses that wait for a container's name.
	kept map[string]waiting
	// keep are addresses of our blocks that are to wait for a name, too.
	keep map[netip.Addr]string
	// telling is the name of the one that etcd is told of at this moment.
	telling string
	// tried are those of which etcd may have been told.
	tried map[netip.Addr]bool
	// lending are addresses that may, or may not, have become a pin.
	lending map[netip.Addr]struct{}
	// open are addresses that are lent for a question whose answer may, or may
	// not, have reached etcd, or whose asker may have gone: they are looked at
	// until etcd has the pin, or the question no more.
	open map[netip.Addr]struct{}
	// passed are the revisions at which pins changed while somebody reads the
	// network; nil while nobody does.
	passed map[netip.Addr]int64
	// doubts are the addresses of which it is looked whether their holders are
	// gone: nil while it is, then the holder that is.
	doubts map[netip.Addr]*ipam.Held
	// cooldown is the shares'; it never changes.
	cooldown time.Duration
}

// family is a network's part in one address family.
type family struct {
	// grid never changes; it says where blocks are, not which addresses are
	// reserved.
	grid    *ipam.Layout
	subnet  netip.Prefix
	gateway netip.Addr
	share   *ipam.Share
	// uses counts the Docker networks that have its pool.
	uses int
	// revisions are at which revision of etcd each block was last seen to
	// be ours; a block without one must be looked up first.
	revisions map[int]int64
	// taken are the blocks known to be somebody's; nil before the first
	// look. It may miss some: only etcd's answer to a claim counts.
	taken *ipam.Bitmap
	// fence are blocks whose keys must be written anew before it is believed
	// that an address in them waits for no name: an earlier run may have said
	// so at its end, and that may come late.
	fence map[int]bool
	// old are blocks of a lost journal, with their revisions.
	old map[int]int64
	// claiming are the blocks that a claim is on its way for.
	claiming map[int]bool
	// growing means that a block is being claimed ahead of need.
	growing bool
	// grown is when a block was claimed last, hunger how many at once.
	grown  time.Time
	hunger int
}

// waiting is an address that waits for a name since a revision of etcd.
type waiting struct {
	addr     netip.Addr
	revision int64
}

// pin is an address held outside the host's own blocks.
type pin struct {
	name  string
	since time.Time
	// revision is the one at which the pin was seen in etcd; 0 when it was
	// not.
	revision int64
	// lost means that etcd says it is not ours.
	lost bool
}

// Note is what else is known of an address's holder; see [Driver.Annotate].
type Note struct {
	MAC string
	// Endpoint is the engine's id of the endpoint.
	Endpoint string
	// Machine says that the address is the host's own.
	Machine bool
	// Ports are what is published of it on this host; see record.Endpoint.
	Ports string
}

func newNetwork(r record.Network, cooldown time.Duration) (*network, error) {
	layouts, err := registry.Layouts(r)
	if err != nil {
		return nil, err
	}
	n := &network{
		ops: make(chan struct{}, 1), id: r.ID, record: r, cooldown: cooldown,
		dirty: map[netip.Addr]struct{}{}, notes: map[netip.Addr]Note{}, pins: map[netip.Addr]*pin{}, unpin: map[netip.Addr]string{},
		busy: map[netip.Addr]chan struct{}{}, kept: map[string]waiting{}, keep: map[netip.Addr]string{}, tried: map[netip.Addr]bool{}, lending: map[netip.Addr]struct{}{}, open: map[netip.Addr]struct{}{},
		doubts: map[netip.Addr]*ipam.Held{},
	}
	for i, gateway := range []string{r.Gateway, r.Gateway6} {
		if layouts[i] == nil {
			continue
		}
		g, err := netip.ParseAddr(gateway)
		if err != nil {
			return nil, fmt.Errorf("read network %s: %w", r.ID, err)
		}
		n.families[i] = &family{
			grid: layouts[i], subnet: layouts[i].Subnet(), gateway: g, share: ipam.NewShare(layouts[i], cooldown), revisions: map[int]int64{}, old: map[int]int64{}, fence: map[int]bool{}, claiming: map[int]bool{},
		}
	}
	return n, nil
}

// index is the place of a family in an array.
func index(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// of is the network's half of an address's family; nil when it has none.
func (n *network) of(a netip.Addr) *family { return n.families[index(!a.Is4())] }

// halves are the families that the network has, IPv4 first.
func (n *network) halves() []*family {
	var fs []*family
	for _, f := range n.families {
		if f != nil {
			fs = append(fs, f)
		}
	}
	return fs
}

func (f *family) v6() bool { return !f.subnet.Addr().Is4() }

// uses is how many Docker networks are on the network.
func (n *network) uses() int {
	uses := 0
	for _, f := range n.halves() {
		uses = max(uses, f.uses)
	}
	return uses
}

// blocks is how many blocks the host has of both families.
func (n *network) blocks() int {
	count := 0
	for _, f := range n.halves() {
		count += len(f.share.Blocks())
	}
	return count
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

// set takes a newer record of the network. Subnets and blocks never change,
// but that an IPv6 half may be added; the gateway changes only before the
// first block.
func (n *network) set(r record.Network) error {
	fresh, err := newNetwork(r, n.cooldown)
	if err != nil {
		return err
	}
	for i, f := range n.families {
		g := fresh.families[i]
		switch {
		case f == nil:
			n.families[i] = g
		case g == nil || g.subnet != f.subnet || g.grid.Count() != f.grid.Count():
			return fmt.Errorf("network %s was %s, not %s", r.ID, registry.Title(n.record), registry.Title(r))
		case g.gateway != f.gateway && len(f.share.Blocks()) == 0:
			f.share, f.gateway = g.share, g.gateway
		}
	}
	for _, s := range r.Reserved {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("read network %s: %w", r.ID, err)
		}
		f := n.of(a)
		if f == nil {
			continue
		}
		if _, held := f.share.Holder(a); held {
			n.dirty[a] = struct{}{}
		}
		if n.pins[a] != nil {
			n.drop(a)
		}
		f.share.Reserve(a)
	}
	n.record = r
	return nil
}

// drop ends the hold on a pinned address; its pin goes later.
func (n *network) drop(a netip.Addr) {
	n.unpin[a] = n.pins[a].name
	delete(n.pins, a)
	delete(n.dirty, a)
}

// holder is who holds an address on this host, by a block or by a pin.
func (n *network) holder(a netip.Addr) (ipam.Held, bool) {
	if p := n.pins[a]; p != nil {
		return ipam.Held{Addr: a, Name: p.name, Since: p.since}, true
	}
	if f := n.of(a); f != nil {
		return f.share.Holder(a)
	}
	return ipam.Held{}, false
}

// eachHeld calls f for each address that somebody has on this host.
func (n *network) eachHeld(f func(ipam.Held)) {
	for _, half := range n.halves() {
		half.share.EachHeld(f)
	}
	for a, p := range n.pins {
		f(ipam.Held{Addr: a, Name: p.name, Since: p.since})
	}
}

// held lists the addresses that somebody has.
func (n *network) held() []netip.Addr {
	var as []netip.Addr
	n.eachHeld(func(h ipam.Held) { as = append(as, h.Addr) })
	return as
}

// afterReplay marks everything for publication: nobody knows what of it
// reached etcd before the end.
func (n *network) afterReplay(self string) {
	n.unsaid, n.unsure = true, true
	n.eachHeld(func(h ipam.Held) { n.dirty[h.Addr] = struct{}{} })
	for _, f := range n.halves() {
		f.share.EachLent(func(h ipam.Held) {
			if i, err := f.grid.Index(h.Addr); err == nil && h.Name == self {
				f.fence[i] = true
			}
		})
	}
}

// snapshot writes the network as records.
func (n *network) snapshot(emit func(entry)) {
	id := n.id
	emit(n.use())
	for _, f := range n.halves() {
		for _, i := range f.share.Blocks() {
			emit(entry{Op: opBlock, Network: id, Block: i, V6: f.v6(), At: f.share.IdleSince(i).UnixMilli()})
		}
		f.share.EachUsed(func(h ipam.Held) {
			emit(entry{Op: opFree, Network: id, Addr: h.Addr, Name: h.Name, At: h.Since.UnixMilli()})
		})
		f.share.EachHeld(func(h ipam.Held) {
			emit(entry{Op: opAlloc, Network: id, Addr: h.Addr, Name: h.Name, At: h.Since.UnixMilli()})
		})
		f.share.EachLent(func(h ipam.Held) {
			emit(entry{Op: opLend, Network: id, Addr: h.Addr, Name: h.Name, At: h.Since.UnixMilli()})
		})
		for _, i := range f.share.Blocks() {
			if f.share.Withdrawn(i) {
				emit(entry{Op: opWithdraw, Network: id, Block: i, V6: f.v6()})
			}
		}
	}
	for a, p := range n.pins {
		emit(entry{Op: opPin, Network: id, Addr: a, Name: p.name, At: p.since.UnixMilli()})
	}
}

// use is the record of the network and its uses.
func (n *network) use() entry {
	r := n.record
	e := entry{Op: opUse, Record: &r, Made: n.made}
	if f := n.families[0]; f != nil {
		e.Uses = f.uses
	}
	if f := n.families[1]; f != nil {
		e.Uses6 = f.uses
	}
	return e
}

// byEngine is the range whose addresses the host's own engine hands out.
func (n *network) byEngine(host string, a netip.Addr) bool {
	f := n.of(a)
	return n.record.Foreign == host && f != nil && ipam.LowerHalf(f.subnet).Contains(a)
}

// block is the key part of block i.
func (f *family) block(i int) string { return f.grid.Block(i).String() }
