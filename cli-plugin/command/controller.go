package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
)

func newControllerCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Manage the controllers of a fleet",
		Long: `Manage the controllers of a fleet.

A fleet has 1, 3 or 5 controllers. With three, it bears the loss of one; with
five, of two. One leads, the others stand by and take over within seconds.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newControllerLsCommand(e), newControllerInspectCommand(e), newControllerAddCommand(e), newControllerRmCommand(e),
		newControllerRecoverCommand(e), newControllerAnnounceCommand(e), newControllerUpgradeCommand(e))
	return cmd
}

func newControllerLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List controllers",
		Example: `  docker clocker controller ls
  docker clocker controller ls --format 'table {{.Name}}\t{{.Status}}\t{{.Term}}\t{{.Lag}}'`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := e.profile()
			if err != nil {
				return err
			}
			c, err := p.Client()
			if err != nil {
				return err
			}
			defer c.Close()
			all, err := c.FleetControllers(cmd.Context())
			if err != nil {
				return err
			}
			if err := fleet.LearnControllers(config.Dir(), p, all); err != nil {
				return err
			}
			return formatter.Controllers(o.options(e), all)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	return cmd
}

func newControllerInspectCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] CONTROLLER [CONTROLLER...]",
		Short: "Show all that is known of controllers",
		Args:  args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				return inspectAll(e, args, format, func(name string) (any, error) { return c.FleetController(cmd.Context(), name) })
			})
		},
		ValidArgsFunction: e.completeControllers,
	}
	inspectFlags(cmd, &format)
	return cmd
}

// completeControllers completes names of controllers.
func (e *Env) completeControllers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return e.ask(cmd.Context(), func(ctx context.Context, c *api.Client) ([]string, error) {
		all, err := c.FleetControllers(ctx)
		var names []string
		for _, x := range all {
			names = append(names, x.Name)
		}
		return names, err
	})
}

// controllerEngine opens the engine of a controller.
func (e *Env) controllerEngine(ctx context.Context, p *fleet.Profile, s *engines, r reachFlags, c api.Controller) (*client.Client, error) {
	access, known := p.AccessOf(c)
	endpoint := access.Endpoint
	if endpoint == "" {
		endpoint = c.Endpoint
	}
	if endpoint == "" && !known {
		return nil, fmt.Errorf("controller %s: how its engine is reached is not known here: %w", c.Name, fleet.ErrUnreachable)
	}
	if r.CertDir == "" {
		r.CertDir = access.CertDir
	}
	if r.KnownHosts == "" {
		r.KnownHosts = access.KnownHosts
	}
	if r.Identity == "" {
		r.Identity = access.Identity
	}
	conn, err := s.open(ctx, endpoint, r.options(e))
	if err != nil {
		return nil, err
	}
	return conn.Client, nil
}

// sourceEngine opens the engine of some controller that is up: the named one,
// or the first that answers.
func (e *Env) sourceEngine(ctx context.Context, p *fleet.Profile, s *engines, r reachFlags, all []api.Controller, from string) (*client.Client, error) {
	var errs []error
	for _, c := range all {
		if from != "" && c.Name != from || c.Status == api.ControllerDown || c.Status == api.ControllerJoining {
			continue
		}
		cl, err := e.controllerEngine(ctx, p, s, r, c)
		if err == nil {
			_, err = cl.Ping(ctx, client.PingOptions{})
		}
		if err == nil {
			return cl, nil
		}
		errs = append(errs, fmt.Errorf("controller %s: %w", c.Name, err))
	}
	if len(errs) == 0 {
		errs = append(errs, fmt.Errorf("no controller %s that is up", from))
	}
	return nil, fmt.Errorf("reach the engine of a controller, which has the fleet's authority: %w", errors.Join(errs...))
}

type controllerAddOptions struct {
	name, advertise, from string
	quiet                 bool
	reach                 reachFlags
}

func newControllerAddCommand(e *Env) *cobra.Command {
	var o controllerAddOptions
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] HOST|ENDPOINT",
		Short: "Add a controller to the fleet",
		Long: `Add a controller to the fleet.

