package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/record"
)

func newFleetCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fleet",
		Short: "Manage the fleets that this machine knows",
		Args:  args(cli.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newFleetLsCommand(e), newFleetUseCommand(e), newFleetRmCommand(e))
	cmd.AddCommand(newFleetInspectCommand(e), newFleetUpdateCommand(e), newFleetJoinCommand(e), newFleetForgetCommand(e))
	return cmd
}

func newFleetLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:               "ls [OPTIONS]",
		Aliases:           []string{"list"},
		Short:             "List fleets",
		Args:              args(cli.NoArgs),
		RunE:              func(*cobra.Command, []string) error { return runFleetLs(e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	return cmd
}

func runFleetLs(e *Env, o list) error {
	names, err := fleet.List(config.Dir())
	if err != nil {
		return err
	}
	current := e.fleetName()
	if current == "" {
		current, _ = fleet.Current(config.Dir()) // none is chosen: none is marked
	}
	var rows []formatter.Fleet
	for _, n := range names {
		row := formatter.Fleet{Name: n, Current: n == current}
		if p, err := fleet.Open(config.Dir(), n); err != nil {
			row.Error = err.Error()
		} else {
			row.Controllers = p.Controllers
		}
		rows = append(rows, row)
	}
	return formatter.Fleets(o.options(e), rows)
}

func newFleetUseCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "use FLEET",
		Short: "Choose the fleet that commands use when none is named",
		Args:  args(cli.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := fleet.Use(config.Dir(), args[0]); err != nil {
				return err
			}
			e.say("Commands use fleet %s from now on.", args[0])
			return nil
		},
		ValidArgsFunction: e.completeFleets,
	}
}

type fleetRmOptions struct {
	force, quiet bool
	reach        reachFlags
}

func newFleetRmCommand(e *Env) *cobra.Command {
	var o fleetRmOptions
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] FLEET",
		Aliases: []string{"remove"},
		Short:   "Take a whole fleet away: its hosts, its controller, its files here",
		Args:    args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !o.force {
				if err := e.confirm("Remove fleet " + args[0] + " with its controller and all that is known of its applications?"); err != nil {
					return err
				}
			}
			return runFleetRm(cmd.Context(), e, args[0], o)
		},
		ValidArgsFunction: e.completeFleets,
	}
	cmd.Flags().BoolVarP(&o.force, "force", "f", false, "Do not ask; go on past hosts that do not answer and applications that still run")
	cmd.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func runFleetRm(ctx context.Context, e *Env, name string, o fleetRmOptions) error {
	p, err := fleet.Open(config.Dir(), name)
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	open := func(host, endpoint string) (*client.Client, error) {
		if was := p.Access[host].Endpoint; was != "" {
			endpoint = was
		}
		conn, err := reached.open(ctx, endpoint, o.reach.known(e, p, host))
		if err != nil {
			return nil, err
		}
		return conn.Client, nil
	}
	do := fleet.DestroyOptions{Dir: config.Dir(), Profile: p, Engines: open, Force: o.force}
	if do.Engine, err = open("", ""); err != nil && !o.force {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Info(ctx); err == nil {
		do.Controller = c
		if err := mayDestroy(ctx, c, p); err != nil {
			return err
		}
	} else if !o.force {
		return err
	}
	show := e.steps("Removing fleet "+name, o.quiet)
	err = fleet.Destroy(ctx, do, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	return fleet.RemoveContexts(e.cli.ContextStore(), name)
}

// mayDestroy refuses people who are no admin, as far as the fleet says who they
// are: whoever reaches its engines could take it away, and may only have meant
// to forget it here.
func mayDestroy(ctx context.Context, c *api.Client, p *fleet.Profile) error {
	u, err := c.User(ctx, p.User)
	if errors.Is(err, api.ErrForbidden) || err == nil && u.Role != record.RoleAdmin {
		return fmt.Errorf("remove fleet %s: %w: it takes an admin, and user %s is none: docker clocker fleet forget %s removes it from this machine only",
			p.Name, api.ErrForbidden, p.User, p.Name)
	}
	return nil // what does not answer is for the steps that need it
}
