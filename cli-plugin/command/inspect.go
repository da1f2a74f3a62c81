package command

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command/inspect"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

func newInspectCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] APP|TASK [APP|TASK...]",
		Short: "Show all that is known of applications and tasks",
		Long: `Show all that is known of applications and tasks.

A task is named by its ID or by its container's name.`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInspect(cmd.Context(), e, args, format)
		},
		ValidArgsFunction: e.completeTasks,
	}
	inspectFlags(cmd, &format)
	return cmd
}

func runInspect(ctx context.Context, e *Env, names []string, format string) error {
	return e.with(func(c *api.Client) error {
		return inspectAll(e, names, format, func(name string) (any, error) {
			app, err := c.Application(ctx, name)
			if err == nil {
				return app, nil
			}
			if !errors.Is(err, api.ErrNotFound) {
				return nil, err
			}
			tasks, err := c.Tasks(ctx, "")
			if err != nil {
				return nil, err
			}
			for _, t := range tasks {
				if t.ID == name || t.Name == name {
					return t, nil
				}
			}
			return nil, notFound("no such application or task: %s", name)
		})
	})
}

func inspectFlags(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "format", "f", "", `Format output: "json" or a Go TEMPLATE`)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
}

// inspectAll shows what get finds for each name, as docker inspect does. What
// is found is shown even when another name is not; the error is the first
// one's.
func inspectAll(e *Env, names []string, format string, get func(string) (any, error)) error {
	var first error
	err := inspect.Inspect(e.cli.Out(), names, format, func(name string) (any, []byte, error) {
		v, err := get(name)
		if err != nil {
			if first == nil {
				first = err
			}
			return nil, nil, err
		}
		raw, err := json.Marshal(v)
		return v, raw, err
	})
	if first != nil {
		return textError{err, first}
	}
	return err
}

// textError says one error's text and matches what another one matches.
type textError struct{ text, kind error }

func (e textError) Error() string { return e.text.Error() }
func (e textError) Unwrap() error { return e.kind }
