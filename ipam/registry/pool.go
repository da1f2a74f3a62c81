package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Pools returns every address pool, in the order of their names.
func Pools(ctx context.Context, st *store.Store) ([]record.Pool, error) {
	items, _, err := store.List[record.Pool](ctx, st, st.Keys.Pools())
	if err != nil {
		return nil, err
	}
	ps := make([]record.Pool, len(items))
	for i, it := range items {
		ps[i] = it.Value
	}
	return ps, nil
}

// AddPool makes an address pool, of the family of its CIDR. A pool of that
// name is [ErrNameTaken]; one that meets another pool, or a route of a host,
// is [ErrOverlap], and the message names which.
func AddPool(ctx context.Context, st *store.Store, p record.Pool) error {
	if err := addPool(ctx, st, p, false); err != nil {
		return fmt.Errorf("create address pool %q: %w", p.Name, err)
	}
	return nil
}

// EnsurePool makes an address pool. One that exists with the same content is
// no error; with another content, or overlapping another pool, it is. Routes
// of hosts do not matter: networks keep away from them.
func EnsurePool(ctx context.Context, st *store.Store, p record.Pool) error {
	if err := addPool(ctx, st, p, true); err != nil {
		return fmt.Errorf("create address pool %q: %w", p.Name, err)
	}
	return nil
}

func addPool(ctx context.Context, st *store.Store, p record.Pool, again bool) error {
	if !namePattern.MatchString(p.Name) {
		return errors.New("only letters, digits, '_', '.' and '-' are allowed in a name")
	}
	cidr, err := netip.ParsePrefix(p.CIDR)
	if err != nil {
		return fmt.Errorf("%q is not an address range", p.CIDR)
	}
	if err := ipam.CheckPool(cidr, p.SubnetBits); err != nil {
		return err
	}
	if !again {
		hosts, err := hosts(ctx, st)
		if err != nil {
			return err
		}
		if err := hosts.clash("range", cidr); err != nil {
			return err
		}
	}
	return exclusive(ctx, st, nil, func([]record.Network) (*store.Txn, error) {
		pools, err := Pools(ctx, st)
		if err != nil {
			return nil, err
		}
		for _, other := range pools {
			if other == p && again {
				return nil, nil
			}
			if other.Name == p.Name {
				return nil, fmt.Errorf("%w: it exists as %s with subnets of /%d", ErrNameTaken, other.CIDR, other.SubnetBits)
			}
			if o, err := netip.ParsePrefix(other.CIDR); err == nil && o.Overlaps(cidr) {
				return nil, fmt.Errorf("%s %w pool %q (%s)", cidr, ErrOverlap, other.Name, other.CIDR)
			}
		}
		key := st.Keys.Pool(p.Name)
		return st.Txn().Absent(key).Put(key, p).Put(st.Keys.NetworkGuard(), Guard{"create pool " + p.Name}), nil
	})
}

// RemovePool removes an address pool. It returns [ErrInUse], naming the
// networks, while one has its subnet from it, and [store.ErrNotFound] when
// there is no such pool, both wrapped.
func RemovePool(ctx context.Context, st *store.Store, name string) error {
	err := exclusive(ctx, st, nil, func(all []record.Network) (*store.Txn, error) {
		it, cidr, err := getPool(ctx, st, name)
		if err != nil {
			return nil, err
		}
		var titles []string
		for _, n := range all {
			if _, ok := inPool(n, name, cidr); ok {
				titles = append(titles, Title(n))
			}
		}
		if len(titles) > 0 {
			return nil, fmt.Errorf("%w by %s: remove them first", ErrInUse, strings.Join(titles, ", "))
		}
		return st.Txn().Unchanged(it.Key, it.Revision).Delete(it.Key).Put(st.Keys.NetworkGuard(), Guard{"delete pool " + name}), nil
	})
	if err != nil {
		return fmt.Errorf("remove address pool %q: %w", name, err)
	}
	return nil
}

