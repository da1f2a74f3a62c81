package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Path is where a controller takes tunnels.
const Path = "/v1/tunnel"

// upgrade is the protocol that a connection is upgraded to.
const upgrade = "clocker-tunnel"

// Agent is an agent's side: it keeps a tunnel to each controller.
type Agent struct {
	// Controllers are URLs: https://address:port.
	Controllers []string
	// TLS has the host's certificate and the fleet's CA. Config, when it is not
	// nil, gives what they are by now, for each connection.
	TLS    *tls.Config
	Config func() (*tls.Config, error)
	// Handler answers what controllers ask.
	Handler http.Handler
	Log     *slog.Logger
}

// Run keeps the tunnels until ctx ends.
func (a *Agent) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, c := range a.Controllers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			a.keep(ctx, c)
		}()
	}
	wg.Wait()
}

// keep dials a controller again and again. A tunnel that has stood makes the
// next attempt quick.
func (a *Agent) keep(ctx context.Context, controller string) {
	const first, most = 200 * time.Millisecond, 5 * time.Second
	for wait := first; ; wait = min(2*wait, most) {
		stood, err := a.serve(ctx, controller)
		if ctx.Err() != nil {
			return
		}
		if stood {
			wait = first
			a.Log.Warn("tunnel lost", "controller", controller, "error", err)
		} else {
			a.Log.Debug("no tunnel", "controller", controller, "error", err, "wait", wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// serve answers one controller until the tunnel breaks.
func (a *Agent) serve(ctx context.Context, controller string) (stood bool, err error) {
	conn, err := a.dial(ctx, controller)
	if err != nil {
		return false, err
	}
	session, err := yamux.Server(conn, config(a.Log))
	if err != nil {
		_ = conn.Close()
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	a.Log.Info("tunnel stands", "controller", controller)
	// Requests end with the tunnel: their contexts are of its own.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler: a.Handler, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(a.Log.Handler(), slog.LevelDebug),
	}
	err = srv.Serve(listener{session})
	return true, errors.Join(err, session.Close())
}

func (a *Agent) dial(ctx context.Context, controller string) (net.Conn, error) {
	u, err := url.Parse(controller)
	if err != nil {
		return nil, fmt.Errorf("dial controller: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cfg := a.TLS
	if a.Config != nil {
		if cfg, err = a.Config(); err != nil {
			return nil, fmt.Errorf("dial controller: %w", err)
		}
	}
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"http/1.1"} // HTTP/2 has no upgrades
	d := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: 15 * time.Second}, Config: cfg}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("dial controller: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r, err := handshake(conn, u)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("dial controller: %w", err)
	}
	return &buffered{Conn: conn, r: r}, nil
}

func handshake(conn net.Conn, u *url.URL) (*bufio.Reader, error) {
	req, err := http.NewRequest(http.MethodGet, u.JoinPath(Path).String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", upgrade)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("controller answers %s where a tunnel was asked for", res.Status)
	}
	return r, nil
}

// buffered is a connection of which something has been read ahead.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
