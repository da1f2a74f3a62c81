package command

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/agent"
	"clocker.io/clocker/pkg/fleet/hostenter"
)

// newHostenterCommand is what a container for commands on a host runs: alone it
// waits, with a command it becomes that command on the machine itself.
func newHostenterCommand() *cobra.Command {
	var c hostenter.Command
	cmd := daemonCommand(&cobra.Command{
		Use:   agent.EnterCommand + " [OPTIONS] [-- COMMAND [ARG...]]",
		Short: "Run a command on the machine that this container is on",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return untilSignal(cmd.Context(), func(ctx context.Context) error { <-ctx.Done(); return nil })
			}
			c.Args, c.Env = args, askedEnv(os.Environ())
			return hostenter.Exec(c)
		},
	})
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&c.WorkDir, "workdir", "", "Directory of the machine to run it in")
	f.StringVar(&c.User, "user", "", "User and group of the machine to run it as")
	return cmd
}

// askedEnv leaves out what the container's engine sets by itself.
func askedEnv(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(v string) bool {
		k, _, _ := strings.Cut(v, "=")
		return k == "HOSTNAME" || k == "PATH" || k == "HOME"
	})
}
