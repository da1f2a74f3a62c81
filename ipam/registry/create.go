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
	mtu, err := defaultMTU(ctx, st, or(r.Carrier, "direct"))
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
		subnet, err := chooseSubnet(ctx, st, r, all)
		if err != nil {
			return nil, err
		}
		if made, err = r.network(id, subnet, mtu, now); err != nil {
			return nil, err
		}
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
		if r.Subnet.IsValid() && n.Subnet != r.Subnet.String() {
			return record.Network{}, false, fmt.Errorf("%w: network %s exists with another subnet than %s", ErrNameTaken, Title(n), r.Subnet)
		}
		return n, true, nil
	}
	return record.Network{}, false, nil
}

func chooseSubnet(ctx context.Context, st *store.Store, r Request, all []record.Network) (netip.Prefix, error) {
	taken := make([]netip.Prefix, 0, len(all)+len(r.Avoid))
	for _, n := range all {
		p, err := netip.ParsePrefix(n.Subnet)
		if err != nil {
			return p, fmt.Errorf("read network %s: %w", n.ID, err)
		}
		if r.Subnet.IsValid() && r.Subnet.Overlaps(p) {
			return p, fmt.Errorf("subnet %s %w network %s", r.Subnet, ErrOverlap, Title(n))
		}
		taken = append(taken, p)
	}
	if r.Subnet.IsValid() {
		return r.Subnet, nil
	}
	for _, route := range r.Avoid {
		if route.Bits() > 0 {
			taken = append(taken, route)
		}
	}
	pool, err := store.Get[record.Pool](ctx, st, st.Keys.Pool(or(r.Pool, DefaultPool)))
	if errors.Is(err, store.ErrNotFound) {
		return netip.Prefix{}, fmt.Errorf("address pool %q does not exist: %w", or(r.Pool, DefaultPool), store.ErrNotFound)
	} else if err != nil {
		return netip.Prefix{}, err
	}
	cidr, err := netip.ParsePrefix(pool.Value.CIDR)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read pool %s: %w", pool.Value.Name, err)
	}
	bits := pool.Value.SubnetBits
	if r.SubnetBits != 0 {
		bits = r.SubnetBits
	}
	subnet, err := ipam.ChooseSubnet(cidr, bits, taken)
	if errors.Is(err, ipam.ErrNoSubnet) {
		return subnet, fmt.Errorf("%w in pool %q (%s, for a /%d) beside %d networks and %d routes of hosts",
			ErrPoolExhausted, pool.Value.Name, cidr, bits, len(all), len(r.Avoid))
	}
	return subnet, err
}

// defaultMTU is what every host can carry in one packet.
func defaultMTU(ctx context.Context, st *store.Store, carrier string) (int, error) {
	hosts, _, err := store.List[record.Underlay](ctx, st, st.Keys.Underlays())
	if err != nil {
		return 0, err
	}
	mtu := 0
	for _, h := range hosts {
		if h.Value.MTU > 0 && (mtu == 0 || h.Value.MTU < mtu) {
			mtu = h.Value.MTU
		}
	}
	if mtu == 0 {
		mtu = 1500 // Ethernet: no host has said anything yet.
	}
	return mtu - Overhead(carrier), nil
}
