package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Pools implements [api.Backend].
func (c *Controller) Pools(ctx context.Context) ([]api.Pool, error) {
	all, err := registry.Pools(ctx, c.store)
	if err != nil {
		return nil, err
	}
	out := []api.Pool{}
	for _, p := range all {
		d, err := c.Pool(ctx, p.Name)
		if errors.Is(err, store.ErrNotFound) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, d.Pool)
	}
	return out, nil
}

// Pool implements [api.Backend].
func (c *Controller) Pool(ctx context.Context, name string) (api.PoolDetail, error) {
	u, err := registry.InspectPool(ctx, c.store, name)
	if errors.Is(err, store.ErrNotFound) {
		return api.PoolDetail{}, noPool(name)
	}
	if err != nil {
		return api.PoolDetail{}, err
	}
	d := api.PoolDetail{
		Pool:  api.Pool{Pool: u.Pool, Networks: len(u.Networks), Subnets: u.Subnets, Free: u.Free},
		Taken: []api.PoolNetwork{},
	}
	for _, n := range u.Networks {
		d.Taken = append(d.Taken, api.PoolNetwork(n))
	}
	slices.SortFunc(d.Taken, func(a, b api.PoolNetwork) int { return strings.Compare(a.Name, b.Name) })
	return d, nil
}

func noPool(name string) error {
	return notFound("there is no address pool %s (docker clocker pool ls shows them)", name)
}

// AddPool implements [api.Backend].
func (c *Controller) AddPool(ctx context.Context, p record.Pool) (api.Pool, error) {
	if fence, _ := c.lead.get(); fence == nil {
		return api.Pool{}, unavailable("this controller no longer leads: try again")
	}
	if p.SubnetBits == 0 {
		if cidr, err := netip.ParsePrefix(p.CIDR); err == nil {
			p.SubnetBits = usualSize(cidr)
		}
	}
	if problems := checkPool(p); len(problems) > 0 {
		return api.Pool{}, invalid(fmt.Sprintf("address pool %s cannot be made:", p.Name), problems...)
	}
	s, err := c.netState(ctx)
	if err != nil {
		return api.Pool{}, err
	}
	if problems := s.poolRoutes(p); len(problems) > 0 {
		return api.Pool{}, conflictList(fmt.Sprintf("address pool %s cannot be made:", p.Name), problems)
	}
	err = registry.AddPool(ctx, c.store, p)
	switch {
	case errors.Is(err, registry.ErrOverlap), errors.Is(err, registry.ErrNameTaken):
		return api.Pool{}, conflict("%v", err)
	case err != nil:
		return api.Pool{}, err
	}
	c.emit(ctx, "network", "pool", p.Name, p.CIDR)
	d, err := c.Pool(ctx, p.Name)
	return d.Pool, err
}

// usualSize is how large a subnet of a pool is when nothing is said: one of
// the sizes that the default pools have, or a sixteenth of a small pool.
func usualSize(cidr netip.Prefix) int {
	if cidr.Addr().Is4() {
		return min(29, max(20, cidr.Bits()+4))
	}
	return min(120, max(64, cidr.Bits()+4))
}

// poolRoutes are the hosts' routes that a pool meets, with their hosts' names.
func (s *netState) poolRoutes(p record.Pool) []string {
	cidr, err := netip.ParsePrefix(p.CIDR)
	if err != nil {
		return nil // said by the registry
	}
	var out []string
	for _, id := range s.hostIDs() {
		for _, route := range s.routes[id] {
			if route.Bits() > 0 && route.Overlaps(cidr) && !s.ours(route) {
				out = append(out, fmt.Sprintf("%s meets the route to %s of host %s", cidr, route, s.hosts[id].Name))
			}
		}
	}
	return out
}

// checkPool is what is wrong with a pool by itself.
func checkPool(p record.Pool) (problems []string) {
	if !networkNamePattern.MatchString(p.Name) {
		problems = append(problems, fmt.Sprintf("name %q: letters, digits, '_', '.' and '-' are allowed, and it begins with a letter or digit", p.Name))
	}
	cidr, err := netip.ParsePrefix(p.CIDR)
	if err != nil {
		return append(problems, fmt.Sprintf("address range %q is not in CIDR form, like 10.96.0.0/12", p.CIDR))
	}
	if cidr != cidr.Masked() {
		problems = append(problems, fmt.Sprintf("address range %s has bits set beyond its prefix: it is %s", cidr, cidr.Masked()))
	}
	if err := ipam.CheckPool(cidr.Masked(), p.SubnetBits); err != nil {
		problems = append(problems, err.Error())
	}
	return problems
}

// RemovePool implements [api.Backend].
func (c *Controller) RemovePool(ctx context.Context, name string) error {
	if fence, _ := c.lead.get(); fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	err := registry.RemovePool(ctx, c.store, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return noPool(name)
	case errors.Is(err, registry.ErrInUse):
		return conflict("%v", err)
	}
	return err
}

// CheckPool implements [api.Backend]: it compares a pool with the hosts' routes
// and with the networks that take their subnets from it.
func (c *Controller) CheckPool(ctx context.Context, name string) ([]finding.Finding, error) {
	s, err := c.netState(ctx)
	if err != nil {
		return nil, err
	}
	p, ok := s.Pools[name]
	if !ok {
		return nil, noPool(name)
	}
	u, err := registry.InspectPool(ctx, c.store, name)
	if err != nil {
		return nil, err
	}
	return s.poolFindings(p, u), nil
}

// poolFindings is what is wrong with a pool.
func (s *netState) poolFindings(p record.Pool, u registry.PoolUsage) []finding.Finding {
	out := []finding.Finding{}
	add := func(text, hint string) {
		out = append(out, finding.Finding{Part: "pools", Subject: p.Name, Text: text, Hint: hint})
	}
	cidr, err := netip.ParsePrefix(p.CIDR)
	if err != nil {
		add(fmt.Sprintf("%q is not an address range", p.CIDR), "remove the pool and add it again")
		return out
	}
	for _, text := range s.poolRoutes(p) {
		add(text, "subnets there are left out; take the route away, or make a pool elsewhere with docker clocker pool add")
	}
	for _, other := range s.Pools {
		if o, err := netip.ParsePrefix(other.CIDR); err == nil && other.Name != p.Name && o.Overlaps(cidr) {
			add(fmt.Sprintf("%s overlaps pool %s (%s)", cidr, other.Name, o), "remove one of the two")
		}
	}
	if u.Free <= 0 {
		add(fmt.Sprintf("all %d subnets of /%d are taken", u.Subnets, p.SubnetBits), "remove networks, or add a pool with docker clocker pool add")
	}
	for _, n := range u.Networks {
		if n.Size > 0 && int64(n.Addresses) >= n.Size*9/10 {
			add(fmt.Sprintf("network %s has %d of %d addresses in use", n.Name, n.Addresses, n.Size), "make a larger network, and move containers to it")
		}
	}
	return out
}
