package driver

import (
	"errors"
	"net/netip"
	"strings"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// What is read from etcd is older than memory's next event may be: the watch
// runs beside the reads, and may tell of a change before the answer of a read
// from before it has been taken in. So whoever reads a network notes which pins
// change meanwhile, and looks once more when one of them matters.

// startReading notes what changes of the network until doneReading; mu is held.
func (n *network) startReading() { n.passed = map[netip.Addr]int64{} }

// doneReading compares what has changed since startReading with what was read,
// at a revision and by now is in memory; mu is held.
func (n *network) doneReading(revision int64) {
	for a, at := range n.passed {
		if at > revision && n.concerns(a) {
			n.unsure = true
		}
	}
	n.passed = nil
}

// startLook comes before etcd is read: what is heard of the network from now on
// may be news.
func (d *Driver) startLook(n *network) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.unsure = false
	n.startReading()
}

// endLook comes when memory has what etcd said at a revision, or the error.
func (d *Driver) endLook(n *network, revision int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if errors.Is(err, store.ErrNotFound) {
		d.lost(n)
	}
	n.doneReading(revision)
	n.unsure = !n.gone && (n.unsure || err != nil)
}

// concerns reports whether an address is, for memory, pinned or in a block of
// this host; mu is held.
func (n *network) concerns(a netip.Addr) bool {
	if n.pins[a] != nil {
		return true
	}
	f := n.of(a)
	i, err := f.grid.Index(a)
	return err == nil && f.share.Owns(i)
}

// touchBlock notes that a block's key was written, and reports whether that
// matters: a claim of this host may be carried out when nobody waits for it any
// more, as after a restart, and only etcd knows then whose the block is. mu is
// held.
func (d *Driver) touchBlock(id, cidr string, put *store.Raw) bool {
	if put == nil {
		return false // Whoever deletes a block of ours meets us at its revision.
	}
	b, err := store.Decode[record.Block](*put)
	if err != nil || b.Host != d.cfg.Host || b.Epoch != d.epoch || b.State != record.BlockOwned {
		return false
	}
	n := d.networks[id]
	if n == nil {
		return d.touchStranger(id)
	}
	p, err := netip.ParsePrefix(strings.ReplaceAll(cidr, "_", "/"))
	if err != nil || n.gone {
		return false
	}
	f := n.of(p.Addr())
	if f == nil {
		return false
	}
	i, err := f.grid.Index(p.Addr())
	if err != nil || f.share.Owns(i) || f.claiming[i] {
		return false
	}
	n.unsure = true
	return true
}

// touchStranger notes that etcd says that something of a network is this
// host's that the host knows nothing of; mu is held.
func (d *Driver) touchStranger(id string) bool {
	if d.making[id] {
		return false
	}
	d.strangers = true
	return true
}
