package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// List returns every network, in the order of their ids.
func List(ctx context.Context, st *store.Store) ([]record.Network, error) {
	items, _, err := store.List[record.Network](ctx, st, st.Keys.Networks())
	if err != nil {
		return nil, err
	}
	ns := make([]record.Network, len(items))
	for i, it := range items {
		ns[i] = it.Value
	}
	return ns, nil
}

// Get returns a network, or [store.ErrNotFound], wrapped. The id may also be
// the one that the network's IPv6 half had before [Join].
func Get(ctx context.Context, st *store.Store, id string) (record.Network, error) {
	it, err := store.Get[record.Network](ctx, st, st.Keys.Network(id))
	if errors.Is(err, store.ErrNotFound) {
		return find(ctx, st, id, func(n record.Network) bool { return n.Joined == id })
	}
	return it.Value, err
}

// BySubnet returns the network with exactly that subnet, or
// [store.ErrNotFound], wrapped.
func BySubnet(ctx context.Context, st *store.Store, subnet netip.Prefix) (record.Network, error) {
	return find(ctx, st, "with subnet "+subnet.String(), func(n record.Network) bool { return slices.Contains(Subnets(n), subnet) })
}

// ByName returns the network of that name, or [store.ErrNotFound], wrapped.
func ByName(ctx context.Context, st *store.Store, name string) (record.Network, error) {
	return find(ctx, st, name, func(n record.Network) bool { return n.Name == name })
}

func find(ctx context.Context, st *store.Store, what string, is func(record.Network) bool) (record.Network, error) {
	ns, err := List(ctx, st)
	if err != nil {
		return record.Network{}, err
	}
	if i := slices.IndexFunc(ns, is); i >= 0 {
		return ns[i], nil
	}
	return record.Network{}, fmt.Errorf("network %s: %w", what, store.ErrNotFound)
}

// Delete removes a network with its blocks, endpoints and uses, whoever uses
// it; one that does not exist is no error. Only its hosts know when nothing
// is attached any more: see [Uses]. Without guards it leaves the addresses of
// services, which hosts may not write, to the leading controller.
func Delete(ctx context.Context, st *store.Store, id string, guards ...clientv3.Cmp) error {
	t := remove(st, id)
	if len(guards) > 0 {
		t.DeletePrefix(st.Keys.NetworkServices(id))
	}
	if _, err := t.If(guards...).Commit(ctx); err != nil {
		return fmt.Errorf("delete network %s: %w", id, err)
	}
	return nil
}

// remove is the transaction that takes every trace of a network away but the
// addresses of services.
func remove(st *store.Store, id string) *store.Txn {
	return st.Txn().
		Put(st.Keys.NetworkGuard(), Guard{"delete " + id}).
		Delete(st.Keys.Network(id)).
		DeletePrefix(st.Keys.NetworkUses(id)).
		DeletePrefix(st.Keys.NetworkBlocks(id)).
		DeletePrefix(st.Keys.NetworkPins(id)).
		DeletePrefix(st.Keys.Endpoint(id, ""))
}

// SetName names a network, which CreateNetwork cannot: the engine does not
// tell it. It returns [ErrNameTaken] when another network has the name.
func SetName(ctx context.Context, st *store.Store, id, name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("name network %s: %q is not a network name", id, name)
	}
	err := exclusive(ctx, st, nil, func(all []record.Network) (*store.Txn, error) {
		for _, n := range all {
			if n.Name == name && n.ID != id {
				return nil, fmt.Errorf("%w: network %s exists", ErrNameTaken, Title(n))
			}
		}
		it, err := store.Get[record.Network](ctx, st, st.Keys.Network(id))
		if err != nil || it.Value.Name == name {
			return nil, err
		}
		it.Value.Name = name
		return st.Txn().Unchanged(it.Key, it.Revision).Put(it.Key, it.Value).Put(st.Keys.NetworkGuard(), Guard{"name " + id}), nil
	})
	if err != nil {
		return fmt.Errorf("name network %s: %w", id, err)
	}
	return nil
}

