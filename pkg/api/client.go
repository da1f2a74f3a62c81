package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long a client waits for one controller before it tries the next: to
// connect, and for an answer to a call that changes nothing and is no stream.
const (
	dialTimeout = 3 * time.Second
	callTimeout = 15 * time.Second
)

// Client calls a fleet's controllers over mutual TLS. It tries them in order,
// stays with the one that answers and moves on when that one is down. A
// request that may change something is sent again only when it is certain
// that no controller has seen it. A Client may be used by several goroutines.
type Client struct {
	tls  *tls.Config
	http *http.Client

	// pin is the fingerprint of the authority that controllers must show, where
	// it alone is known of the fleet; empty otherwise.
	pin string

	// mu guards the following fields.
	mu          sync.Mutex
	controllers []string // never reordered in place: readers keep a copy
	trust       string   // the last TrustHeader
}

// NewClient returns a client for controllers given as URLs,
// https://address:port, most wanted first. The TLS configuration holds the
// fleet's CA and the user's certificate; it is copied.
func NewClient(controllers []string, t *tls.Config) *Client {
	c := &Client{tls: t.Clone()}
	// Streams and exec need plain HTTP/1.1 connections.
	c.tls.NextProtos = []string{"http/1.1"}
	for _, u := range controllers {
		c.controllers = append(c.controllers, strings.TrimRight(u, "/"))
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialTLSContext:      c.dial,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     30 * time.Second,
	}}
	return c
}

// Close drops the connections that no call uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// dialError marks an error that came before anything was sent.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// dial connects and shakes hands. A silent peer is noticed within about 15 s
// by TCP's own keepalive, so that a stream from a dead controller ends.
func (c *Client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3,
	}}
	cfg := c.tls
	if c.pin != "" {
		cfg = cfg.Clone()
		cfg.VerifyConnection = pinned(c.pin, addr)
	}
	conn, err := (&tls.Dialer{NetDialer: d, Config: cfg}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, &dialError{plainly(err)}
	}
	return conn, nil
}

// plainly shortens the errors of a connect to their reason: the address is
// said by whoever reports it.
func plainly(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("does not answer within %s: %w", dialTimeout, context.DeadlineExceeded)
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return op.Err
	}
	return err
}

// order returns the controllers, the last one that answered first.
func (c *Client) order() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.controllers
}

// prefer puts a controller that answered in front.
func (c *Client) prefer(u string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.controllers) > 0 && c.controllers[0] == u {
		return
	}
	next := []string{u}
	for _, o := range c.controllers {
		if o != u {
			next = append(next, o)
		}
	}
	c.controllers = next
}

func (c *Client) noteTrust(trust string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if trust != "" {
		c.trust = trust
	}
}

// Trust is the [TrustHeader] of the last answer; empty before the first.
func (c *Client) Trust() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trust
}

// call is one request to whichever controller answers.
type call struct {
	method string
	// path is below [Version], escaped.
	path  string
	query url.Values
	// body is sent as JSON when not nil.
	body any
	// stream means that the answer may take for ever.
	stream bool
	// repeat means that sending it twice does no more than sending it once.
	repeat bool
}

func (r call) safe() bool { return r.method == http.MethodGet || r.repeat }

// patience returns the context of one attempt, which ends by itself unless
// answered is called in time. The caller calls release when the attempt and
// its answer are over.
func (r call) patience(parent context.Context) (ctx context.Context, answered, release func()) {
	ctx, cancel := context.WithCancelCause(parent)
	release = func() { cancel(nil) }
	if r.stream || !r.safe() {
		return ctx, func() {}, release
	}
	t := time.AfterFunc(callTimeout, func() { cancel(fmt.Errorf("does not answer within %s", callTimeout)) })
	return ctx, func() { t.Stop() }, release
}

// releasingBody ends an attempt's context when the answer is closed.
type releasingBody struct {
	io.ReadCloser
	release func()
}

