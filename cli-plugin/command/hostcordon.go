package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

func newHostCordonCommand(e *Env) *cobra.Command {
	return hostStateCommand(e, &cobra.Command{
		Use:   "cordon HOST [HOST...]",
		Short: "Keep new work from hosts",
		Long: `Keep new work from hosts.

What runs there goes on; nothing new is placed there until docker clocker host
enable. To move away what runs, use docker clocker host drain.`,
	}, (*api.Client).CordonHost)
}

func newHostEnableCommand(e *Env) *cobra.Command {
	return hostStateCommand(e, &cobra.Command{
		Use:   "enable HOST [HOST...]",
		Short: "Let hosts take work again",
		Long: `Let hosts take work again that were cordoned, drained, or quarantined.

A drain that is under way ends: what has moved stays where it is now, the rest
stays where it was.`,
	}, (*api.Client).EnableHost)
}

// hostStateCommand runs a call for each host and prints the hosts' names.
func hostStateCommand(e *Env, cmd *cobra.Command, set func(*api.Client, context.Context, string) (api.Host, error)) *cobra.Command {
	cmd.Args = args(cli.RequiresMinArgs(1))
	cmd.ValidArgsFunction = e.completeHosts
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		return e.with(func(c *api.Client) error {
			var errs []error
			for _, name := range names {
				h, err := set(c, cmd.Context(), name)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				_, _ = fmt.Fprintln(e.cli.Out(), h.Name)
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}
