package driver

import (
	"fmt"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
)

// JoinFamilies makes two networks one that an engine made a moment ago, by one
// `docker network create --ipv6`: the second is the IPv6 half of the first.
// The engine asks for the pool of each family without saying that they belong
// together; only CreateNetwork knows. What was reserved or held in the half is
// forgotten: the caller reserves the auxiliary addresses again. Pool ids that
// name the half go on to work. Joining what is one already is no error.
func (d *Driver) JoinFamilies(id, half string) (record.Network, error) {
	d.mu.Lock()
	n, h := d.find(id), d.find(half)
	d.mu.Unlock()
	switch {
	case n == nil || h == nil:
		return record.Network{}, fmt.Errorf("join networks %s and %s: this host does not know both", id, half)
	case n == h:
		d.mu.Lock()
		defer d.mu.Unlock()
		return n.record, nil
	}
	ctx, cancel := d.request()
	defer cancel()
	for _, one := range []*network{n, h} {
		unlock, err := one.lock(ctx)
		if err != nil {
			return record.Network{}, d.explain("a network cannot be made now", d.saw(err))
		}
		defer unlock()
	}
	rec, err := registry.Join(ctx, d.st, n.id, h.id)
	if d.saw(err) != nil {
		return rec, d.explain("a network cannot be made now", err)
	}
	d.mu.Lock()
	uses := h.uses()
	h.gone = true
	delete(d.networks, h.id)
	err = n.set(rec)
	if f := n.families[1]; err == nil && f != nil {
		f.uses = uses
	}
	// In this order: a crash between the two leaves a half that etcd does
	// not have.
	d.append(n.use())
	commit := d.append(entry{Op: opForget, Network: h.id})
	d.mu.Unlock()
	if err != nil {
		return rec, err
	}
	return rec, commit.Wait()
}
