package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

func newPoolCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pool",
		Short: "Manage the address pools that networks take subnets from",
		Args:  args(cli.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPoolLsCommand(e), newPoolAddCommand(e), newPoolInspectCommand(e), newPoolRmCommand(e), newPoolCheckCommand(e))
	return cmd
}

func newPoolLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List address pools",
		Args:    args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				pools, err := c.Pools(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Pools(o.options(e), pools)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	return cmd
}

func newPoolAddCommand(e *Env) *cobra.Command {
	var size int
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] NAME CIDR",
		Short: "Add an address pool",
		Long: `Add an address pool, of IPv4 or IPv6 addresses.

A range that meets another pool or a route of any host is refused. Networks take
their subnets from it with docker clocker network create --pool NAME.`,
		Example: `  docker clocker pool add lab 10.96.0.0/12
  docker clocker pool add --size 24 small 172.24.0.0/16`,
		Args: args(cli.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				p, err := c.AddPool(cmd.Context(), record.Pool{Name: args[0], CIDR: args[1], SubnetBits: size})
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintln(e.cli.Out(), p.Name)
				e.say("pool %s has %d subnets of /%d", p.Name, p.Subnets, p.SubnetBits)
				return nil
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().IntVar(&size, "size", 0, "Prefix length of each network's subnet (default: 20, 64 for IPv6, longer in small pools)")
	return cmd
}

func newPoolInspectCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] POOL [POOL...]",
		Short: "Show which networks have which subnets of pools",
		Args:  args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				return inspectAll(e, args, format, func(name string) (any, error) { return c.Pool(cmd.Context(), name) })
			})
		},
		ValidArgsFunction: e.completePools,
	}
	inspectFlags(cmd, &format)
	return cmd
}

func newPoolRmCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "rm POOL [POOL...]",
		Aliases: []string{"remove"},
		Short:   "Remove address pools that no network has a subnet of",
		Args:    args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				var errs []error
				for _, name := range args {
					err := c.RemovePool(cmd.Context(), name)
					if err == nil {
						_, _ = fmt.Fprintln(e.cli.Out(), name)
					}
					errs = append(errs, err)
				}
				return errors.Join(errs...)
			})
		},
		ValidArgsFunction: e.completePools,
	}
}

func newPoolCheckCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:   "check [OPTIONS] [POOL...]",
		Short: "Look for what is wrong with address pools",
		Long: `Look for what is wrong with address pools: ranges that meet a route of a host
or each other, pools and networks that are full. The exit code is 1 when
something is found.`,
		Args:              args(cobra.ArbitraryArgs),
		RunE:              func(cmd *cobra.Command, args []string) error { return runPoolCheck(cmd.Context(), e, args, o) },
		ValidArgsFunction: e.completePools,
	}
	o.flags(cmd, "Only display the pools with findings")
	return cmd
}

func runPoolCheck(ctx context.Context, e *Env, names []string, o list) error {
	return e.with(func(c *api.Client) error {
		if len(names) == 0 {
			pools, err := c.Pools(ctx)
			if err != nil {
				return err
			}
			for _, p := range pools {
				names = append(names, p.Name)
			}
		}
		var found []api.Finding
		for _, name := range names {
			fs, err := c.CheckPool(ctx, name)
			if err != nil {
				return err
			}
			for _, f := range fs {
				found = append(found, api.Finding{Finding: f})
			}
		}
		return e.findings(o, found, fmt.Sprintf("nothing is wrong with %s", counted(names, "pool", "pools")))
	})
}
