package api

import (
	"context"
	"net/http"
	"net/url"
)

// Placement explains where the replicas of an application are and why, and
// what each host has to say to the next one; an empty service means all.
func (c *Client) Placement(ctx context.Context, app, service string) ([]ServicePlacement, error) {
	q := url.Values{}
	if service != "" {
		q.Set("service", service)
	}
	var out []ServicePlacement
	err := c.get(ctx, appPath(app)+"/placement", q, &out)
	return out, err
}

// PlacementPolicy is what holds for every application of the fleet.
func (c *Client) PlacementPolicy(ctx context.Context) (PlacementPolicy, error) {
	var out PlacementPolicy
	err := c.get(ctx, "/policy/placement", nil, &out)
	return out, err
}

// SetPlacementPolicy replaces the policy of the revision that it names:
// [ErrInvalid] with everything that is wrong at once, [ErrConflict] when
// somebody else has changed it since.
func (c *Client) SetPlacementPolicy(ctx context.Context, p PlacementPolicy) (PlacementPolicy, error) {
	var out PlacementPolicy
	err := c.unary(ctx, call{method: http.MethodPut, path: "/policy/placement", body: p}, &out)
	return out, err
}
