package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Info describes the controller that answers, and the fleet.
func (c *Client) Info(ctx context.Context) (Info, error) {
	var out Info
	err := c.get(ctx, "/info", nil, &out)
	return out, err
}

// Applications lists the fleet's applications by name.
func (c *Client) Applications(ctx context.Context) ([]Application, error) {
	var out []Application
	err := c.get(ctx, "/applications", nil, &out)
	return out, err
}

// Application describes one application; [ErrNotFound] when there is none.
func (c *Client) Application(ctx context.Context, app string) (ApplicationDetail, error) {
	var out ApplicationDetail
	err := c.get(ctx, appPath(app), nil, &out)
	return out, err
}

// Tasks lists the tasks of an application, or of all when app is "".
func (c *Client) Tasks(ctx context.Context, app string) ([]Task, error) {
	q := url.Values{}
	if app != "" {
		q.Set("app", app)
	}
	var out []Task
	err := c.get(ctx, "/tasks", q, &out)
	return out, err
}

// Hosts lists the fleet's hosts by name.
func (c *Client) Hosts(ctx context.Context) ([]Host, error) {
	var out []Host
	err := c.get(ctx, "/hosts", nil, &out)
	return out, err
}

// Host describes one host; [ErrNotFound] when there is none.
func (c *Client) Host(ctx context.Context, host string) (Host, error) {
	var out Host
	err := c.get(ctx, hostPath(host), nil, &out)
	return out, err
}

// RegisterHost asks for a place in the fleet for a host that is about to be
// adopted: [ErrConflict] when its name or engine is known already.
func (c *Client) RegisterHost(ctx context.Context, r HostRequest) (HostCredentials, error) {
	var out HostCredentials
	err := c.unary(ctx, call{method: http.MethodPost, path: "/hosts", body: r}, &out)
	return out, err
}

// Cancel takes back the release that is under way: [ErrConflict] when there is
// none. It returns at once; the release's progress shows the way back.
func (c *Client) Cancel(ctx context.Context, app string) error {
	return c.unary(ctx, call{method: http.MethodPost, path: appPath(app) + "/cancel"}, nil)
}

// ExecState tells how a command run by [Client.Exec] is getting on.
func (c *Client) ExecState(ctx context.Context, task, exec string) (ExecState, error) {
	var out ExecState
	err := c.get(ctx, execPath(task, exec), nil, &out)
	return out, err
}

// ExecResize sets the size of a command's terminal, in characters.
func (c *Client) ExecResize(ctx context.Context, task, exec string, height, width uint) error {
	q := url.Values{}
	q.Set("h", strconv.FormatUint(uint64(height), 10))
	q.Set("w", strconv.FormatUint(uint64(width), 10))
	return c.unary(ctx, call{method: http.MethodPost, path: execPath(task, exec) + "/resize", query: q}, nil)
}

func appPath(app string) string   { return "/applications/" + url.PathEscape(app) }
func hostPath(host string) string { return "/hosts/" + url.PathEscape(host) }
func taskPath(task string) string { return "/tasks/" + url.PathEscape(task) }

func execPath(task, exec string) string {
	return taskPath(task) + "/exec/" + url.PathEscape(exec)
}
