package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/store"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// grant is what one permission of a host lets it do with a key, or with all
// keys of a prefix.
type grant struct {
	key    string
	prefix bool
	kind   clientv3.PermissionType
}

// hostGrants are the permissions of a host: to read what it must know, and to
// write what only it can tell. The keys of networks that several hosts share
// (which networks there are, their blocks, addresses and pins) have the host
// inside or not at all in their names, so each host may write them; what the
// controllers decide (pools, services, published ports, rules, attached
// machines) and what other hosts say of themselves is read-only.
func hostGrants(k store.Keys, id string) []grant {
	const read, write, both = clientv3.PermissionType(clientv3.PermRead), clientv3.PermissionType(clientv3.PermWrite), clientv3.PermissionType(clientv3.PermReadWrite)
	return []grant{
		{k.Hosts() + id + "/", true, read},
		{k.HostFacts(id), false, both},
		{k.HostUsage(id), false, both},
		{k.HostLease(id), false, both},
		{k.HostFence(id), false, both},
		{k.HostRestored(id), false, both},
		{k.HostAssignments(id), true, read},
		{k.HostObserved(id), true, both},
		{k.Net(), true, read},
		{k.Underlay(id), false, both},
		{k.Live(id), false, both},
		{k.HostNames(id), true, both},
		{k.NetworkGuard(), false, both},
		{k.Networks(), true, both},
		{k.AllUses(), true, both},
		{k.Blocks(), true, both},
		{k.Endpoints(), true, both},
		{k.Pins(), true, both},
		{k.Asks(), true, both},
		{k.Volumes(), true, both},
		{k.Events(), true, write},
	}
}

func (g grant) end() string {
	if g.prefix {
		return clientv3.GetPrefixRangeEnd(g.key)
	}
	return ""
}

// grantHost makes a host's etcd user and gives it its permissions, and no
// others: those that an older program gave too widely are taken back. It is
// safe to repeat.
func (c *Controller) grantHost(ctx context.Context, id string) error {
	if !c.etcd.auth {
		return nil
	}
	user := ca.HostCommonName(id)
	cl := c.etcd.client
	if _, err := cl.RoleAdd(ctx, user); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return fmt.Errorf("grant host: %w", err)
	}
	role, err := cl.RoleGet(ctx, user)
	if err != nil {
		return fmt.Errorf("grant host: %w", err)
	}
	has := map[[2]string]clientv3.PermissionType{}
	for _, p := range role.Perm {
		has[[2]string{string(p.Key), string(p.RangeEnd)}] = clientv3.PermissionType(p.PermType)
	}
	// First what is lacking, then what is too much: a host that works goes on.
	for _, g := range hostGrants(c.store.Keys, id) {
		at := [2]string{g.key, g.end()}
		kind, there := has[at]
		delete(has, at)
		if there && kind == g.kind {
			continue
		}
		if _, err := cl.RoleGrantPermission(ctx, user, g.key, g.end(), g.kind); err != nil {
			return fmt.Errorf("grant host: %w", err)
		}
	}
	for at := range has {
		if _, err := cl.RoleRevokePermission(ctx, user, at[0], at[1]); err != nil && !errors.Is(err, rpctypes.ErrPermissionNotGranted) {
			return fmt.Errorf("narrow host: %w", err)
		}
	}
	if _, err := cl.UserAddWithOptions(ctx, user, "", &clientv3.UserAddOptions{NoPassword: true}); err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
		return fmt.Errorf("grant host: %w", err)
	}
	if _, err := cl.UserGrantRole(ctx, user, user); err != nil {
		return fmt.Errorf("grant host: %w", err)
	}
	return nil
}

// grantHosts brings every host's permissions to what this program gives. It is
// done once by each new leader.
func (c *Controller) grantHosts(ctx context.Context) {
	c.cache.mu.RLock()
	ids := slices.Collect(maps.Keys(c.cache.hosts))
	c.cache.mu.RUnlock()
	for _, id := range ids {
		if err := c.grantHost(ctx, id); err != nil && ctx.Err() == nil {
			c.log.Warn("permissions of a host cannot be set, they stay as they were", "host", id, "error", err)
		}
	}
}

// revokeHost takes a host's etcd user away; it is safe to repeat.
func (c *Controller) revokeHost(ctx context.Context, id string) error {
	if !c.etcd.auth {
		return nil
	}
	user := ca.HostCommonName(id)
	if _, err := c.etcd.client.UserDelete(ctx, user); err != nil && !errors.Is(err, rpctypes.ErrUserNotFound) {
		return fmt.Errorf("revoke host: %w", err)
	}
	if _, err := c.etcd.client.RoleDelete(ctx, user); err != nil && !errors.Is(err, rpctypes.ErrRoleNotFound) {
		return fmt.Errorf("revoke host: %w", err)
	}
	return nil
}
