package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

func newRmCommand(e *Env) *cobra.Command {
	var force, quiet bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] APP [APP...]",
		Aliases: []string{"remove", "down"},
		Short:   "Remove applications with all that belongs to them",
		Long: `Remove applications with all that belongs to them: containers, networks,
addresses and published ports, on every host.

On a terminal it asks first.`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !force {
				if err := e.confirm("Remove " + strings.Join(args, ", ") + " and all of its containers and networks?"); err != nil {
					return err
				}
			}
			return runRm(cmd.Context(), e, args, quiet)
		},
		ValidArgsFunction: e.completeApps,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Print nothing but errors")
	return cmd
}

// runRm removes one application after the other. One that fails does not keep
// the next from being removed.
func runRm(ctx context.Context, e *Env, apps []string, quiet bool) error {
	return e.with(func(c *api.Client) error {
		var errs []error
		for _, app := range apps {
			_, err := e.follow(ctx, c, operation{
				verb: "rm", title: "Removing " + app, app: app, quiet: quiet,
				start: func(ctx context.Context, f func(api.Progress) error) error { return c.Remove(ctx, app, f) },
			})
			if err != nil {
				errs = append(errs, err)
			}
			if code, _ := Exit(err); code == ExitInterrupted || code == ExitUnreachable {
				break
			}
		}
		return errors.Join(errs...)
	})
}

// confirm asks the user at a terminal; elsewhere the command line is enough.
func (e *Env) confirm(question string) error {
	if !e.cli.In().IsTerminal() || !e.cli.Out().IsTerminal() {
		return nil
	}
	_, _ = fmt.Fprintf(e.cli.Out(), "%s [y/N] ", question)
	line, _ := bufio.NewReader(e.cli.In()).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return verdict{errInterrupted, "nothing was removed"}
}
