package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
)

type upgradeOptions struct {
	plan, controllersOnly, quiet bool
	reach                        reachFlags
}

func newUpgradeCommand(e *Env) *cobra.Command {
	var o upgradeOptions
	cmd := &cobra.Command{
		Use:   "upgrade [OPTIONS]",
		Short: "Bring the fleet to this version of Clocker",
		Long: `Bring the fleet to this version of Clocker, piece by piece.

Controllers come first, one by one, the leader last, each one up and voting before
the next is begun; then the hosts, one by one. Containers and their connections go
on. It stops at the first piece that does not come up again; run again, it goes on
there.`,
		Example: `  docker clocker upgrade --plan
  docker clocker upgrade`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runUpgrade(cmd.Context(), e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVar(&o.plan, "plan", false, "Show what would be done, without doing it")
	f.BoolVar(&o.controllersOnly, "controllers-only", false, "Leave the hosts as they are")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func newControllerUpgradeCommand(e *Env) *cobra.Command {
	o := upgradeOptions{controllersOnly: true}
	cmd := &cobra.Command{
		Use:               "upgrade [OPTIONS]",
		Short:             "Bring the controllers to this version of Clocker",
		Long:              `Bring the controllers to this version of Clocker: "upgrade --controllers-only".`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runUpgrade(cmd.Context(), e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVar(&o.plan, "plan", false, "Show what would be done, without doing it")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func runUpgrade(ctx context.Context, e *Env, o upgradeOptions) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	kit, err := fleet.NewKit(fleet.Build{})
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	show := e.steps("Upgrading controllers to "+kit.Version, o.quiet)
	err = fleet.UpgradeControllers(ctx, fleet.UpgradeControllersOptions{
		Dir: config.Dir(), Profile: p, API: c, Kit: kit, Plan: o.plan,
		Engines: func(x api.Controller) (*client.Client, error) {
			return e.controllerEngine(ctx, p, &reached, o.reach, x)
		},
	}, show.add)
	show.close(err)
	if err != nil || o.controllersOnly {
		return err
	}
	if o.plan {
		return planHosts(ctx, e, c, kit)
	}
	return runHostUpgrade(ctx, e, hostUpgradeOptions{all: true, quiet: o.quiet, reach: o.reach})
}

// planHosts says what would be done to the hosts.
func planHosts(ctx context.Context, e *Env, c *api.Client, kit *fleet.Kit) error {
	hosts, err := c.Hosts(ctx)
	if err != nil {
		return err
	}
	for _, h := range hosts {
		is := "not known"
		if h.Facts != nil {
			is = h.Facts.AgentVersion
		}
		if is == kit.Version {
			e.say("host %s is at %s: kept if its image is this one", h.Name, is)
		} else {
			e.say("host %s is brought from %s to %s", h.Name, is, kit.Version)
		}
	}
	return nil
}
