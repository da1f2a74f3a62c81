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
	n, f, err := d.used(p)
	if err != nil {
		return nil, fmt.Errorf("request address: %w", err)
	}
	var got netip.Prefix
	switch name := r.Options[optName]; {
	case r.Options[optType] == typeGateway:
		got, err = d.requestGateway(n, f, asked)
	case asked.IsValid():
		got, err = d.requestExplicit(n, f, asked, name)
	default:
		got, err = d.requestNext(n, f, name)
	}
	if err != nil {
		return nil, fmt.Errorf("request address: %w", err)
	}
	return &helper.RequestAddressResponse{Address: got.String()}, nil
}

// used returns a network that the engine has a pool of, and its half that the
// pool is of. An engine keeps its pools even where the journal was lost.
func (d *Driver) used(p poolID) (*network, *family, error) {
	n, err := d.known(p.network)
	if err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f := n.families[index(p.v6)]
	if f == nil {
		return nil, nil, fmt.Errorf("network %s has no subnet of the family of %s", registry.Title(n.record), p.cidr)
	}
	if f.uses == 0 {
		d.append(d.setUses(n, f, 1)...)
		d.kick()
	}
	return n, f, nil
}

// requestGateway answers the network's gateway: every host has it. While a
// network made by hand is new, its maker may choose another one.
func (d *Driver) requestGateway(n *network, f *family, asked netip.Addr) (netip.Prefix, error) {
	d.mu.Lock()
	rec, gateway, bits := n.record, f.gateway, f.subnet.Bits()
	d.mu.Unlock()
	if !asked.IsValid() || asked == gateway {
		return netip.PrefixFrom(gateway, bits), nil
	}
	if !rec.ByHand {
		return netip.Prefix{}, fmt.Errorf("the gateway of network %s is %s, not %s", registry.Title(rec), gateway, asked)
	}
	if err := ipam.CheckGateway(f.subnet, asked); err != nil {
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
func (d *Driver) requestNext(n *network, f *family, name string) (netip.Prefix, error) {
	d.takeBack(n, f, name)
	if a, ok := d.keptFor(n, f, name); ok {
		got, err := d.requestExplicit(n, f, a, name)
		if err == nil {
			return got, nil
		}
		// Another host was faster, or etcd is away: any other will do.
		d.log.Info("container's name gets another address than before", "container", name, "network", n.id, "address", a, "reason", err)
	}
	for {
		now := d.cfg.Now()
		d.mu.Lock()
		a, ok := f.share.Allocate(name, now, false)
		if ok {
			return d.give(n, f, a, name) // releases mu
		}
		d.mu.Unlock()
		if err := d.grow(n, f); err == nil {
			continue
		} else {
			// An address that was released a moment ago is better than
			// none.
			d.mu.Lock()
			if a, ok := f.share.Allocate(name, now, true); ok {
				return d.give(n, f, a, name)
			}
			d.mu.Unlock()
			return netip.Prefix{}, err
		}
	}
}

// give writes down that an address is held, and answers it. It is called with
// mu held and releases it.
func (d *Driver) give(n *network, f *family, a netip.Addr, name string) (netip.Prefix, error) {
	now := d.cfg.Now()
	commit := d.append(entry{Op: opAlloc, Network: n.id, Addr: a, Name: name, At: now.UnixMilli()})
	n.dirty[a] = struct{}{}
	got := n.masked(f, a)
	d.growAhead(n, f)
	d.mu.Unlock()
	if err := commit.Wait(); err != nil {
		d.mu.Lock()
		f.share.Release(a, now)
		d.mu.Unlock()
		return netip.Prefix{}, err
	}
	d.kick()
	return got, nil
}

// masked is an address with the mask of the container's interface.
func (n *network) masked(f *family, a netip.Addr) netip.Prefix {
	if n.record.Segment == "routed" && !n.elsewhere() {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.PrefixFrom(a, f.subnet.Bits())
}

// requestExplicit gives the one address asked for.
func (d *Driver) requestExplicit(n *network, f *family, a netip.Addr, name string) (netip.Prefix, error) {
	for {
		d.mu.Lock()
		why, reserved := f.share.Layout().Reserved(a)
		if reserved && why == ipam.ReservedAux && name == "" {
			// Every host's engine asks for these once more.
			d.mu.Unlock()
			return netip.PrefixFrom(a, f.subnet.Bits()), nil
		}
		holder, held := n.holder(a)
		if held {
			d.mu.Unlock()
			if !d.abandoned(n, a, holder, name) {
				return netip.Prefix{}, d.inUse(a, holder.Name)
			}
			// Its holder is no more; the engine did not say so.
			d.mu.Lock()
			if now, held := n.holder(a); !held || now != holder {
				d.mu.Unlock()
				continue // It changed hands meanwhile.
			}
			i, err := f.grid.Index(a)
			p := n.pins[a]
			if p != nil && p.lost || p == nil && err == nil && f.share.Withdrawn(i) {
				// It is not this host's to give any more: whose it is,
				// etcd knows.
				d.append(d.release(n, a)...)
				d.mu.Unlock()
				continue
			}
			if p != nil {
				return d.givePinned(n, f, a, &pin{name: name, since: d.cfg.Now(), revision: p.revision})
			}
			f.share.Restore(a, name, d.cfg.Now())
			return d.give(n, f, a, name)
		}
		err := f.share.Take(a, name, d.cfg.Now())
		if err == nil {
			return d.give(n, f, a, name) // releases mu
		}
		d.mu.Unlock()
		if !errors.Is(err, ipam.ErrNotOwned) && !errors.Is(err, ipam.ErrLent) {
			return netip.Prefix{}, err
		}
		got, err := d.requestPin(n, f, a, name)
		if !errors.Is(err, errOursNow) {
			return got, err
		}
	}
}

// inUse says who on this host has an address.
func (d *Driver) inUse(a netip.Addr, name string) error {
	if name == "" {
		return fmt.Errorf("take address %s: %w on host %s", a, ipam.ErrInUse, d.cfg.Host)
	}
	return fmt.Errorf("take address %s: %w by %s on host %s", a, ipam.ErrInUse, name, d.cfg.Host)
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
	n := d.find(p.network)
	d.mu.Unlock()
	if n == nil || !d.mayRelease(n, a) {
		return nil
	}
	d.mu.Lock()
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
	h, ok := n.holder(a)
	if !ok {
		return nil
	}
	now := d.cfg.Now()
	delete(n.notes, a)
	if n.pins[a] != nil {
		n.drop(a)
		return []entry{{Op: opUnpin, Network: n.id, Addr: a, Name: h.Name, At: now.UnixMilli()}}
	}
	f := n.of(a)
	f.share.Release(a, now)
	n.dirty[a] = struct{}{}
	rs := []entry{{Op: opFree, Network: n.id, Addr: a, Name: h.Name, At: now.UnixMilli()}}
	if sticky(n.record) > 0 && h.Name != "" && f.share.Lend(a, d.cfg.Host, now) == nil {
		n.keep[a], n.lending[a] = h.Name, struct{}{}
		return append(rs, entry{Op: opLend, Network: n.id, Addr: a, Name: d.cfg.Host, At: now.UnixMilli()})
	}
	if i, err := f.grid.Index(a); err == nil && f.share.Withdrawn(i) && f.share.RemoveBlock(i) {
		rs = append(rs, entry{Op: opUnblock, Network: n.id, Block: i, V6: f.v6()})
	}
	return rs
}