// SetGateway gives a network another gateway. That is possible only before
// any host has claimed a block or pinned an address: [ErrInUse].
func SetGateway(ctx context.Context, st *store.Store, id string, gateway netip.Addr) (record.Network, error) {
	n, err := change(ctx, st, id, func(n *record.Network, t *store.Txn) error {
		if gateway.Is4() {
			n.Gateway = gateway.String()
		} else {
			n.Gateway6 = gateway.String()
		}
		for _, prefix := range []string{st.Keys.NetworkBlocks(id), st.Keys.NetworkPins(id)} {
			r, err := st.Client().Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil {
				return err
			}
			if r.Count > 0 {
				return fmt.Errorf("addresses are %w", ErrInUse)
			}
			t.If(none(prefix))
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("set gateway of network %s: %w", id, err)
	}
	return n, nil
}

// Reserve keeps addresses of a network from all containers, because
// something outside the fleet has them. Doing it twice is no error.
func Reserve(ctx context.Context, st *store.Store, id string, addrs ...netip.Addr) (record.Network, error) {
	n, err := change(ctx, st, id, func(n *record.Network, _ *store.Txn) error {
		for _, a := range addrs {
			if !slices.Contains(n.Reserved, a.String()) {
				n.Reserved = append(n.Reserved, a.String())
			}
		}
		return nil
	})
	if err != nil {
		return n, fmt.Errorf("reserve addresses of network %s: %w", id, err)
	}
	return n, nil
}

// Change writes a network after f has changed it; f is called again when
// somebody else changed it meanwhile. Its id, subnet and blocks must stay.
func Change(ctx context.Context, st *store.Store, id string, f func(*record.Network) error) (record.Network, error) {
	n, err := change(ctx, st, id, func(n *record.Network, _ *store.Txn) error { return f(n) })
	if err != nil {
		return n, fmt.Errorf("change network %s: %w", id, err)
	}
	return n, nil
}

// change is Change with further guards. The result must have a valid layout.
func change(ctx context.Context, st *store.Store, id string, f func(*record.Network, *store.Txn) error) (record.Network, error) {
	for {
		it, err := store.Get[record.Network](ctx, st, st.Keys.Network(id))
		if err != nil {
			return it.Value, err
		}
		t := st.Txn().Unchanged(it.Key, it.Revision)
		if err := f(&it.Value, t); err != nil {
			return it.Value, err
		}
		if _, err := Layouts(it.Value); err != nil {
			return it.Value, err
		}
		_, err = t.Put(it.Key, it.Value).Commit(ctx)
		if !errors.Is(err, store.ErrConflict) {
			return it.Value, err
		}
	}
}

// Join makes two networks that were made by hand a moment ago one: the second
// is the IPv6 half of the first. An engine asks for both pools before it says
// that they belong together. What the half has of addresses goes; pool ids
// that name it go on to work, see [Get]. Doing it twice is no error.
func Join(ctx context.Context, st *store.Store, id, half string) (record.Network, error) {
	var joined record.Network
	err := exclusive(ctx, st, nil, func([]record.Network) (*store.Txn, error) {
		a, err := store.Get[record.Network](ctx, st, st.Keys.Network(id))
		if err != nil {
			return nil, err
		}
		if joined = a.Value; a.Value.Joined == half {
			return nil, nil
		}
		b, err := store.Get[record.Network](ctx, st, st.Keys.Network(half))
		if err != nil {
			return nil, err
		}
		switch {
		case a.Value.Subnet6 != "":
			return nil, fmt.Errorf("network %s has an IPv6 subnet already", Title(a.Value))
		case b.Value.Subnet != "" || !b.Value.ByHand || b.Value.Name != "":
			return nil, fmt.Errorf("network %s is a network of its own", Title(b.Value))
		}
		n := &joined
		n.Subnet6, n.Gateway6, n.Range6, n.Pool6, n.BlockBits6 = b.Value.Subnet6, b.Value.Gateway6, b.Value.Range6, b.Value.Pool6, b.Value.BlockBits6
		n.Joined, n.Reserved = half, append(n.Reserved, b.Value.Reserved...)
		if _, err := Layouts(*n); err != nil {
			return nil, err
		}
		return remove(st, half).Unchanged(a.Key, a.Revision).Unchanged(b.Key, b.Revision).Put(a.Key, *n), nil
	})
	if err != nil {
		return joined, fmt.Errorf("join address families of network %s: %w", id, err)
	}
	return joined, nil
}

// none compares that no key exists under a prefix.
func none(prefix string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(prefix), "=", 0).WithPrefix()
}

// ClaimForeign gives the lower half of a network's subnet to the engine of
// the host that made the network with the engine's own IPAM; other hosts
// claim blocks of the upper half only. Doing it twice is no error.
func ClaimForeign(ctx context.Context, st *store.Store, n record.Network, host string, now time.Time) error {
	if n.Foreign != host {
		return fmt.Errorf("claim lower half of network %s: it was made on host %q, not on %q", Title(n), n.Foreign, host)
	}
	for _, subnet := range Subnets(n) {
		key := st.Keys.Block(n.ID, ipam.LowerHalf(subnet).String())
		_, err := st.Txn().Exists(st.Keys.Network(n.ID)).Absent(key).
			Put(key, record.Block{Host: host, State: record.BlockEngine, Since: now}).Commit(ctx)
		if errors.Is(err, store.ErrConflict) {
			_, err = store.Get[record.Block](ctx, st, key)
		}
		if err != nil {
			return fmt.Errorf("claim lower half of network %s: %w", Title(n), err)
		}
	}
	return nil
}
