package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

func newNetworkRmCommand(e *Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] NETWORK [NETWORK...]",
		Aliases: []string{"remove"},
		Short:   "Remove networks from every host",
		Long: `Remove networks from every host.

A network that containers or machines are on is not removed, and they are
named. The command ends when no host that answers has the network any more.`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error { return removeNetworks(cmd.Context(), e, c, args, force) })
		},
		ValidArgsFunction: e.completeNetworks,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not complain about a network that does not exist")
	return cmd
}

// removeNetworks removes one after the other. One that fails does not keep the
// next from being removed.
func removeNetworks(ctx context.Context, e *Env, c *api.Client, names []string, force bool) error {
	var errs []error
	for _, name := range names {
		if ctx.Err() != nil {
			break
		}
		gone, err := c.RemoveNetwork(ctx, name)
		if force && errors.Is(err, api.ErrNotFound) {
			continue
		}
		if err == nil {
			_, _ = fmt.Fprintln(e.cli.Out(), name)
			err = e.behind("rm", gone)
		}
		if err != nil {
			errs = append(errs, err)
		}
		if errors.Is(err, api.ErrUnreachable) {
			break
		}
	}
	return errors.Join(errs...)
}

func newNetworkPruneCommand(e *Env) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove networks that nothing is on",
		Long: `Remove networks that nothing is on: no container, running or stopped, and no
machine. Networks of applications stay.

On a terminal it asks first.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				if err := e.confirm("Remove all networks that nothing is on?"); err != nil {
					return err
				}
			}
			return runNetworkPrune(cmd.Context(), e)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	return cmd
}

func runNetworkPrune(ctx context.Context, e *Env) error {
	return e.with(func(c *api.Client) error {
		all, err := c.Networks(ctx)
		if err != nil {
			return err
		}
		for _, n := range all {
			if n.App != "" || n.Endpoints > 0 || n.Name == "" {
				continue
			}
			// Those with stopped containers or machines on them are refused.
			err := removeNetworks(ctx, e, c, []string{n.Name}, true)
			if err != nil && !errors.Is(err, api.ErrConflict) {
				return err
			}
		}
		return nil
	})
}
