package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:               "ls [OPTIONS]",
		Aliases:           []string{"list"},
		Short:             "List applications",
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runLs(cmd.Context(), e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	return cmd
}

func runLs(ctx context.Context, e *Env, o list) error {
	return e.with(func(c *api.Client) error {
		apps, err := c.Applications(ctx)
		if err != nil {
			return err
		}
		return formatter.Applications(o.options(e), apps)
	})
}
