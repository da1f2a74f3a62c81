package api

import (
	"context"
	"net/http"
)

// CA describes the fleet's authority, and who has certificates of it.
func (c *Client) CA(ctx context.Context) (CA, error) {
	var out CA
	err := c.get(ctx, "/ca", nil, &out)
	return out, err
}

// ChangeCA begins a change of the authority, hurries it or takes it back. Each
// can be repeated. [ErrConflict] when it is too late, or too early, for it.
func (c *Client) ChangeCA(ctx context.Context, r CARequest) (CA, error) {
	var out CA
	err := c.unary(ctx, call{method: http.MethodPost, path: "/ca", body: r, repeat: true}, &out)
	return out, err
}
