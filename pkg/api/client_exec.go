package api

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// ExecConn is the connection of a command that runs in a container. What is
// written goes to its standard input. What is read is its output: as it is
// when it has a terminal, in the engine's multiplexed form (stdcopy) when not.
type ExecConn struct {
	net.Conn
	// ID names the exec for [Client.ExecState] and [Client.ExecResize].
	ID string

	out *bufio.Reader
}

// Read reads the command's output.
func (e *ExecConn) Read(b []byte) (int, error) { return e.out.Read(b) }

// CloseWrite ends the command's standard input; its output goes on.
func (e *ExecConn) CloseWrite() error {
	if w, ok := e.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Exec runs a command in a task's container and takes the connection over,
// which the caller closes. The connection does not end with ctx: only asking
// for it does.
func (c *Client) Exec(ctx context.Context, task string, r ExecRequest) (*ExecConn, error) {
	return c.exec(ctx, taskPath(task)+"/exec", r)
}

func (c *Client) exec(ctx context.Context, path string, body any) (*ExecConn, error) {
	var conn net.Conn
	var out *bufio.Reader
	res, err := c.each(ctx, call{method: http.MethodPost, path: path, body: body, stream: true},
		func(ctx context.Context, base string, req *http.Request) (*http.Response, error) {
			u, err := url.Parse(base)
			if err != nil {
				return nil, &dialError{err}
			}
			if conn, err = c.dial(ctx, "tcp", u.Host); err != nil {
				return nil, err
			}
			stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", "tcp")
			out = bufio.NewReader(conn)
			res, err := upgrade(conn, out, req)
			if err != nil || res.StatusCode == http.StatusServiceUnavailable {
				defer func() { _ = conn.Close() }()
			}
			if err == nil && res.StatusCode == http.StatusServiceUnavailable {
				return nil, &dialError{refusal(res)}
			}
			return res, err
		})
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		_ = conn.Close()
		return nil, fmt.Errorf("controller answers %s where the connection should be taken over", res.Status)
	}
	return &ExecConn{Conn: conn, ID: res.Header.Get(ExecHeader), out: out}, nil
}

func upgrade(conn net.Conn, out *bufio.Reader, req *http.Request) (*http.Response, error) {
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(out, req)
}
