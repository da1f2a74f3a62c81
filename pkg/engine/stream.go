package engine

import (
	"bufio"
	"context"
	"io"
	"net"

	"github.com/moby/moby/client"
)

// ExecRequest is a command to run in a container. It has the fields of
// api.ExecRequest, in the same order.
type ExecRequest struct {
	Cmd     []string
	TTY     bool
	Stdin   bool
	Env     []string
	User    string
	WorkDir string
	// Height and Width are those of the terminal, in characters.
	Height, Width uint
}

// ExecState says how far a command is. The exit code counts once it does not
// run.
type ExecState struct {
	Running  bool
	ExitCode int
}

// LogOptions say which part of a log is wanted.
type LogOptions struct {
	Follow     bool
	Timestamps bool
	// Tail is a number of lines or "all"; Since a time in RFC 3339 or in
	// seconds since 1970. Empty means everything.
	Tail, Since string
}

// Logs streams a container's output: multiplexed (stdcopy), or as it is when
// the container has a terminal. The caller closes it.
func (e *Engine) Logs(ctx context.Context, id string, o LogOptions) (io.ReadCloser, error) {
	r, err := e.cli.ContainerLogs(ctx, id, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true,
		Follow: o.Follow, Timestamps: o.Timestamps, Tail: o.Tail, Since: o.Since,
	})
	if err != nil {
		return nil, wrap("read log", err)
	}
	return r, nil
}

// Exec is a command under way in a container.
type Exec struct {
	ID   string
	conn net.Conn
	out  *bufio.Reader
}

// NewExec wraps the connection on which an engine carries a command's input
// and output.
func NewExec(id string, conn net.Conn, out *bufio.Reader) *Exec {
	return &Exec{ID: id, conn: conn, out: out}
}

// Read reads the command's output: as it is with a terminal, multiplexed
// (stdcopy) without. It ends when the command does.
func (x *Exec) Read(b []byte) (int, error) { return x.out.Read(b) }

// Write writes to the command's standard input.
func (x *Exec) Write(b []byte) (int, error) { return x.conn.Write(b) }

// CloseWrite ends standard input.
func (x *Exec) CloseWrite() error {
	if w, ok := x.conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// Close lets go of the command, which runs on.
func (x *Exec) Close() error { return x.conn.Close() }

// Exec runs a command in a running container. The caller closes it.
func (e *Engine) Exec(ctx context.Context, container string, r ExecRequest) (*Exec, error) {
	size := client.ConsoleSize{}
	if r.TTY {
		size = client.ConsoleSize{Height: r.Height, Width: r.Width}
	}
	c, err := e.cli.ExecCreate(ctx, container, client.ExecCreateOptions{
		User: r.User, TTY: r.TTY, ConsoleSize: size, AttachStdin: r.Stdin,
		AttachStdout: true, AttachStderr: true, Env: r.Env, WorkingDir: r.WorkDir, Cmd: r.Cmd,
	})
	if err != nil {
		return nil, wrap("run command", err)
	}
	a, err := e.cli.ExecAttach(ctx, c.ID, client.ExecAttachOptions{TTY: r.TTY, ConsoleSize: size})
	if err != nil {
		return nil, &Error{Op: "run command", Kind: startKind(err), err: err}
	}
	return NewExec(c.ID, a.Conn, a.Reader), nil
}

// ExecState tells how far a command is.
func (e *Engine) ExecState(ctx context.Context, id string) (ExecState, error) {
	r, err := e.cli.ExecInspect(ctx, id, client.ExecInspectOptions{})
	if err != nil {
		return ExecState{}, wrap("inspect command", err)
	}
	return ExecState{Running: r.Running, ExitCode: r.ExitCode}, nil
}

// ExecResize tells a command's terminal its size in characters.
func (e *Engine) ExecResize(ctx context.Context, id string, height, width uint) error {
	_, err := e.cli.ExecResize(ctx, id, client.ExecResizeOptions{Height: height, Width: width})
	return wrap("resize terminal", err)
}
