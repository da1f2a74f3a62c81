package driver

import (
	"context"
	"errors"
	"net/netip"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// comparePins takes what etcd says of pins into memory; mu is held.
func (d *Driver) comparePins(n *network, s sight) {
	for name, kept := range n.kept {
		if kept.revision <= s.revision {
			delete(n.kept, name)
		}
	}
	there := map[netip.Addr]record.Pin{}
	for _, p := range s.pins {
		a := p.addr
		f := n.of(a)
		if f == nil {
			continue
		}
		there[a] = p.Pin
		if p.Released && p.Container != "" {
			n.kept[p.Container] = waiting{a, p.revision}
		}
		if i, err := f.grid.Index(a); err == nil && f.share.Owns(i) {
			if h, held := f.share.Holder(a); held {
				d.log.Error("address is held here and pinned for another host", "network", n.id, "address", a, "container", h.Name, "host", p.Host)
			} else if to, _ := f.share.Lent(a); to != p.Host {
				d.lend(n, f, a, p.Host)
			}
		}
		mine := n.pins[a]
		switch _, going := n.unpin[a]; {
		case n.busy[a] != nil || going || mine != nil && mine.revision > s.revision:
		case p.Host != d.cfg.Host || p.Released:
			if mine != nil && !mine.lost {
				d.log.Error("pinned address is another host's by now", "network", n.id, "address", a, "container", mine.name, "host", p.Host)
				mine.lost, mine.revision = true, 0
			}
		case mine != nil:
			mine.revision, mine.lost = p.revision, false
		case p.Epoch == d.epoch:
			n.unpin[a] = "" // Granted, but nobody was told.
			d.kick()
		default:
			// Of a lost journal: a container may have it. If none does, the
			// reconciler finds out.
			n.pins[a] = &pin{name: p.Container, since: d.cfg.Now(), revision: p.revision}
			n.dirty[a] = struct{}{}
			d.append(entry{Op: opPin, Network: n.id, Addr: a, Name: p.Container, At: d.cfg.Now().UnixMilli()})
		}
	}
	for a, p := range n.pins {
		if _, ok := there[a]; !ok && n.busy[a] == nil && !p.lost && p.revision <= s.revision {
			d.log.Error("pin of an address in use is gone", "network", n.id, "address", a, "container", p.name)
			p.lost, p.revision = true, 0
		}
	}
	clear(n.open)
	for _, f := range n.halves() {
		f.share.EachLent(func(h ipam.Held) {
			_, pinned := there[h.Addr]
			_, lending := n.lending[h.Addr]
			i, _ := f.grid.Index(h.Addr)
			switch {
			case pinned || lending || n.pins[h.Addr] != nil || f.fence[i]:
			case s.asked[h.Addr]:
				n.open[h.Addr] = struct{}{} // Granted, or withdrawn, in a moment.
			default:
				d.unlend(n, f, h.Addr)
			}
		})
	}
}

// republishPins writes this host's pins again; the network is locked.
func (d *Driver) republishPins(ctx context.Context, n *network) error {
	d.mu.Lock()
	pins := map[netip.Addr]record.Pin{}
	for a, p := range n.pins {
		pins[a] = record.Pin{Host: d.cfg.Host, Container: p.name, Epoch: d.epoch, Since: p.since}
	}
	d.mu.Unlock()
	for a, p := range pins {
		key := d.st.Keys.Pin(n.id, a.String())
		_, err := d.st.Txn().Absent(key).Put(key, p).Commit(ctx)
		if err != nil && !errors.Is(err, store.ErrConflict) {
			return err
		}
		d.mu.Lock()
		if mine := n.pins[a]; mine != nil {
			mine.lost, mine.revision = false, 0
		}
		d.mu.Unlock()
	}
	return nil
}
