package driver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

var _ finding.Checker = (*Driver)(nil)

// part is what the driver's findings are about.
const part = "addresses"

// Check compares what this host believes of its addresses with etcd. With fix
// it reads every network anew, which mends what memory has wrong, and writes
// again what etcd lacks.
func (d *Driver) Check(fix bool) ([]finding.Finding, error) {
	var found []finding.Finding
	add := func(subject, hint, format string, args ...any) {
		found = append(found, finding.Finding{Part: part, Subject: subject, Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	if err := d.journal.Broken(); err != nil {
		add("journal", "make room on the disk, or repair it", "addresses cannot be written down: %v", err)
	}
	d.mu.Lock()
	if settling := d.settling(); settling != nil {
		add("etcd", "", "%v", settling)
	}
	if away := d.unreachable(); away != nil {
		d.mu.Unlock()
		add("etcd", "bring etcd back: until then only addresses of this host's own blocks are given", "%v", away)
		return found, nil
	}
	d.mu.Unlock()
	for _, n := range d.all() {
		fs, err := d.checkNetwork(n, fix)
		if err != nil {
			return found, fmt.Errorf("check addresses of network %s: %w", n.id, err)
		}
		found = append(found, fs...)
	}
	if fix {
		d.kick()
	}
	return found, nil
}

func (d *Driver) checkNetwork(n *network, fix bool) ([]finding.Finding, error) {
	ctx, cancel := d.request()
	defer cancel()
	unlock, err := n.lock(ctx)
	if err != nil {
		return nil, d.saw(err)
	}
	defer unlock()
	s, err := d.see(ctx, n.id)
	if err != nil {
		return nil, d.saw(err)
	}
	endpoints, err := d.endpointsOf(ctx, n)
	if err != nil {
		return nil, d.saw(err)
	}
	found := d.contrast(n, s, endpoints)
	if !fix || len(found) == 0 {
		return found, nil
	}
	if err := d.look(ctx, n); err != nil {
		return found, d.saw(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n.eachHeld(func(h ipam.Held) {
		if _, ok := endpoints[h.Addr]; !ok {
			n.dirty[h.Addr] = struct{}{}
		}
	})
	for a := range endpoints {
		if _, held := n.holder(a); !held {
			n.dirty[a] = struct{}{}
		}
	}
	for i := range found {
		found[i].Fixed = found[i].Hint == ""
	}
	return found, nil
}

// endpointsOf are the endpoints that etcd says are this host's.
func (d *Driver) endpointsOf(ctx context.Context, n *network) (map[netip.Addr]record.Endpoint, error) {
	prefix := d.st.Keys.Endpoint(n.id, "")
	items, _, err := store.List[record.Endpoint](ctx, d.st, prefix)
	if err != nil {
		return nil, err
	}
	m := map[netip.Addr]record.Endpoint{}
	for _, it := range items {
		if a, err := netip.ParseAddr(strings.TrimPrefix(it.Key, prefix)); err == nil && it.Value.Host == d.cfg.Host {
			m[a] = it.Value
		}
	}
	return m, nil
}

// contrast says how memory and etcd differ about a network. What is on its way
// to etcd is no difference.
func (d *Driver) contrast(n *network, s sight, endpoints map[netip.Addr]record.Endpoint) []finding.Finding {
	d.mu.Lock()
	defer d.mu.Unlock()
	title := registry.Title(n.record)
	var found []finding.Finding
	add := func(a any, hint, format string, args ...any) {
		found = append(found, finding.Finding{Part: part, Subject: fmt.Sprint(a), Text: fmt.Sprintf(format, args...), Hint: hint})
	}
	ours := map[netip.Prefix]bool{}
	for _, b := range s.blocks {
		f := n.of(b.prefix.Addr())
		if f == nil || b.Host != d.cfg.Host || b.State != record.BlockOwned {
			continue
		}
		ours[b.prefix] = true
		if i, err := f.grid.Index(b.prefix.Addr()); err == nil && b.Epoch != d.epoch {
			add(b.prefix, "none: it is used again by itself when what is in use in it was watched for a while", "block %s of network %s is of a lost journal", b.prefix, title)
		} else if err == nil && !f.share.Owns(i) {
			add(b.prefix, "", "block %s of network %s is this host's in etcd, and it does not know", b.prefix, title)
		}
	}
	for _, f := range n.halves() {
		for _, i := range f.share.Blocks() {
			b := f.grid.Block(i)
			switch held := len(n.in(b)); {
			case f.share.Withdrawn(i) && held > 0:
				add(b, "stop the containers and start them again: they get other addresses",
					"block %s of network %s is not this host's any more, but %d of its addresses are in use: %s", b, title, held, strings.Join(n.in(b), ", "))
			case !f.share.Withdrawn(i) && !ours[b]:
				add(b, "", "block %s of network %s is this host's in memory, but not in etcd", b, title)
			}
		}
	}
	for a, p := range n.pins {
		if p.lost {
			add(a, "stop the container and start it again: it gets another address", "address %s of network %s is in use by %q, but pinned for another host, or for none", a, title, p.name)
		}
	}
	n.eachHeld(func(h ipam.Held) {
		_, waits := n.dirty[h.Addr]
		_, _, mine := d.guard(n, h.Addr)
		if _, ok := endpoints[h.Addr]; !ok && !waits && mine {
			add(h.Addr, "", "address %s of network %s is in use, and etcd does not know", h.Addr, title)
		}
	})
	for a := range endpoints {
		_, held := n.holder(a)
		_, waits := n.dirty[a]
		_, going := n.unpin[a]
		if !held && !waits && !going && !n.byEngine(d.cfg.Host, a) && !endpoints[a].Machine {
			add(a, "", "address %s of network %s is in use by this host in etcd, and it is not", a, title)
		}
	}
	slices.SortFunc(found, func(a, b finding.Finding) int { return strings.Compare(a.Text, b.Text) })
	return found
}

// in lists who holds an address of a range.
func (n *network) in(p netip.Prefix) []string {
	var who []string
	n.eachHeld(func(h ipam.Held) {
		if p.Contains(h.Addr) {
			who = append(who, strings.TrimSpace(h.Addr.String()+" "+h.Name))
		}
	})
	slices.Sort(who)
	return who
}
