package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// EnsurePool makes an address pool. One that exists with the same content is
// no error; with another content, or overlapping another pool, it is.
func EnsurePool(ctx context.Context, st *store.Store, p record.Pool) error {
	if err := ensurePool(ctx, st, p); err != nil {
		return fmt.Errorf("create address pool %q: %w", p.Name, err)
	}
	return nil
}

func ensurePool(ctx context.Context, st *store.Store, p record.Pool) error {
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
	return exclusive(ctx, st, nil, func([]record.Network) (*store.Txn, error) {
		pools, _, err := store.List[record.Pool](ctx, st, st.Keys.Pools())
		if err != nil {
			return nil, err
		}
		for _, it := range pools {
			other := it.Value
			if other == p {
				return nil, nil
			}
			if other.Name == p.Name {
				return nil, fmt.Errorf("it exists as %s with subnets of /%d", other.CIDR, other.SubnetBits)
			}
			if o, err := netip.ParsePrefix(other.CIDR); err == nil && o.Overlaps(cidr) {
				return nil, fmt.Errorf("%s %w pool %q (%s)", cidr, ErrOverlap, other.Name, other.CIDR)
			}
		}
		key := st.Keys.Pool(p.Name)
		return st.Txn().Absent(key).Put(key, p).Put(st.Keys.NetworkGuard(), Guard{"create pool " + p.Name}), nil
	})
}