It is made on the engine of a host of the fleet, or on any other engine. The
fleet's authority is carried over from the engine of a controller that is there,
so this machine must reach that one, too. Its member of etcd learns first and
votes once it has caught up. Run again, it goes on where it was interrupted.`,
		Example: `  docker clocker controller add h2
  docker clocker controller add --name ctl-3 ssh://root@10.0.0.9`,
		Args:              args(cli.ExactArgs(1)),
		RunE:              func(cmd *cobra.Command, args []string) error { return runControllerAdd(cmd.Context(), e, args[0], o) },
		ValidArgsFunction: e.completeHosts,
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "Name of the controller (default: its host's name)")
	f.StringVar(&o.advertise, "advertise", "", "Address by which users, hosts and other controllers reach it (default: the host's, or chosen)")
	f.StringVar(&o.from, "from", "", "Controller that the authority is carried over from (default: one that answers)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the controller's name")
	o.reach.flags(cmd)
	return cmd
}

func runControllerAdd(ctx context.Context, e *Env, target string, o controllerAddOptions) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.FleetControllers(ctx)
	if err != nil {
		return err
	}
	access, err := o.reach.absolute(os.Getenv)
	if err != nil {
		return err
	}
	do := fleet.ControllerOptions{Dir: config.Dir(), Profile: p, API: c, Name: o.name, Advertise: o.advertise}
	access.Endpoint = target
	if !strings.Contains(target, ":") { // a host of the fleet
		h, err := c.Host(ctx, target)
		if err != nil {
			return err
		}
		do.Host = h.Name
		if was, known := p.Access[h.Name]; known {
			access = was
		}
		if access.Endpoint = first(p.Access[h.Name].Endpoint, h.Endpoint); do.Advertise == "" {
			do.Advertise = h.Address
		}
	}
	do.Endpoint, do.Access = access.Endpoint, access
	var reached engines
	defer reached.close()
	conn, err := reached.open(ctx, access.Endpoint, reachFlags{access}.options(e))
	if err != nil {
		return err
	}
	do.Engine = conn.Client
	if do.Source, err = e.sourceEngine(ctx, p, &reached, reachFlags{}, all, o.from); err != nil {
		return err
	}
	show := e.steps("Adding a controller", o.quiet)
	added, err := fleet.AddController(ctx, do, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	if o.quiet {
		_, err = fmt.Fprintln(e.cli.Out(), added.Name)
		return err
	}
	e.say("Controller %s serves at %s.", added.Name, added.URL)
	return nil
}

type controllerRmOptions struct {
	force, quiet bool
	reach        reachFlags
}

func newControllerRmCommand(e *Env) *cobra.Command {
	var o controllerRmOptions
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTROLLER",
		Aliases: []string{"remove"},
		Short:   "Remove a controller from the fleet",
		Long: `Remove a controller from the fleet.

Its member leaves etcd first, then its container and volumes go. The last
controller stays, and so does one without which etcd would have no majority.
With --force, a controller that does not answer is given up.`,
		Args:              args(cli.ExactArgs(1)),
		RunE:              func(cmd *cobra.Command, args []string) error { return runControllerRm(cmd.Context(), e, args[0], o) },
		ValidArgsFunction: e.completeControllers,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.force, "force", "f", false, "Give up a controller that does not answer")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func runControllerRm(ctx context.Context, e *Env, name string, o controllerRmOptions) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	known, err := c.FleetController(ctx, name)
	if err != nil && !errors.Is(err, api.ErrNotFound) {
		return err
	}
	known.Name = name
	do := fleet.RemoveControllerOptions{Dir: config.Dir(), Fleet: p.Name, API: c, Name: name, Force: o.force}
	var reached engines
	defer reached.close()
	if do.Engine, do.Unreachable = e.controllerEngine(ctx, p, &reached, o.reach, known); do.Unreachable != nil {
		if err != nil {
			return err // neither the fleet nor this machine knows it
		}
	} else if _, ping := do.Engine.Ping(ctx, client.PingOptions{}); ping != nil {
		do.Engine, do.Unreachable = nil, ping
	}
	show := e.steps("Removing controller "+name, o.quiet)
	err = fleet.RemoveController(ctx, do, show.add)
	show.close(err)
	return err
}
