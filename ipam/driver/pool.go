package driver

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	// OptSticky says for how long the address of a stopped container stays
	// with its name, on whatever host it starts again ("1h").
	OptSticky = "clocker.sticky"
)

// RequestPool answers the start of `docker network create`. With
// [OptNetwork] the pool is that network's subnet; without it a network is made
// for the whole fleet, with the subnet asked for or the next of a pool.
func (d *Driver) RequestPool(r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	if err := checkOptions(r.Options); err != nil {
		return nil, fmt.Errorf("request pool: %w", err)
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
	subnet := n.Subnet
	if r.V6 {
		subnet = n.Subnet6
	}
	return &ipam.RequestPoolResponse{PoolID: poolID{space, n.ID, subnet, r.V6}.String(), Pool: subnet}, nil
}

// checkOptions says which options are not known.
func checkOptions(options map[string]string) error {
	var errs []error
	for o, v := range options {
		switch {
		case o == OptNetwork, o == OptPool, strings.HasPrefix(o, "com.docker."):
		case o == OptSticky:
			if keep, err := time.ParseDuration(v); err != nil || keep < time.Second {
				errs = append(errs, fmt.Errorf("--ipam-opt %s=%s: say for how long, as in 1h", o, v))
			}
		default:
			errs = append(errs, fmt.Errorf("unknown --ipam-opt %q (known are %s, %s and %s)", o, OptNetwork, OptPool, OptSticky))
		}
	}
	return errors.Join(errs...)
}

// sticky is for how long a network keeps a container's address for its name,
// on whatever host it starts again; 0 when it does not.
func sticky(n record.Network) time.Duration {
	keep, err := time.ParseDuration(n.Options[OptSticky])
	if err != nil || keep < time.Second {
		return 0
	}
	return keep
}

func (d *Driver) requestPool(r *ipam.RequestPoolRequest) (record.Network, error) {
	if id := r.Options[OptNetwork]; id != "" {
		return d.joinNetwork(id, r.V6, r.Pool, r.SubPool)
	}
	req := registry.Request{Pool: r.Options[OptPool], Egress: "engine", ByHand: true}
	if r.V6 {
		req.Pool, req.Pool6, req.NoIPv4 = "", req.Pool, true
	}
	if keep := r.Options[OptSticky]; keep != "" {
		req.Options = map[string]string{OptSticky: keep}
	}
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
		sized := p.Addr().IsUnspecified() && p.Bits() > 0 // Engine 29 asks for a size so.
		switch {
		case sized && r.V6:
			req.SubnetBits6 = p.Bits()
		case sized:
			req.SubnetBits = p.Bits()
		case r.V6:
			req.Subnet6 = p
		default:
			req.Subnet = p
		}
	}
	if r.SubPool != "" {
		p, err := netip.ParsePrefix(r.SubPool)
		if err != nil {
			return fmt.Errorf("%q is not an --ip-range", r.SubPool)
		}
		if r.V6 {
			req.Range6 = p
		} else {
			req.Range = p
		}
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
	for _, f := range n.halves() {
		f.uses = 1
	}
	n.made = req.ByHand
	d.mu.Lock()
	d.networks[rec.ID] = n
	commit := d.append(n.use())
	d.mu.Unlock()
	return rec, commit.Wait()
}

// joinNetwork adds a use of one half of a network that exists.
func (d *Driver) joinNetwork(id string, v6 bool, pool, rng string) (record.Network, error) {
	n, err := d.known(id)
	if err != nil {
		return record.Network{}, err
	}
	d.mu.Lock()
	rec, f := n.record, n.families[index(v6)]
	d.mu.Unlock()
	subnet, within := rec.Subnet, rec.Range
	if v6 {
		subnet, within = rec.Subnet6, rec.Range6
	}
	switch {
	case f == nil && v6:
		return rec, fmt.Errorf("network %s has no IPv6 subnet: leave out --ipv6", registry.Title(rec))
	case f == nil:
		return rec, fmt.Errorf("network %s has no IPv4 subnet: say --ipv4=false", registry.Title(rec))
	case pool == "":
		// The engine would ask for ever if the subnet met a route of the
		// host: it expects another answer each time.
		return rec, fmt.Errorf("network %s has a subnet: say --subnet %s", registry.Title(rec), subnet)
	case !sameRange(pool, f.subnet):
		return rec, fmt.Errorf("network %s has another subnet than %s", registry.Title(rec), pool)
	case rng != "" && rng != within:
		return rec, fmt.Errorf("network %s has another address range than %s", registry.Title(rec), rng)
	}
	d.mu.Lock()
	commit := d.append(d.setUses(n, f, f.uses+1)...)
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		return rec, err
	}
	ctx, cancel := d.request()
	defer cancel()
	if err := d.sayUse(ctx, n); errors.Is(err, store.ErrNotFound) {
		return rec, errors.Join(err, d.dropUse(n, f))
	} else if err != nil {
		d.kick() // Known before, so it can be used until etcd is back.
	}
	return rec, nil
}

// sameRange reports whether a text is a range, in whatever spelling.
func sameRange(s string, p netip.Prefix) bool {
	q, err := netip.ParsePrefix(s)
	return err == nil && q == p
}

// known returns a network by its id, from memory or from etcd.
func (d *Driver) known(id string) (*network, error) {
	d.mu.Lock()
	n := d.find(id)
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
	if other := d.networks[rec.ID]; other != nil {
		d.mu.Unlock()
		return other, nil
	}
	d.networks[rec.ID] = n
	commit := d.append(n.use())
	d.mu.Unlock()
	return n, commit.Wait()
}

// poolID is what a pool's id says; v6 is the family of its range.
type poolID struct {
	space, network, cidr string
	v6                   bool
}

func (p poolID) String() string { return p.space + "/" + p.network + "/" + p.cidr }

// parsePoolID reads "<space>/<network id>/<cidr>".
func parsePoolID(s string) (poolID, error) {
	parts := strings.SplitN(s, "/", 3)
	if len(parts) != 3 || slices.Contains(parts, "") {
		return poolID{}, fmt.Errorf("unknown pool %q", s)
	}
	p, err := netip.ParsePrefix(parts[2])
	if err != nil {
		return poolID{}, fmt.Errorf("unknown pool %q", s)
	}
	return poolID{parts[0], parts[1], parts[2], !p.Addr().Is4()}, nil
}
