package command

import (
	"context"
	"slices"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newPsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:   "ps [OPTIONS] [APP]",
		Short: "List the replicas of an application, or of all",
		Long: `List the replicas of an application, or of all.

STATUS tells what keeps a replica from running; --no-trunc shows all of it.`,
		Args: args(cli.RequiresMaxArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPs(cmd.Context(), e, strings.Join(args, ""), o)
		},
		ValidArgsFunction: e.completeApp,
	}
	o.flags(cmd, "Only display task IDs")
	return cmd
}

func runPs(ctx context.Context, e *Env, app string, o list) error {
	return e.with(func(c *api.Client) error {
		tasks, err := c.Tasks(ctx, app)
		if err != nil {
			return err
		}
		if app != "" && len(tasks) == 0 {
			// An application may have no replicas, but it must exist.
			if _, err := c.Application(ctx, app); err != nil {
				return err
			}
		}
		sortTasks(tasks)
		return formatter.Tasks(o.options(e), tasks)
	})
}

// sortTasks puts tasks in the order of applications, services and slots.
func sortTasks(tasks []api.Task) {
	slices.SortStableFunc(tasks, func(a, b api.Task) int {
		if d := strings.Compare(a.App, b.App); d != 0 {
			return d
		}
		if d := strings.Compare(a.Service, b.Service); d != 0 {
			return d
		}
		return a.Slot - b.Slot
	})
}
