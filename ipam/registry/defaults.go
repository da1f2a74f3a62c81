package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// The pools of networks that name none.
const (
	DefaultPool  = "default"
	DefaultPool6 = "default6"
)

// defaultRanges are where the default pool may be, the best first: parts of
// the private ranges (RFC 1918) that home routers, VPNs and the engines' own
// pools seldom use.
var defaultRanges = []string{"10.208.0.0/12", "10.96.0.0/12", "10.160.0.0/12", "10.32.0.0/12", "172.24.0.0/13", "192.168.128.0/17"}

// EnsureDefaults makes the pools [DefaultPool] and [DefaultPool6] unless they
// exist, whatever is in them. The first is the first of a few private ranges
// that meets no pool and no route of any host, the second a /48 of unique
// local addresses drawn at random (RFC 4193).
func EnsureDefaults(ctx context.Context, st *store.Store) error {
	hosts, err := hosts(ctx, st)
	if err != nil {
		return err
	}
	pools, err := Pools(ctx, st)
	if err != nil {
		return err
	}
	avoid, have := hosts.avoid(), map[string]bool{}
	for _, p := range pools {
		have[p.Name] = true
		if cidr, err := netip.ParsePrefix(p.CIDR); err == nil {
			avoid = append(avoid, cidr)
		}
	}
	for _, p := range []record.Pool{defaultPool(avoid), {Name: DefaultPool6, CIDR: localRange().String(), SubnetBits: 64}} {
		if have[p.Name] {
			continue
		}
		// Another controller may be making them at this moment.
		if err := EnsurePool(ctx, st, p); err != nil && !errors.Is(err, ErrNameTaken) {
			return err
		}
	}
	return nil
}

func defaultPool(avoid []netip.Prefix) record.Pool {
	p := record.Pool{Name: DefaultPool, CIDR: defaultRanges[0], SubnetBits: 20}
	for _, s := range defaultRanges {
		if _, met := ipam.Overlapping(netip.MustParsePrefix(s), avoid); !met {
			p.CIDR = s
			break
		}
	}
	return p
}

// localRange draws a /48 of fd00::/8.
func localRange() netip.Prefix {
	a := [16]byte{0: 0xfd}
	_, _ = rand.Read(a[1:6]) // never fails, see crypto/rand
	return netip.PrefixFrom(netip.AddrFrom16(a), 48)
}
