package api

import (
	"context"
	"net/http"
	"net/url"
)

// Headroom tells the policy about the number of hosts and what it comes to.
func (c *Client) Headroom(ctx context.Context) (Headroom, error) {
	var out Headroom
	err := c.get(ctx, "/headroom", nil, &out)
	return out, err
}

// SetHeadroom replaces the policy: [ErrInvalid] with everything that is wrong
// at once, [ErrConflict] when somebody else was faster.
func (c *Client) SetHeadroom(ctx context.Context, r HeadroomRequest) (Headroom, error) {
	var out Headroom
	err := c.unary(ctx, call{method: http.MethodPut, path: "/headroom", body: r}, &out)
	return out, err
}

// RemoveHeadroom takes the policy away; none is no error.
func (c *Client) RemoveHeadroom(ctx context.Context) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: "/headroom"}, nil)
}

// Providers lists the sources of hosts by name.
func (c *Client) Providers(ctx context.Context) ([]Provider, error) {
	var out []Provider
	err := c.get(ctx, "/providers", nil, &out)
	return out, err
}

// Provider describes one; [ErrNotFound] when there is none.
func (c *Client) Provider(ctx context.Context, name string) (Provider, error) {
	var out Provider
	err := c.get(ctx, "/providers/"+url.PathEscape(name), nil, &out)
	return out, err
}

// AddProvider adds a source of hosts: [ErrInvalid] with everything that is
// wrong at once, [ErrConflict] when its name or a machine of it is known.
func (c *Client) AddProvider(ctx context.Context, r ProviderRequest) (Provider, error) {
	var out Provider
	err := c.unary(ctx, call{method: http.MethodPost, path: "/providers", body: r}, &out)
	return out, err
}

// RemoveProvider takes a source away: [ErrConflict] while machines of it are in
// use.
func (c *Client) RemoveProvider(ctx context.Context, name string) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: "/providers/" + url.PathEscape(name)}, nil)
}

// Machines lists the machines that providers were asked for.
func (c *Client) Machines(ctx context.Context) ([]Machine, error) {
	var out []Machine
	err := c.get(ctx, "/machines", nil, &out)
	return out, err
}

// ReleaseMachine lets a machine go, by its id, name or handle: one on its way
// is cancelled, a host drained and removed, a failed one may be used again.
func (c *Client) ReleaseMachine(ctx context.Context, name string) (Machine, error) {
	var out Machine
	err := c.unary(ctx, call{method: http.MethodDelete, path: "/machines/" + url.PathEscape(name)}, &out)
	return out, err
}
