package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newWhyCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:   "why [OPTIONS] APP [SERVICE]",
		Short: "Show why replicas are where they are, and what each host says to one more",
		Long: `Show why replicas are where they are, and what each host says to one more.

For each service: where its replicas are and why they were placed there, then
every host for the next replica, which is one that has no host or one more than
there are. A host either is refused by a filter, with its reason, or has a rank,
with what it was ranked by. In a large fleet hosts that say the same share a
line; --no-trunc and --format json show each.`,
		Example: `  docker clocker why shop
  docker clocker why shop web
  docker clocker why --format json shop web`,
		Args: args(cli.RequiresRangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			service := ""
			if len(args) == 2 {
				service = args[1]
			}
			return runWhy(cmd.Context(), e, args[0], service, o)
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, prefix string) ([]string, cobra.ShellCompDirective) {
			switch len(given) {
			case 0:
				return e.completeApps(cmd, given, prefix)
			case 1:
				return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
					tasks, err := c.Tasks(ctx, given[0])
					return services(tasks), err
				})
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", `Format output: "table", "json" or a Go TEMPLATE`)
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Show every host on a line of its own")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runWhy(ctx context.Context, e *Env, app, service string, o list) error {
	return e.with(func(c *api.Client) error {
		found, err := c.Placement(ctx, app, service)
		if err != nil {
			return err
		}
		return formatter.Placement(o.options(e), found)
	})
}