func (b *releasingBody) Close() error {
	defer b.release()
	return b.ReadCloser.Close()
}

// do sends a request to the controllers in turn until one answers. The caller
// closes the answer's body; the answer is always 2xx or 101.
func (c *Client) do(ctx context.Context, r call) (*http.Response, error) {
	return c.each(ctx, r, func(ctx context.Context, _ string, req *http.Request) (*http.Response, error) {
		return c.http.Do(req)
	})
}

// electionTime is how long a client waits for a leader to be elected: a dead
// leader's lease has to end first. electionPause lies between two questions.
const (
	electionTime  = 12 * time.Second
	electionPause = 250 * time.Millisecond
)

// each tries send with every controller in turn, and again while one is there
// but none leads: a controller that answers 503 has done nothing.
func (c *Client) each(ctx context.Context, r call, send func(ctx context.Context, base string, req *http.Request) (*http.Response, error)) (*http.Response, error) {
	give := time.Now().Add(electionTime)
	for {
		res, err := c.once(ctx, r, send)
		var none *UnreachableError
		if !errors.As(err, &none) || !none.standby() || time.Now().After(give) {
			return res, err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, err // it says more
			}
			return nil, context.Cause(ctx)
		case <-time.After(electionPause):
		}
	}
}

// once tries send with every controller in turn.
func (c *Client) once(ctx context.Context, r call, send func(ctx context.Context, base string, req *http.Request) (*http.Response, error)) (*http.Response, error) {
	var body []byte
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		body = b
	}
	none := &UnreachableError{}
	for _, base := range c.order() {
		attempt, answered, release := r.patience(ctx)
		req, err := newRequest(attempt, base, r, body)
		if err != nil {
			release()
			return nil, err
		}
		res, err := send(attempt, base, req)
		answered()
		if err != nil {
			if ctx.Err() == nil && attempt.Err() != nil {
				err = context.Cause(attempt)
			}
			release()
		} else {
			res.Body = &releasingBody{res.Body, release}
		}
		switch {
		case err == nil && res.StatusCode == http.StatusServiceUnavailable:
			none.Attempts = append(none.Attempts, Attempt{base, refusal(res)})
			_ = res.Body.Close()
		case err == nil:
			c.prefer(base)
			c.noteTrust(res.Header.Get(TrustHeader))
			if res.StatusCode >= 300 {
				defer func() { _ = res.Body.Close() }()
				return nil, refusal(res)
			}
			return res, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case r.safe() || neverSent(err):
			none.Attempts = append(none.Attempts, Attempt{base, reason(err)})
		default:
			return nil, fmt.Errorf("%w: %s: %w", ErrLost, base, reason(err))
		}
	}
	return nil, none
}

func newRequest(ctx context.Context, base string, r call, body []byte) (*http.Request, error) {
	u := base + Version + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, rd)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// neverSent reports whether no controller can have acted on the request: the
// connection was not made, or the peer refused this side's certificate, which
// under TLS 1.3 shows only with the first read.
func neverSent(err error) bool {
	var d *dialError
	return errors.As(err, &d) || certificateRefused(err)
}

// certificateRefused reports whether the peer sent a TLS alert about this
// side's certificate. crypto/tls does not export the alert itself.
func certificateRefused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate")
}

// reason drops what net/http puts around an error.
func reason(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if certificateRefused(err) {
		return fmt.Errorf("refuses this user's certificate: %w", err)
	}
	return err
}

// get reads one JSON answer into out.
func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.unary(ctx, call{method: http.MethodGet, path: path, query: query}, out)
}

// unary carries out a call whose answer is one JSON value, or nothing when out
// is nil.
func (c *Client) unary(ctx context.Context, r call, out any) error {
	res, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if out == nil {
		_, _ = io.Copy(io.Discard, res.Body)
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("read answer of the controller: %w", err)
	}
	return nil
}

// Controllers returns the controllers' URLs, the one that is used first.
func (c *Client) Controllers() []string { return slices.Clone(c.order()) }
