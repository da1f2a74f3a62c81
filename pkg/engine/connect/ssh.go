package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// keepalive is how often a silent SSH server is asked whether it lives, and
// how long it may take to answer.
const keepalive = 15 * time.Second

// sshDialer reaches sockets on another machine through one SSH connection,
// which it makes again when it has broken.
type sshDialer struct {
	name   string // the endpoint, for errors
	target sshTarget
	socket string // the engine's socket on the other machine
	config *ssh.ClientConfig
	// seen is set by the host key callback when it refuses a key.
	keys *hostKeys
	auth *identities

	// mu guards the following fields and is held while a connection is made.
	mu     sync.Mutex
	client *ssh.Client // nil before the first and after a broken connection
	closed bool
}

// sshTransport reaches an engine's socket over SSH; u.Path may name a socket
// other than the usual one.
func sshTransport(name string, u *url.URL, o Options) (*transport, *Error) {
	d, problem := newSSHDialer(name, u, o)
	if problem != nil {
		return nil, problem
	}
	return &transport{
		// The URL only says "http, without a proxy": dial decides where to.
		url: "unix://" + DefaultSocket, host: d.target.host, close: d.close,
		dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, problem := d.dial(ctx)
			if problem != nil {
				return nil, problem
			}
			return c, nil
		},
		check: func(ctx context.Context) *Error {
			c, problem := d.dial(ctx)
			if problem != nil {
				return problem
			}
			_ = c.Close() // nothing was sent
			return nil
		},
	}, nil
}

func newSSHDialer(name string, u *url.URL, o Options) (*sshDialer, *Error) {
	target, problem := readSSHConfig(name, u, o)
	if problem != nil {
		return nil, problem
	}
	keys, problem := loadHostKeys(name, target, o)
	if problem != nil {
		return nil, problem
	}
	d := &sshDialer{name: name, target: target, socket: DefaultSocket, keys: keys, auth: newIdentities(target, o)}
	if u.Path != "" && u.Path != "/" {
		d.socket = u.Path
	}
	d.config = &ssh.ClientConfig{
		User:              target.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeysCallback(d.auth.signers)},
		HostKeyCallback:   keys.check,
		HostKeyAlgorithms: keys.algorithms(),
		ClientVersion:     "SSH-2.0-clocker",
		Timeout:           o.Timeout,
	}
	return d, nil
}

func (d *sshDialer) dial(ctx context.Context) (net.Conn, *Error) {
	c, problem := d.connect(ctx)
	if problem != nil {
		return nil, problem
	}
	conn, err := c.DialContext(ctx, "unix", d.socket)
	if err == nil {
		return conn, nil
	}
	return nil, d.explainSocket(ctx, c, err)
}

// connect returns the SSH connection, made anew when there is none.
func (d *sshDialer) connect(ctx context.Context) (*ssh.Client, *Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, &Error{Kind: Other, Endpoint: d.name, Text: "the connection was closed", Err: net.ErrClosed}
	}
	if d.client != nil {
		return d.client, nil
	}
	address := net.JoinHostPort(d.target.host, d.target.port)
	raw, err := (&net.Dialer{Timeout: d.config.Timeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, network(d.name, address, "sshd", err)
	}
	// The handshake knows no context: closing the connection ends it.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(d.config.Timeout)) // a TCP connection has deadlines
	conn, chans, reqs, err := ssh.NewClientConn(raw, address, d.config)
	if err != nil || !stop() {
		_ = raw.Close() // the handshake's error matters
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, d.explainHandshake(address, err)
	}
	_ = raw.SetDeadline(time.Time{}) // as above
	d.client = ssh.NewClient(conn, chans, reqs)
	go d.watch(d.client)
	return d.client, nil
}

