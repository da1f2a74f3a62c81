package driver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/docker/go-plugins-helpers/ipam"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// The options of `docker network create --ipam-opt`.
const (
	// OptNetwork names a network of the fleet, by its id.
	OptNetwork = "clocker.network"
	// OptPool names the address pool that a new network takes its subnet
	// from.
	OptPool = "clocker.pool"
)

// RequestPool answers the start of `docker network create`. With
// [OptNetwork] the pool is that network's subnet; without it a network is made
// for the whole fleet, with the subnet asked for or the next of a pool.
func (d *Driver) RequestPool(r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	if r.V6 {
		return nil, errors.New("request pool: IPv6 is not supported yet: create the network without --ipv6")
	}
	for o := range r.Options {
		if o != OptNetwork && o != OptPool && !strings.HasPrefix(o, "com.docker.") {
			return nil, fmt.Errorf("request pool: unknown --ipam-opt %q (known are %s and %s)", o, OptNetwork, OptPool)
		}
	}
	space := r.AddressSpace
	if space == "" {
		space = LocalSpace
	}
	if strings.Contains(space, "/") {
		return nil, fmt.Errorf("request pool: unknown address space %q", space)
	}
	n, err := d.requestPool(r)
	if err != nil {
		return nil, fmt.Errorf("request pool: %w", err)
	}
	return &ipam.RequestPoolResponse{PoolID: poolID{space, n.ID, n.Subnet}.String(), Pool: n.Subnet}, nil
}

func (d *Driver) requestPool(r *ipam.RequestPoolRequest) (record.Network, error) {
	if id := r.Options[OptNetwork]; id != "" {
		return d.joinNetwork(id, r.Pool, r.SubPool)
	}
	req := registry.Request{Pool: r.Options[OptPool], Egress: "engine", ByHand: true}
	if err := subnetOf(r, &req); err != nil {
		return record.Network{}, err
	}
	return d.makeNetwork(req)
}

// subnetOf reads the subnet and the range that a request asks for.
func subnetOf(r *ipam.RequestPoolRequest, req *registry.Request) error {
	if r.Pool != "" {
		p, err := netip.ParsePrefix(r.Pool)
		if err != nil {
			return fmt.Errorf("%q is not a subnet", r.Pool)
		}
		if p.Addr() == netip.IPv4Unspecified() && p.Bits() > 0 {
			req.SubnetBits = p.Bits() // Engine 29 asks for a size so.
		} else {
			req.Subnet = p
		}
	}
	if r.SubPool != "" {
		p, err := netip.ParsePrefix(r.SubPool)
		if err != nil {
			return fmt.Errorf("%q is not an --ip-range", r.SubPool)
		}
		req.Range = p
	}
	return nil
}

// makeNetwork makes a network of the fleet that this host uses.
func (d *Driver) makeNetwork(req registry.Request) (record.Network, error) {
	if req.Foreign == "" { // Else the engine has compared them itself.
		routes, err := d.cfg.Routes()
		if err != nil {
			return record.Network{}, fmt.Errorf("read the host's routes: %w", err)
		}
		req.Avoid = routes
	}
	req.ID, req.UsedBy = registry.NewID(), d.cfg.Host
	d.mu.Lock()
	d.making[req.ID] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.making, req.ID)
		d.mu.Unlock()
	}()
	ctx, cancel := d.request()
	defer cancel()
	rec, err := registry.Create(ctx, d.st, d.cfg.Now(), req)
	if d.saw(err) != nil {
		if errors.Is(err, registry.ErrOverlap) && !errors.Is(err, registry.ErrRoute) {
			return rec, fmt.Errorf("%w; to join a network that exists, give its id as --ipam-opt %s=ID", err, OptNetwork)
		}
		return rec, d.explain("a new network needs etcd", err)
	}
	n, err := newNetwork(rec, d.cfg.Cooldown)
	if err != nil {
		return rec, err
	}
	n.uses, n.made = 1, req.ByHand
	d.mu.Lock()
	d.networks[rec.ID] = n
	commit := d.append(n.use())
	d.mu.Unlock()
	return rec, commit.Wait()
}