func getPool(ctx context.Context, st *store.Store, name string) (store.Item[record.Pool], netip.Prefix, error) {
	it, err := store.Get[record.Pool](ctx, st, st.Keys.Pool(name))
	if errors.Is(err, store.ErrNotFound) {
		return it, netip.Prefix{}, fmt.Errorf("address pool %q does not exist: %w", name, store.ErrNotFound)
	} else if err != nil {
		return it, netip.Prefix{}, err
	}
	cidr, err := netip.ParsePrefix(it.Value.CIDR)
	if err != nil {
		return it, cidr, fmt.Errorf("read pool %s: %w", name, err)
	}
	return it, cidr, nil
}

// inPool returns the subnet that a network has from a pool: the one taken from
// it, or one asked for that lies in it.
func inPool(n record.Network, name string, pool netip.Prefix) (netip.Prefix, bool) {
	for _, s := range []struct{ subnet, pool string }{{n.Subnet, n.Pool}, {n.Subnet6, n.Pool6}} {
		p, err := netip.ParsePrefix(s.subnet)
		if err == nil && (s.pool == name || s.pool == "" && p.Overlaps(pool)) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// PoolUsage is how much of a pool is taken.
type PoolUsage struct {
	Pool record.Pool
	// Networks have a subnet in the pool, in the order of their ids.
	Networks []NetworkUsage
	// Subnets is how many subnets of the pool's size there are in all, and
	// Free how many of them meet no network and no route of a host; both are
	// at most the highest int64.
	Subnets, Free int64
}

// NetworkUsage is how much of a network's subnet is taken.
type NetworkUsage struct {
	ID, Name string
	// Subnet is the one in the pool, in CIDR form.
	Subnet string
	// Size is how many addresses it has (at most the highest int64), Blocks how many
	// blocks hosts own, Addresses how many addresses are in use, and Pins how
	// many of them are outside their host's blocks.
	Size                    int64
	Blocks, Addresses, Pins int
}

// InspectPool says what of a pool is taken. It returns [store.ErrNotFound],
// wrapped, when there is no such pool.
func InspectPool(ctx context.Context, st *store.Store, name string) (PoolUsage, error) {
	u, err := inspectPool(ctx, st, name)
	if err != nil {
		return u, fmt.Errorf("inspect address pool: %w", err)
	}
	return u, nil
}

func inspectPool(ctx context.Context, st *store.Store, name string) (PoolUsage, error) {
	it, cidr, err := getPool(ctx, st, name)
	if err != nil {
		return PoolUsage{}, err
	}
	all, err := List(ctx, st)
	if err != nil {
		return PoolUsage{}, err
	}
	hosts, err := hosts(ctx, st)
	if err != nil {
		return PoolUsage{}, err
	}
	u := PoolUsage{Pool: it.Value, Networks: []NetworkUsage{}}
	var taken []netip.Prefix
	for _, n := range all {
		p, ok := inPool(n, name, cidr)
		if !ok {
			continue
		}
		taken = append(taken, p)
		nu := NetworkUsage{ID: n.ID, Name: n.Name, Subnet: p.String(), Size: ipam.Size(p)}
		for prefix, count := range map[string]*int{
			st.Keys.NetworkBlocks(n.ID): &nu.Blocks, st.Keys.Endpoint(n.ID, ""): &nu.Addresses, st.Keys.NetworkPins(n.ID): &nu.Pins,
		} {
			if *count, err = countIn(ctx, st, prefix, p); err != nil {
				return u, err
			}
		}
		u.Networks = append(u.Networks, nu)
	}
	u.Subnets = ipam.Size(netip.PrefixFrom(cidr.Addr(), cidr.Addr().BitLen()-it.Value.SubnetBits+cidr.Bits()))
	u.Free = u.Subnets - ipam.Taken(cidr, it.Value.SubnetBits, append(taken, hosts.avoid()...))
	return u, nil
}

// countIn counts the keys under a prefix that name an address or a block of a
// subnet.
func countIn(ctx context.Context, st *store.Store, prefix string, subnet netip.Prefix) (int, error) {
	r, err := st.Client().Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	count := 0
	for _, kv := range r.Kvs {
		name, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), prefix), "_")
		if a, err := netip.ParseAddr(name); err == nil && subnet.Contains(a) {
			count++
		}
	}
	return count, nil
}
