package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
)

// FleetControllers lists the fleet's controllers by name.
func (c *Client) FleetControllers(ctx context.Context) ([]Controller, error) {
	var out []Controller
	err := c.get(ctx, "/controllers", nil, &out)
	return out, err
}

// FleetController describes one controller; [ErrNotFound] when there is none.
func (c *Client) FleetController(ctx context.Context, name string) (Controller, error) {
	var out Controller
	err := c.get(ctx, controllerPath(name), nil, &out)
	return out, err
}

// AddController asks for a place for a controller that is about to be made. It
// can be repeated: the same controller keeps its place. [ErrConflict] when
// another one is in the way.
func (c *Client) AddController(ctx context.Context, r ControllerRequest) (ControllerPlace, error) {
	var out ControllerPlace
	err := c.unary(ctx, call{method: http.MethodPost, path: "/controllers", body: r}, &out)
	return out, err
}

// RemoveController takes a controller out of the fleet: its member of etcd,
// its leadership, its record. [ErrNotFound] when there is none, [ErrConflict]
// when etcd would lose its majority, or when it is the last one, or when it
// does not answer and force is not set.
func (c *Client) RemoveController(ctx context.Context, name string, force bool) error {
	q := url.Values{}
	if force {
		q.Set("force", "1")
	}
	return c.unary(ctx, call{method: http.MethodDelete, path: controllerPath(name), query: q}, nil)
}

// Snapshot opens a snapshot of the fleet's etcd, which the caller closes. It
// holds every secret that is in etcd; its last 32 bytes are the SHA-256 of
// those before.
func (c *Client) Snapshot(ctx context.Context) (io.ReadCloser, error) {
	res, err := c.do(ctx, call{method: http.MethodPost, path: "/snapshot", stream: true})
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// Restored lists the hosts that have not settled with a restored etcd.
func (c *Client) Restored(ctx context.Context) ([]RestoredHost, error) {
	var out []RestoredHost
	err := c.get(ctx, "/restored", nil, &out)
	return out, err
}

// Settle ends what a restore holds back: every host becomes what etcd says.
func (c *Client) Settle(ctx context.Context) error {
	return c.unary(ctx, call{method: http.MethodDelete, path: "/restored"}, nil)
}

func controllerPath(name string) string { return "/controllers/" + url.PathEscape(name) }