// joinNetwork adds a use of a network that exists.
func (d *Driver) joinNetwork(id, pool, rng string) (record.Network, error) {
	n, err := d.known(id)
	if err != nil {
		return record.Network{}, err
	}
	d.mu.Lock()
	rec := n.record
	d.mu.Unlock()
	switch {
	case pool == "":
		// The engine would ask for ever if the subnet met a route of the
		// host: it expects another answer each time.
		return rec, fmt.Errorf("network %s has a subnet: say --subnet %s", registry.Title(rec), rec.Subnet)
	case pool != rec.Subnet:
		return rec, fmt.Errorf("network %s has another subnet than %s", registry.Title(rec), pool)
	case rng != "" && rng != rec.Range:
		return rec, fmt.Errorf("network %s has another address range than %s", registry.Title(rec), rng)
	}
	d.mu.Lock()
	commit := d.append(d.setUses(n, n.uses+1)...)
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		return rec, err
	}
	ctx, cancel := d.request()
	defer cancel()
	if err := d.sayUse(ctx, n); errors.Is(err, store.ErrNotFound) {
		return rec, errors.Join(err, d.dropUse(n))
	} else if err != nil {
		d.kick() // Known before, so it can be used until etcd is back.
	}
	return rec, nil
}

// known returns a network by its id, from memory or from etcd.
func (d *Driver) known(id string) (*network, error) {
	d.mu.Lock()
	n := d.networks[id]
	d.mu.Unlock()
	if n != nil {
		return n, nil
	}
	ctx, cancel := d.request()
	defer cancel()
	rec, err := registry.Get(ctx, d.st, id)
	if d.saw(err) != nil {
		return nil, d.explain("network "+id+" is not known on this host", err)
	}
	n, err = newNetwork(rec, d.cfg.Cooldown)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	if other := d.networks[id]; other != nil {
		d.mu.Unlock()
		return other, nil
	}
	d.networks[id] = n
	commit := d.append(n.use())
	d.mu.Unlock()
	return n, commit.Wait()
}

// ReleasePool answers the removal of a Docker network, and of a pool that the
// engine asked for but does not want. A pool that is not known is no error.
func (d *Driver) ReleasePool(r *ipam.ReleasePoolRequest) error {
	p, err := parsePoolID(r.PoolID)
	if err != nil {
		return fmt.Errorf("release pool: %w", err)
	}
	if err := d.ReleaseNetwork(p.network); err != nil {
		return fmt.Errorf("release pool: %w", err)
	}
	return nil
}

// ReleaseNetwork takes away one use of a network by this host; with the last
// use of a network made by hand goes the network. One that is not known is no
// error.
func (d *Driver) ReleaseNetwork(id string) error {
	d.mu.Lock()
	n := d.networks[id]
	d.mu.Unlock()
	if n == nil {
		return nil
	}
	if err := d.dropUse(n); err != nil {
		return err
	}
	ctx, cancel := d.request()
	defer cancel()
	if err := d.sayUse(ctx, n); err != nil {
		d.kick()
	}
	return nil
}

// dropUse takes one use of a network away. When no Docker network is left on
// it, what is still held is held by nobody.
func (d *Driver) dropUse(n *network) error {
	d.mu.Lock()
	commit := d.append(d.setUses(n, max(0, n.uses-1))...)
	d.mu.Unlock()
	d.kick()
	return commit.Wait()
}

// setUses changes how many Docker networks are on a network; mu is held.
func (d *Driver) setUses(n *network, uses int) []entry {
	n.uses, n.made, n.unsaid = uses, n.made && uses > 0, true
	rs := []entry{n.use()}
	if uses == 0 {
		for _, a := range n.held() {
			rs = append(rs, d.release(n, a)...)
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
	id, uses, made, unsaid := n.id, n.uses, n.made, n.unsaid
	n.unsaid = false
	d.mu.Unlock()
	if !unsaid {
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

// poolID is what a pool's id says.
type poolID struct{ space, network, cidr string }

func (p poolID) String() string { return p.space + "/" + p.network + "/" + p.cidr }

// parsePoolID reads "<space>/<network id>/<cidr>".
func parsePoolID(s string) (poolID, error) {
	parts := strings.SplitN(s, "/", 3)
	if len(parts) != 3 || slices.Contains(parts, "") {
		return poolID{}, fmt.Errorf("unknown pool %q", s)
	}
	if _, err := netip.ParsePrefix(parts[2]); err != nil {
		return poolID{}, fmt.Errorf("unknown pool %q", s)
	}
	return poolID{parts[0], parts[1], parts[2]}, nil
}
