package connect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"golang.org/x/crypto/ssh"
)

// Shell is an SSH connection to a machine that may have no engine yet. It is
// safe for concurrent use and makes a broken connection anew.
type Shell struct {
	d *sshDialer
	o Options
}

// OpenShell connects to the SSH server that an ssh:// endpoint names. Every
// error is an [*Error].
func OpenShell(ctx context.Context, endpoint string, o Options) (*Shell, error) {
	o = o.withDefaults()
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "ssh" {
		return nil, &Error{
			Kind: Invalid, Endpoint: endpoint, Text: "not an SSH endpoint", Err: err,
			Remedy: "write ssh://[USER@]HOST[:PORT]",
		}
	}
	// What is wrong with its form is said in one place.
	t, problem := parse(endpoint, endpoint, o, nil)
	if problem != nil {
		return nil, problem
	}
	_ = t.close() // nothing was opened
	d, problem := newSSHDialer(endpoint, u, o)
	if problem != nil {
		return nil, problem
	}
	first, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if _, problem := d.connect(first); problem != nil {
		_ = d.close() // the error that matters is the first
		return nil, problem
	}
	return &Shell{d: d, o: o}, nil
}

// User is who was let in.
func (s *Shell) User() string { return s.d.target.user }

// Host is the name or address of the machine.
func (s *Shell) Host() string { return s.d.target.host }

// Close ends the connection and all that runs over it.
func (s *Shell) Close() error { return s.d.close() }

// Run gives a command to the user's shell there and waits for its end. stdin,
// stdout and stderr may be nil. A command that fails gives an [*ssh.ExitError].
// When ctx ends the command is left to itself: its streams are closed.
func (s *Shell) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) error {
	c, problem := s.d.connect(ctx)
	if problem != nil {
		return problem
	}
	session, err := c.NewSession()
	if err != nil {
		return fmt.Errorf("open SSH session: %w", err)
	}
	defer func() { _ = session.Close() }() // it ended, or is given up
	session.Stdin, session.Stdout, session.Stderr = stdin, stdout, stderr
	// It waits for its streams too, of which one may be stuck.
	ended := make(chan error, 1)
	go func() { ended <- session.Run(command) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = session.Signal(ssh.SIGTERM) // a server that knows no signals notices the end below
		_ = session.Close()             // what runs there notices by its streams
		return ctx.Err()
	}
	var exit *ssh.ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return fmt.Errorf("run command over SSH: %w", err)
}

// Engine connects to the machine's engine. The connection is of its own and
// outlives the shell.
func (s *Shell) Engine(ctx context.Context) (*Conn, error) { return Open(ctx, s.d.name, s.o) }
