package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newProviderCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "provider",
		Short: "Manage where hosts come from",
		Long: `Manage where hosts come from.

A provider gives machines when headroom lacks room or a replica finds no host, and
takes them back when they are empty: "byon" is a list of machines reached over SSH,
"standby" a list of engines that wait.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newProviderAddCommand(e), newProviderLsCommand(e), newProviderInspectCommand(e), newProviderRmCommand(e),
		newProviderMachinesCommand(e), newProviderReleaseCommand(e),
	)
	return cmd
}

func newProviderLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List providers of hosts",
		Args:    args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				ps, err := c.Providers(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Providers(o.options(e), ps)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	return cmd
}

func newProviderInspectCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] PROVIDER [PROVIDER...]",
		Short: "Show all that is known of providers, but for their keys",
		Args:  args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				return inspectAll(e, args, format, func(name string) (any, error) { return c.Provider(cmd.Context(), name) })
			})
		},
		ValidArgsFunction: e.completeProviders,
	}
	inspectFlags(cmd, &format)
	return cmd
}

func newProviderRmCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "rm PROVIDER [PROVIDER...]",
		Aliases: []string{"remove"},
		Short:   "Remove providers that no machine in use is of",
		Args:    args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				var errs []error
				for _, name := range args {
					err := c.RemoveProvider(cmd.Context(), name)
					if err == nil {
						_, _ = fmt.Fprintln(e.cli.Out(), name)
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
		ValidArgsFunction: e.completeProviders,
	}
}

func newProviderMachinesCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:   "machines [OPTIONS] [PROVIDER...]",
		Short: "List the machines that providers were asked for",
		Long: `List the machines that providers were asked for.

A machine is requested, creating, adopting, host, draining and releasing, in this
order. One that could not be adopted is failed: it stays in the list, counts for
nothing and is not tried again until it is released.`,
		Args: args(cobra.ArbitraryArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				ms, err := c.Machines(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Machines(o.options(e), machinesOf(ms, args))
			})
		},
		ValidArgsFunction: e.completeProviders,
	}
	o.flags(cmd, "Only display IDs")
	return cmd
}

func machinesOf(ms []api.Machine, providers []string) []api.Machine {
	if len(providers) == 0 {
		return ms
	}
	var out []api.Machine
	for _, m := range ms {
		for _, p := range providers {
			if m.Provider == p {
				out = append(out, m)
			}
		}
	}
	return out
}

func newProviderReleaseCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "release MACHINE [MACHINE...]",
		Short: "Let machines go",
		Long: `Let machines go, by id, name or address.

One on its way is cancelled. A host is drained, whatever runs on it, removed from
the fleet and given back. A failed one is cleaned, as far as it can be reached, and
may be used again.`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				var errs []error
				for _, name := range args {
					m, err := c.ReleaseMachine(cmd.Context(), name)
					if err == nil {
						_, _ = fmt.Fprintln(e.cli.Out(), m.ID)
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
				ms, err := c.Machines(ctx)
				var ids []string
				for _, m := range ms {
					ids = append(ids, m.ID)
				}
				return without(ids, given), err
			})
		},
	}
}

// completeProviders completes providers that are not among the arguments yet.
func (e *Env) completeProviders(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		ps, err := c.Providers(ctx)
		var names []string
		for _, p := range ps {
			names = append(names, p.Name)
		}
		return without(names, given), err
	})
}
