package command

import (
	"context"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

func newTokenCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Manage the tokens by which hosts and users join",
		Args:  args(cli.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenCreateCommand(e), newTokenLsCommand(e), newTokenRmCommand(e))
	return cmd
}

func newTokenCreateCommand(e *Env) *cobra.Command {
	var labels []string
	r := api.TokenRequest{Kind: record.TokenHost}
	cmd := &cobra.Command{
		Use:   "create [OPTIONS]",
		Short: "Make a token with which a host joins",
		Long: `Make a token with which a host joins: run docker clocker host join TOKEN on
it. It is printed this once, is good for one host and expires. Tokens for people
are made by docker clocker user add.`,
		Example: `  docker clocker token create
  docker clocker token create --expires 1h --label zone=b`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if r.Labels, err = keyValues("label", labels); err != nil {
				return err
			}
			return issueToken(cmd, e, r, "docker clocker host join TOKEN")
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringArrayVar(&labels, "label", nil, "Label of the host, KEY=VALUE")
	cmd.Flags().DurationVar(&r.TTL, "expires", 24*time.Hour, "How long the token is good")
	return cmd
}

func newTokenLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List tokens, without their secrets",
		Args:    args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				tokens, err := c.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Tokens(o.options(e), tokens)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display ids")
	return cmd
}

func newTokenRmCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "rm TOKEN [TOKEN...]",
		Aliases: []string{"remove"},
		Short:   "Make tokens worthless, by their ids",
		Args:    args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				return removeEach(e, args, func(id string) error { return c.RemoveToken(cmd.Context(), id) })
			})
		},
		ValidArgsFunction: e.completeTokens,
	}
}

// completeTokens completes ids of tokens that are not among the arguments yet.
func (e *Env) completeTokens(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		tokens, err := c.Tokens(ctx)
		var ids []string
		for _, t := range tokens {
			ids = append(ids, t.ID)
		}
		return without(ids, given), err
	})
}
