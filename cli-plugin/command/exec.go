package command

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command/completion"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

type execOptions struct {
	app, service string
	index        int
	api.ExecRequest
}

func newExecCommand(e *Env) *cobra.Command {
	var (
		o   execOptions
		env = opts.NewListOpts(opts.ValidateEnv)
	)
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] APP SERVICE COMMAND [ARG...]",
		Short: "Run a command in a running replica",
		Long: `Run a command in a running replica, on whichever host that is. The exit code is
the command's own.`,
		Args: args(cli.RequiresMinArgs(3)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.app, o.service, o.Cmd = args[0], args[1], args[2:]
			o.Env = env.GetSlice()
			return runExec(cmd.Context(), e, o)
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(given) > 1 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return e.completeServices(cmd, given, word)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.Stdin, "interactive", "i", false, "Keep standard input open")
	f.BoolVarP(&o.TTY, "tty", "t", false, "Allocate a terminal")
	f.IntVar(&o.index, "index", 0, "Number of the replica (default: the first that runs)")
	f.VarP(&env, "env", "e", "Set environment variables")
	f.StringVarP(&o.User, "user", "u", "", `User name or ID ("<name|uid>[:<group|gid>]")`)
	f.StringVarP(&o.WorkDir, "workdir", "w", "", "Working directory inside the container")
	_ = cmd.RegisterFlagCompletionFunc("env", completion.EnvVarNames())
	return cmd
}

func runExec(ctx context.Context, e *Env, o execOptions) error {
	if err := e.cli.In().CheckTty(o.Stdin, o.TTY); err != nil {
		return usageError{err}
	}
	return e.with(func(c *api.Client) error {
		tasks, err := tasksOf(ctx, c, o.app, []string{o.service})
		if err != nil {
			return err
		}
		t, err := pick(tasks, o)
		if err != nil {
			return err
		}
		if o.TTY {
			o.Height, o.Width = e.cli.Out().GetTtySize()
		}
		conn, err := c.Exec(ctx, t.ID, o.ExecRequest)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		return e.attend(ctx, conn, o.ExecRequest,
			func() (api.ExecState, error) { return c.ExecState(ctx, t.ID, conn.ID) },
			func(h, w uint) error { return c.ExecResize(ctx, t.ID, conn.ID, h, w) })
	})
}

// attend joins the user's streams to a command's until it ends, and gives its
// exit code. state asks how it is getting on, resize tells its terminal.
func (e *Env) attend(ctx context.Context, conn *api.ExecConn, o api.ExecRequest, state func() (api.ExecState, error), resize func(h, w uint) error) error {
	if err := e.converse(ctx, conn, o, resize); err != nil {
		return err
	}
	s, err := state()
	switch {
	case err != nil:
		return err
	case s.Running:
		return textError{errors.New("run command: " + api.ErrLost.Error()), api.ErrLost}
	case s.ExitCode != 0:
		return statusError(s.ExitCode)
	}
	return nil
}

// pick chooses the replica: the numbered one, else the first that runs.
func pick(tasks []api.Task, o execOptions) (api.Task, error) {
	for _, t := range tasks {
		switch {
		case o.index == 0 && t.State == record.StateRunning:
			return t, nil
		case o.index != 0 && t.Slot == o.index:
			if t.State != record.StateRunning {
				return t, verdict{errConflict, t.Name + " does not run: it is " + t.State}
			}
			return t, nil
		}
	}
	if o.index != 0 {
		return api.Task{}, notFound("%s has no replica %d of %s: it has %d", o.app, o.index, o.service, len(tasks))
	}
	return api.Task{}, verdict{errConflict, "no replica of " + o.service + " of " + o.app + " runs"}
}

// converse joins the user's streams to the command's until it ends.
func (e *Env) converse(ctx context.Context, conn *api.ExecConn, o api.ExecRequest, resize func(h, w uint) error) error {
	restore := func() {}
	if o.TTY && o.Stdin {
		if err := e.cli.In().SetRawTerminal(); err != nil {
			return err
		}
		if err := e.cli.Out().SetRawTerminal(); err != nil {
			e.cli.In().RestoreTerminal()
			return err
		}
		restore = sync.OnceFunc(func() {
			e.cli.In().RestoreTerminal()
			e.cli.Out().RestoreTerminal()
		})
	}
	defer restore()
	if o.TTY {
		defer e.followSize(resize)()
	}
	go func() {
		if o.Stdin {
			_, _ = io.Copy(conn, e.cli.In()) // an error shows on the output too
		}
		_ = conn.CloseWrite()
	}()
	done := make(chan error, 1)
	go func() {
		var err error
		if o.TTY {
			_, err = io.Copy(e.cli.Out(), conn)
		} else {
			_, err = stdcopy.StdCopy(e.cli.Out(), e.cli.Err(), conn)
		}
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Canceled
	}
}

// followSize tells the command's terminal whenever the user's changes its
// size, until the returned function is called.
func (e *Env) followSize(resize func(h, w uint) error) (stop func()) {
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	quit := make(chan struct{})
	go func() {
		for {
			select {
			case <-quit:
				return
			case <-changes:
			}
			if h, w := e.cli.Out().GetTtySize(); h > 0 && w > 0 {
				_ = resize(h, w) // the wrong size harms nothing
			}
		}
	}()
	return func() {
		signal.Stop(changes)
		close(quit)
	}
}
