package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// LabelHost changes a host's labels: [ErrNotFound] when there is no such host,
// [ErrConflict] when it is being changed by somebody else.
func (c *Client) LabelHost(ctx context.Context, host string, change LabelChange) (Host, error) {
	var out Host
	err := c.unary(ctx, call{method: http.MethodPost, path: hostPath(host) + "/labels", body: change}, &out)
	return out, err
}

// HostLogs returns the log of a part of a host ("agent", "plugin" or "engine")
// in the engine's multiplexed form (stdcopy), which the caller closes.
func (c *Client) HostLogs(ctx context.Context, host, component string, o LogOptions) (io.ReadCloser, error) {
	q := o.query()
	q.Set("component", component)
	res, err := c.do(ctx, call{method: http.MethodGet, path: hostPath(host) + "/logs", query: q, stream: true})
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// HostExec is [Client.Exec] for a command on a host itself.
func (c *Client) HostExec(ctx context.Context, host string, r ExecRequest) (*ExecConn, error) {
	return c.exec(ctx, hostPath(host)+"/exec", r)
}

// HostEngine opens a connection to the API of a host's engine, through the host's
// agent. The caller closes it; it does not end with ctx.
func (c *Client) HostEngine(ctx context.Context, host string) (net.Conn, error) {
	return c.exec(ctx, hostPath(host)+"/engine", nil)
}

// HostExecState tells how a command run by [Client.HostExec] is getting on.
func (c *Client) HostExecState(ctx context.Context, host, exec string) (ExecState, error) {
	var out ExecState
	err := c.get(ctx, hostPath(host)+"/exec/"+url.PathEscape(exec), nil, &out)
	return out, err
}

// HostExecResize sets the size of such a command's terminal, in characters.
func (c *Client) HostExecResize(ctx context.Context, host, exec string, height, width uint) error {
	q := url.Values{}
	q.Set("h", strconv.FormatUint(uint64(height), 10))
	q.Set("w", strconv.FormatUint(uint64(width), 10))
	return c.unary(ctx, call{method: http.MethodPost, path: hostPath(host) + "/exec/" + url.PathEscape(exec) + "/resize", query: q}, nil)
}
