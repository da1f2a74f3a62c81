package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Guard is the record under [store.Keys.NetworkGuard].
type Guard struct {
	// Last says what was changed last, for a human reader.
	Last string `json:"last"`
}

// Create makes a network. With Name and App both set it returns the network
// that exists under them already. It returns [ErrOverlap] (naming the other
// network), [ErrPoolExhausted], [ErrNameTaken] or, when a guard of the
// caller does not hold, [store.ErrConflict], all wrapped.
func Create(ctx context.Context, st *store.Store, now time.Time, r Request, guards ...clientv3.Cmp) (record.Network, error) {
	n, err := create(ctx, st, now, r, guards)
	if err != nil {
		return record.Network{}, fmt.Errorf("create network: %w", err)
	}
	return n, nil
}

func create(ctx context.Context, st *store.Store, now time.Time, r Request, guards []clientv3.Cmp) (record.Network, error) {
	if err := r.check(); err != nil {
		return record.Network{}, err
	}
	hosts, err := hosts(ctx, st)
	if err != nil {
		return record.Network{}, err
	}
	id := or(r.ID, NewID())
	var made record.Network
	err = exclusive(ctx, st, guards, func(all []record.Network) (*store.Txn, error) {
		if n, ok, err := sameName(r, all); err != nil || ok {
			made = n
			return nil, err
		}
		subnets, err := chooseSubnets(ctx, st, r, all, hosts)
		if err != nil {
			return nil, err
		}
		if made, err = r.network(id, subnets, hosts.mtu(Way(r.Segment, r.Carrier)), now); err != nil {
			return nil, err
		}
		made.VNI = freeVNI(all, rand.IntN)
		key := st.Keys.Network(id)
		t := st.Txn().Absent(key).Put(key, made).Put(st.Keys.NetworkGuard(), Guard{"create " + id})
		if r.UsedBy != "" {
			t.Put(st.Keys.NetworkUse(id, r.UsedBy), record.NetworkUse{Host: r.UsedBy, Made: r.ByHand, Since: now})
		}
		return t, nil
	})
	return made, err
}

// exclusive carries out what decide says, on the networks that exist at that
// moment and with no network added or renamed meanwhile. decide is called
// again after each conflict; without a transaction there is nothing to do.
func exclusive(ctx context.Context, st *store.Store, guards []clientv3.Cmp, decide func([]record.Network) (*store.Txn, error)) error {
	last := int64(-1)
	for {
		guard, err := store.Get[Guard](ctx, st, st.Keys.NetworkGuard())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if guard.Revision == last && len(guards) > 0 {
			// Nobody else touched the networks: it is a guard of the
			// caller that does not hold.
			return store.ErrConflict
		}
		last = guard.Revision
		all, err := List(ctx, st)
		if err != nil {
			return err
		}
		t, err := decide(all)
		if t == nil || err != nil {
			return err
		}
		_, err = t.If(guards...).Unchanged(guard.Key, guard.Revision).Commit(ctx)
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		// Whoever lost the race waits a moment of its own length, so that
		// many hosts do not collide for ever.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(10 * time.Millisecond)):
		}
	}
}

// sameName finds the network that a request would make a second time.
func sameName(r Request, all []record.Network) (record.Network, bool, error) {
	if r.Name == "" {
		return record.Network{}, false, nil
	}
	for _, n := range all {
		if n.Name != r.Name {
			continue
		}
		if r.App == "" || n.App != r.App {
			return record.Network{}, false, fmt.Errorf("%w: network %s exists", ErrNameTaken, Title(n))
		}
		for _, w := range r.wants() {
			if has := map[bool]string{false: n.Subnet, true: n.Subnet6}[w.v6]; has == "" || w.subnet.IsValid() && has != w.subnet.String() {
				return record.Network{}, false, fmt.Errorf("%w: network %s exists with another subnet than %s", ErrNameTaken, Title(n), w)
			}
		}
		return n, true, nil
	}
	return record.Network{}, false, nil
}

// String says what is wanted.
func (w want) String() string {
	switch {
	case w.subnet.IsValid():
		return w.subnet.String()
	case w.v6:
		return "an IPv6 one"
	default:
		return "an IPv4 one"
	}
}

// chooseSubnets finds a subnet of each family that is wanted. What speaks
// against those asked for comes all at once.
func chooseSubnets(ctx context.Context, st *store.Store, r Request, all []record.Network, hosts underlays) ([]netip.Prefix, error) {
	var subnets []netip.Prefix
	var errs []error
	for _, w := range r.wants() {
		p, err := w.choose(ctx, st, r.Avoid, all, hosts)
		errs, subnets = append(errs, err), append(subnets, p)
	}
	return subnets, errors.Join(errs...)
}

func (w want) choose(ctx context.Context, st *store.Store, avoid []netip.Prefix, all []record.Network, hosts underlays) (netip.Prefix, error) {
	var taken []netip.Prefix
	for _, n := range all {
		for _, p := range Subnets(n) {
			if w.subnet.IsValid() && w.subnet.Overlaps(p) {
				return p, fmt.Errorf("subnet %s %w network %s", w.subnet, ErrOverlap, Title(n))
			}
			taken = append(taken, p)
		}
	}
	if w.subnet.IsValid() {
		if err := hosts.clash("subnet", w.subnet); err != nil {
			return w.subnet, err
		}
		// The caller's own routes may be news.
		for _, route := range avoid {
			if route.Bits() > 0 && route.Overlaps(w.subnet) {
				return w.subnet, fmt.Errorf("subnet %s %w to %s of a host", w.subnet, ErrRoute, route)
			}
		}
		return w.subnet, nil
	}
	routes := hosts.avoid()
	for _, route := range avoid {
		if route.Bits() > 0 {
			routes = append(routes, route)
		}
	}
	it, cidr, err := getPool(ctx, st, w.pool)
	if err != nil {
		return netip.Prefix{}, err
	}
	if cidr.Addr().Is4() == w.v6 {
		return netip.Prefix{}, fmt.Errorf("address pool %q is %s, which is of the other address family", w.pool, cidr)
	}
	bits := it.Value.SubnetBits
	if w.bits != 0 {
		bits = w.bits
	}
	subnet, err := ipam.ChooseSubnet(cidr, bits, append(taken, routes...))
	if errors.Is(err, ipam.ErrNoSubnet) {
		return subnet, fmt.Errorf("%w in pool %q (%s, for a /%d) beside %d networks and %d routes of hosts: "+
			"add another pool (docker clocker pool add), or give a --subnet", ErrPoolExhausted, w.pool, cidr, bits, len(all), len(routes))
	}
	return subnet, err
}
