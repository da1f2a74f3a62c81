package driver

import (
	"net/netip"
	"strings"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Observe takes a change under the keys of networks. Memory is not changed by
// it: what concerns this host is looked up in etcd again.
func (d *Driver) Observe(c store.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	touched := c.Reset
	for _, p := range c.Puts {
		touched = d.touch(p.Key, &p, p.Revision) || touched
	}
	for _, key := range c.Deletes {
		touched = d.touch(key, nil, c.Revision) || touched
	}
	if c.Reset {
		d.asked = true
		for _, n := range d.networks {
			n.unsure = true
		}
	}
	if d.seen.cluster != 0 && d.restored.IsZero() {
		d.advance(d.seen.cluster, c.Revision)
	}
	if touched {
		d.kick()
	}
}

// touch notes that a key has changed, and reports whether that matters to this
// host; put is nil when it was deleted. mu is held.
func (d *Driver) touch(key string, put *store.Raw, revision int64) bool {
	k := d.st.Keys
	if id, ok := strings.CutPrefix(key, k.Networks()); ok {
		n := d.networks[id]
		if n != nil {
			n.unsure = true
		}
		return n != nil
	}
	if strings.HasPrefix(key, k.Ask(d.cfg.Host, "")) {
		d.asked = d.asked || put != nil
		return put != nil
	}
	if rest, ok := strings.CutPrefix(key, k.Blocks()); ok {
		id, cidr, _ := strings.Cut(rest, "/")
		return d.touchBlock(id, cidr, put)
	}
	rest, ok := strings.CutPrefix(key, k.Pins())
	if !ok {
		return false
	}
	id, address, _ := strings.Cut(rest, "/")
	n := d.networks[id]
	a, err := netip.ParseAddr(address)
	if n == nil && put != nil {
		p, err := store.Decode[record.Pin](*put)
		return err == nil && p.Host == d.cfg.Host && !p.Released && d.touchStranger(id)
	}
	if n == nil || err != nil || n.of(a) == nil {
		return false
	}
	if n.passed != nil {
		n.passed[a] = revision
	}
	n.forgetKept(a, revision)
	_, lent := n.of(a).share.Lent(a)
	matters := lent || n.pins[a] != nil
	if put != nil {
		p, err := store.Decode[record.Pin](*put)
		matters = err != nil || !n.agrees(a, p, d.cfg.Host)
		if p.Released && p.Container != "" {
			n.kept[p.Container] = waiting{a, revision}
		}
	}
	n.unsure = n.unsure || matters
	return matters
}

// agrees reports whether memory says of an address what a pin says.
func (n *network) agrees(a netip.Addr, p record.Pin, self string) bool {
	f := n.of(a)
	i, err := f.grid.Index(a)
	owned := err == nil && f.share.Owns(i)
	lent, _ := f.share.Lent(a)
	held := n.pins[a] != nil
	return held == (p.Host == self && !p.Released) && (!owned || lent == p.Host)
}

// forgetKept forgets the name that an address waits for, by what happened at a
// revision.
func (n *network) forgetKept(a netip.Addr, revision int64) {
	for name, kept := range n.kept {
		if kept.addr == a && kept.revision < revision {
			delete(n.kept, name)
		}
	}
}
