package driver

import (
	"errors"
	"fmt"
	"net/netip"

	helper "github.com/docker/go-plugins-helpers/ipam"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
)

// What an engine says in the options of RequestAddress.
const (
	optType     = "RequestAddressType"
	typeGateway = "com.docker.network.gateway"
	// optName is the container's name; engines from 29 on tell it.
	optName = "com.docker.network.endpoint.name"
)

// RequestAddress gives an address of a pool: the gateway's, the one asked
// for, or the next of the host's own blocks. It is on the disk before this
// returns.
func (d *Driver) RequestAddress(r *helper.RequestAddressRequest) (*helper.RequestAddressResponse, error) {
	p, err := parsePoolID(r.PoolID)
	if err != nil {
		return nil, fmt.Errorf("request address: %w", err)
	}
	var asked netip.Addr
	if r.Address != "" {
		if asked, err = netip.ParseAddr(r.Address); err != nil {
			return nil, fmt.Errorf("request address: %q is not an address", r.Address)
		}
	}
	n, err := d.used(p.network)
	if err != nil {
		return nil, fmt.Errorf("request address: %w", err)
	}
	var got netip.Prefix
	switch name := r.Options[optName]; {
	case r.Options[optType] == typeGateway:
		got, err = d.requestGateway(n, asked)
	case asked.IsValid():
		got, err = d.requestExplicit(n, asked, name)
	default:
		got, err = d.requestNext(n, name)
	}
	if err != nil {
		return nil, fmt.Errorf("request address: %w", err)
	}
	return &helper.RequestAddressResponse{Address: got.String()}, nil
}

// used returns a network that the engine has a pool of. An engine keeps its
// pools even where the journal was lost.
func (d *Driver) used(id string) (*network, error) {
	n, err := d.known(id)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.uses == 0 {
		d.append(d.setUses(n, 1)...)
		d.kick()
	}
	return n, nil
}

// requestGateway answers the network's gateway: every host has it. While a
// network made by hand is new, its maker may choose another one.
func (d *Driver) requestGateway(n *network, asked netip.Addr) (netip.Prefix, error) {
	d.mu.Lock()
	rec, gateway, bits := n.record, n.gateway, n.subnet.Bits()
	d.mu.Unlock()
	if !asked.IsValid() || asked == gateway {
		return netip.PrefixFrom(gateway, bits), nil
	}
	if !rec.ByHand {
		return netip.Prefix{}, fmt.Errorf("the gateway of network %s is %s, not %s", registry.Title(rec), gateway, asked)
	}
	if err := ipam.CheckGateway(n.subnet, asked); err != nil {
		return netip.Prefix{}, err
	}
	ctx, cancel := d.request()
	defer cancel()
	unlock, err := n.lock(ctx)
	if err != nil {
		return netip.Prefix{}, d.explain("a gateway cannot be chosen now", d.saw(err))
	}
	defer unlock()
	rec, err = registry.SetGateway(ctx, d.st, rec.ID, asked)
	if d.saw(err) != nil {
		return netip.Prefix{}, d.explain("a gateway cannot be chosen now", err)
	}
	d.mu.Lock()
	err = n.set(rec)
	commit := d.append(n.use())
	d.mu.Unlock()
	return netip.PrefixFrom(asked, bits), errors.Join(err, commit.Wait())
}

// requestNext gives the address that the name had last, or the one that is
// free for longest.
func (d *Driver) requestNext(n *network, name string) (netip.Prefix, error) {
	for {
		now := d.cfg.Now()
		d.mu.Lock()
		a, ok := n.share.Allocate(name, now, false)
		if ok {
			return d.give(n, a, name) // releases mu
		}
		d.mu.Unlock()
		if err := d.grow(n); err == nil {
			continue
		} else {
			// An address that was released a moment ago is better than
			// none.
			d.mu.Lock()
			if a, ok := n.share.Allocate(name, now, true); ok {
				return d.give(n, a, name)
			}
			d.mu.Unlock()
			return netip.Prefix{}, err
		}
	}
}

// give writes down that an address is held, and answers it. It is called with
// mu held and releases it.
func (d *Driver) give(n *network, a netip.Addr, name string) (netip.Prefix, error) {
	now := d.cfg.Now()
	commit := d.append(entry{Op: opAlloc, Network: n.id, Addr: a, Name: name, At: now.UnixMilli()})
	n.dirty[a] = struct{}{}
	bits := 32
	if n.record.Segment != "routed" {
		bits = n.subnet.Bits()
	}
	d.growAhead(n)
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		d.mu.Lock()
		n.share.Release(a, now)
		d.mu.Unlock()
		return netip.Prefix{}, err
	}
	d.kick()
	return netip.PrefixFrom(a, bits), nil
}

// requestExplicit gives the one address asked for.
func (d *Driver) requestExplicit(n *network, a netip.Addr, name string) (netip.Prefix, error) {
	claimed := false
	for {
		d.mu.Lock()
		why, reserved := n.share.Layout().Reserved(a)
		if reserved && why == ipam.ReservedAux && name == "" {
			// Every host's engine asks for these once more.
			d.mu.Unlock()
			return netip.PrefixFrom(a, n.subnet.Bits()), nil
		}
		holder, _ := n.share.Holder(a)
		err := n.share.Take(a, name, d.cfg.Now())
		if err == nil {
			return d.give(n, a, name) // releases mu
		}
		d.mu.Unlock()
		switch {
		case errors.Is(err, ipam.ErrInUse) && d.cfg.InUse != nil && !d.cfg.InUse(n.id, a):
			// Its holder is no more; the engine did not say so.
			d.mu.Lock()
			if now, held := n.share.Holder(a); !held || now != holder {
				d.mu.Unlock()
				continue // It changed hands meanwhile.
			}
			n.share.Restore(a, name, d.cfg.Now())
			return d.give(n, a, name)
		case errors.Is(err, ipam.ErrNotOwned) && !claimed:
			if err := d.claimBlockOf(n, a); err != nil {
				return netip.Prefix{}, err
			}
			claimed = true
		default:
			return netip.Prefix{}, err
		}
	}
}

// ReleaseAddress takes an address back. One that nobody holds is no error:
// engines say it twice, and say it of gateways.
func (d *Driver) ReleaseAddress(r *helper.ReleaseAddressRequest) error {
	p, err := parsePoolID(r.PoolID)
	if err != nil {
		return fmt.Errorf("release address: %w", err)
	}
	a, err := netip.ParseAddr(r.Address)
	if err != nil {
		return fmt.Errorf("release address: %q is not an address", r.Address)
	}
	d.mu.Lock()
	n := d.networks[p.network]
	if n == nil {
		d.mu.Unlock()
		return nil
	}
	commit := d.append(d.release(n, a)...)
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		return fmt.Errorf("release address: %w", err)
	}
	d.kick()
	return nil
}

// release frees an address and returns what to write down; nothing when it
// was not held. mu is held.
func (d *Driver) release(n *network, a netip.Addr) []entry {
	h, ok := n.share.Holder(a)
	if !ok {
		return nil
	}
	now := d.cfg.Now()
	n.share.Release(a, now)
	n.dirty[a] = struct{}{}
	delete(n.notes, a)
	rs := []entry{{Op: opFree, Network: n.id, Addr: a, Name: h.Name, At: now.UnixMilli()}}
	if i, err := n.grid.Index(a); err == nil && n.share.Withdrawn(i) && n.share.RemoveBlock(i) {
		rs = append(rs, entry{Op: opUnblock, Network: n.id, Block: i})
	}
	return rs
}
