package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

func newUserCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Manage who may use the fleet",
		Args:  args(cli.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserAddCommand(e), newUserLsCommand(e), newUserInspectCommand(e), newUserRmCommand(e))
	return cmd
}

func newUserAddCommand(e *Env) *cobra.Command {
	r := api.TokenRequest{Kind: record.TokenUser}
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] NAME",
		Short: "Make a token with which somebody joins as a user",
		Long: `Make a token with which somebody joins as a user: they run docker clocker
fleet join TOKEN on their machine. It is printed this once, is good for one use
and expires.

A user with role "admin" may do everything, with "deploy" change applications,
with "read" look. --app limits the last two to applications whose names match a
pattern. For a user who exists already, with the same role, the token is for
another machine.`,
		Example: `  docker clocker user add ann --role admin
  docker clocker user add ben --role deploy --app 'web-*' --app api
  docker clocker user add carol --role read --expires 1h | mail carol@example.com`,
		Args: args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.User = args[0]
			return issueToken(cmd, e, r, "docker clocker fleet join TOKEN")
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&r.Role, "role", record.RoleDeploy, `"admin", "deploy" or "read"`)
	f.StringArrayVar(&r.Apps, "app", nil, "Pattern of names of applications that the role is for (default: all)")
	f.DurationVar(&r.TTL, "expires", 24*time.Hour, "How long the token is good")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{record.RoleAdmin, record.RoleDeploy, record.RoleRead}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// issueToken prints a new token to standard output, and what to do with it
// beside.
func issueToken(cmd *cobra.Command, e *Env, r api.TokenRequest, how string) error {
	if r.TTL <= 0 {
		return invalid("--expires %s is no time to come", r.TTL)
	}
	return e.with(func(c *api.Client) error {
		t, err := c.CreateToken(cmd.Context(), r)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(e.cli.Out(), t.Text)
		e.say("Good once, until %s, for: %s", t.Expires.Local().Format(time.DateTime), how)
		return nil
	})
}

func newUserLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List users",
		Args:    args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				users, err := c.Users(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Users(o.options(e), users)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	return cmd
}

func newUserInspectCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] USER [USER...]",
		Short: "Show users in detail",
		Args:  args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				return inspectAll(e, args, format, func(name string) (any, error) { return c.User(cmd.Context(), name) })
			})
		},
		ValidArgsFunction: e.completeUsers,
	}
	inspectFlags(cmd, &format)
	return cmd
}

func newUserRmCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:     "rm USER [USER...]",
		Aliases: []string{"remove"},
		Short:   "Take users' rights away",
		Long: `Take users' rights away, at once and on every machine of theirs: certificates
they have are refused from then on, tokens for them are worthless.`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				return removeEach(e, args, func(name string) error { return c.RemoveUser(cmd.Context(), name) })
			})
		},
		ValidArgsFunction: e.completeUsers,
	}
}

// removeEach removes things by name, prints those that went, and gives every
// error.
func removeEach(e *Env, names []string, remove func(string) error) error {
	var errs []error
	for _, name := range names {
		err := remove(name)
		if err == nil {
			_, _ = fmt.Fprintln(e.cli.Out(), name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// completeUsers completes users that are not among the arguments yet.
func (e *Env) completeUsers(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		users, err := c.Users(ctx)
		var names []string
		for _, u := range users {
			names = append(names, u.Name)
		}
		return without(names, given), err
	})
}
