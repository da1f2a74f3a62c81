package controller

import (
	"context"
	"errors"
	"fmt"

	"clocker.io/clocker/pkg/fleet/ca"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// grantHost lets a host's etcd user reach its own keys and the network's.
func (c *Controller) grantHost(ctx context.Context, id string) error {
	if !c.etcd.auth {
		return nil
	}
	user := ca.HostCommonName(id)
	cl, k := c.etcd.client, c.store.Keys
	if _, err := cl.RoleAdd(ctx, user); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return fmt.Errorf("grant host: %w", err)
	}
	for _, p := range []string{k.Hosts() + id + "/", k.HostAssignments(id), k.HostObserved(id), k.Net(), k.Volumes(), k.Events()} {
		if _, err := cl.RoleGrantPermission(ctx, user, p, clientv3.GetPrefixRangeEnd(p), clientv3.PermissionType(clientv3.PermReadWrite)); err != nil {
			return fmt.Errorf("grant host: %w", err)
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
