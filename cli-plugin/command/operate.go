package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

// operations are the verbs that change what runs without changing the release.
var operations = []struct{ verb, title, short, long string }{
	{"stop", "Stopping", "Stop an application, or some of its services", `Stop an application, or some of its services.

Containers, addresses and volumes are kept; "start" brings them back.`},
	{"start", "Starting", "Start an application that was stopped, or some of its services", `Start an application that was stopped, or some of its services.`},
	{"restart", "Restarting", "Restart the containers of an application, or of some of its services", `Restart the containers of an application, or of some of its services.`},
}

func newOperateCommand(e *Env, op struct{ verb, title, short, long string }) *cobra.Command {
	var quiet bool
	cmd := &cobra.Command{
		Use:   op.verb + " [OPTIONS] APP [SERVICE...]",
		Short: op.short,
		Long:  op.long,
		Args:  args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				_, err := e.follow(cmd.Context(), c, operation{
					verb: op.verb, title: op.title + " " + args[0], app: args[0], services: args[1:], quiet: quiet,
					start: func(ctx context.Context, f func(api.Progress) error) error {
						return c.Operate(ctx, args[0], op.verb, args[1:], f)
					},
				})
				return err
			})
		},
		ValidArgsFunction: e.completeServices,
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print nothing but errors")
	return cmd
}
