// Package sshhost reaches machines over SSH, with an engine or without one,
// from the user's machine or from a controller: it needs no ssh program and no
// home directory. Host keys are always checked and never learnt.
//
// What can be wrong with a connection is told by [*connect.Error]: an
// unreachable machine, no SSH server, an unknown or changed host key, a key or
// user that is not let in, each with what to do. The package decides nothing
// about fleets.
//
// Design page: docs/design/fleet.md.
package sshhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"
	"golang.org/x/crypto/ssh"

	"clocker.io/clocker/pkg/engine/connect"
)

// ErrEndpoint means that a text is not ssh://[user@]host[:port][/socket].
var ErrEndpoint = errors.New("not an SSH endpoint")

// Target is a machine as an endpoint names it. ~/.ssh/config is looked at by
// [Dial], not before.
type Target struct {
	// Endpoint is the text as it was written.
	Endpoint string
	// User and Port are empty, and Socket too, when the endpoint leaves them
	// out.
	User, Host, Port string
	// Socket is the engine's on the machine.
	Socket string
}

// Parse reads ssh://[user@]host[:port][/socket]. The error matches
// [ErrEndpoint].
func Parse(endpoint string) (Target, error) {
	bad := func(why string) (Target, error) {
		return Target{}, fmt.Errorf("%w: %s: %s: write ssh://[USER@]HOST[:PORT]", ErrEndpoint, endpoint, why)
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return bad("it cannot be read")
	case u.Scheme != "ssh":
		return bad("it does not begin with ssh://")
	case u.Hostname() == "":
		return bad("it names no host")
	case u.RawQuery != "" || u.Fragment != "":
		return bad("it has a query or a fragment")
	}
	if _, set := u.User.Password(); set {
		// The password must not get into the error.
		return Target{}, fmt.Errorf("%w: ssh://%s: it holds a password, but keys are used", ErrEndpoint, u.Host)
	}
	return Target{
		Endpoint: endpoint, User: u.User.Username(), Host: u.Hostname(), Port: u.Port(),
		Socket: strings.TrimSuffix(u.Path, "/"),
	}, nil
}

// Options say by which keys. The zero value takes OpenSSH's usual files, as
// far as there are any.
type Options struct {
	// Signers, when there are any, are the only keys that are offered.
	Signers []ssh.Signer
	// Identity is the file of the only private key that is offered. Without
	// it and Signers: ssh-agent, ~/.ssh/config's and ~/.ssh/id_*.
	Identity string
	// HostKey, when set, is the only host key that is accepted, in the form
	// of authorized_keys or of a line of known_hosts.
	HostKey string
	// KnownHosts is the file of host keys; empty means ~/.ssh/known_hosts
	// and /etc/ssh/ssh_known_hosts.
	KnownHosts string
	// Timeout bounds each try to connect; 0 means 10 s.
	Timeout time.Duration
	// Home and Getenv are for tests; empty and nil mean the process's own.
	Home   string
	Getenv func(string) string
}

func (o Options) connect() (connect.Options, error) {
	c := connect.Options{
		Signers: o.Signers, Identity: o.Identity, KnownHosts: o.KnownHosts,
		Timeout: o.Timeout, Home: o.Home, Getenv: o.Getenv,
	}
	if o.HostKey == "" {
		return c, nil
	}
	var err error
	c.HostKey, err = ParseHostKey(o.HostKey)
	return c, err
}

// ParseHostKey reads a host key: "ssh-ed25519 AAAA...", with or without a
// comment, or with the names before it that known_hosts has.
func ParseHostKey(text string) (ssh.PublicKey, error) {
	if k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text)); err == nil {
		return k, nil
	}
	if _, _, k, _, _, err := ssh.ParseKnownHosts([]byte(text + "\n")); err == nil {
		return k, nil
	}
	return nil, errors.New("read host key: it is none: write TYPE BASE64, as ssh-keyscan prints it")
}

// Machine is a machine that has let us in. It is safe for concurrent use.
type Machine struct {
	Target Target
	shell  *connect.Shell

	mu      sync.Mutex
	engines []*connect.Conn // guarded by mu
}

// Dial connects to a machine. The caller closes it. Errors are a
// [*connect.Error].
func Dial(ctx context.Context, t Target, o Options) (*Machine, error) {
	c, err := o.connect()
	if err != nil {
		return nil, &connect.Error{
			Kind: connect.Credentials, Endpoint: t.Endpoint, Text: err.Error(), Err: err,
		}
	}
	s, err := connect.OpenShell(ctx, t.Endpoint, c)
	if err != nil {
		return nil, err
	}
	return &Machine{Target: t, shell: s}, nil
}

// User is who we are there.
func (m *Machine) User() string { return m.shell.User() }

// Run gives a command to the user's shell there and returns what it wrote. A
// command that fails gives an error that wraps [*ssh.ExitError] and ends with
// the last line of its error output.
func (m *Machine) Run(ctx context.Context, command string, stdin io.Reader) (stdout, stderr []byte, err error) {
	var out, errOut bytes.Buffer
	err = m.Stream(ctx, command, stdin, &out, &errOut)
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("exit %d: %w: %s", exit.ExitStatus(), err, lastLine(errOut.String()))
	}
	return out.Bytes(), errOut.Bytes(), err
}

// Stream is [Machine.Run] for long commands: it writes what the command writes
// while it runs. A command that fails gives an [*ssh.ExitError].
func (m *Machine) Stream(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) error {
	return m.shell.Run(ctx, command, stdin, stdout, stderr)
}

// Engine connects to the machine's engine through its socket. The client ends
// with the machine's connection.
func (m *Machine) Engine(ctx context.Context) (*client.Client, error) {
	c, err := m.shell.Engine(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.engines = append(m.engines, c)
	return c.Client, nil
}

// Close ends the connection and those to the engine.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	errs := make([]error, 0, len(m.engines)+1)
	for _, c := range m.engines {
		errs = append(errs, c.Close())
	}
	m.engines = nil
	return errors.Join(append(errs, m.shell.Close())...)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}
