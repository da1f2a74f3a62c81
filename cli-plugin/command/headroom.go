package command

import (
	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

func newHeadroomCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:   "headroom [OPTIONS]",
		Short: "Keep room free by adding and removing hosts",
		Long: `Keep room free by adding and removing hosts.

Alone, it shows the policy, the room there is, the machines on their way and what
was decided last. Hosts come from providers (docker clocker provider); a replica
that no host can take asks them for one at once, with or without a policy.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				h, err := c.Headroom(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Headroom(o.options(e), h)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "", `Format output: "json" or a Go TEMPLATE`)
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.AddCommand(
		newHeadroomSetCommand(e), newHeadroomRmCommand(e),
		newHeadroomSuspendCommand(e, "suspend", "Decide and show, but ask for no host and remove none", true),
		newHeadroomSuspendCommand(e, "resume", "Ask for hosts and remove them again", false),
	)
	return cmd
}

func newHeadroomRmCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "rm",
		Aliases: []string{"remove"},
		Short:   "Take the headroom policy away",
		Long: `Take the headroom policy away.

Hosts that are there stay. Placements that are refused go on asking the fleet's
providers for hosts: suspend the policy, or remove the providers, to end that.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error { return c.RemoveHeadroom(cmd.Context()) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func newHeadroomSuspendCommand(e *Env, use, short string, suspended bool) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				h, err := c.Headroom(cmd.Context())
				if err != nil {
					return err
				}
				p := h.Policy
				p.Suspended = suspended
				if p.Suspended == h.Policy.Suspended && h.Revision > 0 || h.Revision == 0 && !suspended {
					return nil
				}
				_, err = c.SetHeadroom(cmd.Context(), api.HeadroomRequest{Policy: p, Revision: h.Revision})
				return err
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

// clearRoom leaves out what is kept free, for set --reset.
func clearRoom(p record.HeadroomPolicy) record.HeadroomPolicy {
	return record.HeadroomPolicy{Suspended: p.Suspended}
}
