package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command/completion"
	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

func newHostExecCommand(e *Env) *cobra.Command {
	var (
		o   api.ExecRequest
		env = opts.NewListOpts(opts.ValidateEnv)
	)
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] HOST COMMAND [ARG...]",
		Short: "Run a command on a host itself",
		Long: `Run a command on a host itself, as root and outside of all containers. It goes
through the host's agent, so a host behind NAT is reached too; only users with the
role admin may. The exit code is the command's own.`,
		Example: `  docker clocker host exec server-2 uptime
  docker clocker host exec -it server-2 bash`,
		Args: args(cli.RequiresMinArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Cmd, o.Env = args[1:], env.GetSlice()
			return runHostExec(cmd.Context(), e, args[0], o)
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(given) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return e.completeHosts(cmd, given, word)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.Stdin, "interactive", "i", false, "Keep standard input open")
	f.BoolVarP(&o.TTY, "tty", "t", false, "Allocate a terminal")
	f.VarP(&env, "env", "e", "Set environment variables")
	f.StringVarP(&o.User, "user", "u", "", `User of the machine ("<name|uid>[:<group|gid>]", default root)`)
	f.StringVarP(&o.WorkDir, "workdir", "w", "", "Directory of the machine (default: the user's home)")
	_ = cmd.RegisterFlagCompletionFunc("env", completion.EnvVarNames())
	return cmd
}

func runHostExec(ctx context.Context, e *Env, host string, o api.ExecRequest) error {
	if err := e.cli.In().CheckTty(o.Stdin, o.TTY); err != nil {
		return usageError{err}
	}
	return e.with(func(c *api.Client) error {
		if o.TTY {
			o.Height, o.Width = e.cli.Out().GetTtySize()
		}
		conn, err := c.HostExec(ctx, host, o)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		return e.attend(ctx, conn, o,
			func() (api.ExecState, error) { return c.HostExecState(ctx, host, conn.ID) },
			func(h, w uint) error { return c.HostExecResize(ctx, host, conn.ID, h, w) })
	})
}