// watch asks the server now and then whether it lives, until the connection
// ends, and then makes way for a new one.
func (d *sshDialer) watch(c *ssh.Client) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = c.Wait() // why it ended matters to those who use it
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.client == c {
			d.client = nil
		}
	}()
	t := time.NewTicker(keepalive)
	defer t.Stop()
	for {
		select {
		case <-gone:
			return
		case <-t.C:
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			// A server that does not know the request says so: an answer.
			_, _, _ = c.SendRequest("keepalive@openssh.com", true, nil)
		}()
		select {
		case <-answered:
		case <-gone:
			return
		case <-time.After(keepalive):
			_ = c.Close() // it is dead: all that use it must learn
		}
	}
}

func (d *sshDialer) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.auth.close()
	if d.client == nil {
		return nil
	}
	c := d.client
	d.client = nil
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close SSH connection: %w", err)
	}
	return nil
}

func (d *sshDialer) explainHandshake(address string, err error) *Error {
	if p := d.keys.refusal(d.name); p != nil {
		p.Err = err
		return p
	}
	var timeout net.Error
	s := err.Error()
	switch {
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return network(d.name, address, "sshd", err)
	case strings.Contains(s, "unable to authenticate"):
		return &Error{
			Kind: SSHAuth, Endpoint: d.name, Err: err,
			Text:   fmt.Sprintf("the SSH server lets %s in with none of these keys: %s", d.target.user, d.auth.tried()),
			Remedy: fmt.Sprintf("check with  ssh %s, or name a key with --ssh-identity or ssh-add it", d.target.command()),
		}
	case strings.Contains(s, "no common algorithm"), strings.Contains(s, "EOF"), strings.Contains(s, "overflow reading version string"), strings.Contains(s, "connection reset"):
		return &Error{
			Kind: NotSSH, Endpoint: d.name, Err: err,
			Text:   fmt.Sprintf("no SSH server that can be talked to is at %s: %s", address, strings.TrimPrefix(s, "ssh: ")),
			Remedy: fmt.Sprintf("check with  ssh %s", d.target.command()),
		}
	}
	return &Error{Kind: Other, Endpoint: d.name, Text: s, Err: err}
}

// explainSocket finds out why the engine's socket cannot be opened: OpenSSH
// itself does not say.
func (d *sshDialer) explainSocket(ctx context.Context, c *ssh.Client, err error) *Error {
	e := &Error{Kind: NoEngine, Endpoint: d.name, Err: err}
	var refused *ssh.OpenChannelError
	if !errors.As(err, &refused) {
		if ctx.Err() != nil {
			return network(d.name, d.socket, "the Docker Engine", ctx.Err())
		}
		e.Kind, e.Text = Other, "the SSH connection broke: "+err.Error()
		return e
	}
	if refused.Reason == ssh.Prohibited {
		e.Kind, e.Text = Forbidden, "the SSH server forwards no sockets"
		e.Remedy = "set AllowStreamLocalForwarding yes in its sshd_config"
		return e
	}
	switch d.lookAtSocket(c) {
	case "missing":
		e.Text = fmt.Sprintf("SSH works, but there is no %s there", d.socket)
		e.Remedy = "install and start the Docker Engine on that machine"
	case "denied":
		e.Kind, e.Text = Permission, fmt.Sprintf("SSH works, but %s may not open %s there", d.target.user, d.socket)
		e.Remedy = "log in as root, or make the user a member of the group docker"
	default:
		e.Text = fmt.Sprintf("SSH works, but no engine answers at %s there", d.socket)
		e.Remedy = "start the Docker Engine on that machine (systemctl start docker)"
	}
	return e
}

// lookAtSocket asks the other machine about the socket: "missing", "denied",
// or anything else when it is there or nobody can tell.
func (d *sshDialer) lookAtSocket(c *ssh.Client) string {
	s, err := c.NewSession()
	if err != nil {
		return ""
	}
	defer func() { _ = s.Close() }() // its output was read
	q := "'" + strings.ReplaceAll(d.socket, "'", `'\''`) + "'"
	out, err := s.Output("if ! test -e " + q + "; then echo missing; elif ! test -w " + q + "; then echo denied; fi")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
