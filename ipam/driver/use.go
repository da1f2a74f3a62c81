package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/go-plugins-helpers/ipam"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/store"
)

// ReleasePool answers the removal of a Docker network, and of a pool that the
// engine asked for but does not want. A pool that is not known is no error.
func (d *Driver) ReleasePool(r *ipam.ReleasePoolRequest) error {
	p, err := parsePoolID(r.PoolID)
	if err != nil {
		return fmt.Errorf("release pool: %w", err)
	}
	if err := d.releaseUse(p.network, p.v6, !p.v6); err != nil {
		return fmt.Errorf("release pool: %w", err)
	}
	return nil
}

// ReleaseNetwork takes away one use of a network by this host; with the last
// use of a network made by hand goes the network. One that is not known is no
// error.
func (d *Driver) ReleaseNetwork(id string) error { return d.releaseUse(id, true, true) }

func (d *Driver) releaseUse(id string, v6, v4 bool) error {
	d.mu.Lock()
	n := d.find(id)
	var halves []*family
	if n != nil {
		for _, f := range n.halves() {
			if f.v6() && v6 || !f.v6() && v4 {
				halves = append(halves, f)
			}
		}
	}
	d.mu.Unlock()
	if len(halves) == 0 {
		return nil
	}
	for _, f := range halves {
		if err := d.dropUse(n, f); err != nil {
			return err
		}
	}
	ctx, cancel := d.request()
	defer cancel()
	if err := d.sayUse(ctx, n); err != nil {
		d.kick()
	}
	return nil
}

// dropUse takes one use of a network's half away. When no Docker network is
// left on it, what is still held is held by nobody.
func (d *Driver) dropUse(n *network, f *family) error {
	d.mu.Lock()
	commit := d.append(d.setUses(n, f, max(0, f.uses-1))...)
	d.mu.Unlock()
	d.kick()
	return commit.Wait()
}

// setUses changes how many Docker networks are on a network's half; mu is
// held.
func (d *Driver) setUses(n *network, f *family, uses int) []entry {
	f.uses, n.unsaid = uses, true
	if uses > 0 && !n.gone && d.networks[n.id] == nil {
		d.networks[n.id] = n // It was about to be forgotten.
	}
	n.made = n.made && n.uses() > 0
	rs := []entry{n.use()}
	if uses == 0 {
		for _, a := range n.held() {
			if n.of(a) == f {
				rs = append(rs, d.release(n, a)...)
			}
		}
	}
	return rs
}

// sayUse makes etcd's record of the host's use of a network true. It returns
// [store.ErrNotFound] when there is no such network to use.
func (d *Driver) sayUse(ctx context.Context, n *network) error {
	unlock, err := n.lock(ctx)
	if err != nil {
		return d.saw(err)
	}
	defer unlock()
	d.mu.Lock()
	id, uses, made, unsaid, lost := n.id, n.uses(), n.made, n.unsaid, n.gone
	n.unsaid = false
	d.mu.Unlock()
	switch {
	case lost && uses > 0:
		return fmt.Errorf("network %s was removed: %w", id, store.ErrNotFound)
	case !unsaid:
		return nil
	}
	var gone bool
	if uses > 0 {
		err = registry.Use(ctx, d.st, id, d.cfg.Host, made, d.cfg.Now())
		gone = errors.Is(err, store.ErrNotFound)
	} else {
		gone, err = registry.Unuse(ctx, d.st, id, d.cfg.Host)
	}
	d.mu.Lock()
	if err != nil && !gone {
		n.unsaid = true
	}
	if gone {
		d.lost(n)
	}
	d.mu.Unlock()
	return d.saw(err)
}
