package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
)

func newHostCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Manage the hosts of a fleet",
		Args:  args(cli.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newHostAddCommand(e), newHostLsCommand(e), newHostInspectCommand(e), newHostRmCommand(e))
	return cmd
}

type hostAddOptions struct {
	endpoints     []string
	name, address string
	labels        []string
	reach         reachFlags
	force, quiet  bool
}

func newHostAddCommand(e *Env) *cobra.Command {
	var o hostAddOptions
	cmd := &cobra.Command{
		Use:   "add [OPTIONS] ENDPOINT [ENDPOINT...]",
		Short: "Add Docker hosts to the fleet",
		Long: `Add Docker hosts to the fleet.

ENDPOINT is how an engine is reached from here: ssh://[USER@]HOST[:PORT],
tcp://HOST:PORT with TLS, unix:///PATH or context:NAME. Image, plugin and
certificates are copied there through the engine's own API: no registry is
needed, and the engine is not restarted. Several hosts are added at the same
time.`,
		Example: `  docker clocker host add ssh://root@10.0.0.7 ssh://root@10.0.0.8
  docker clocker host add --name big --label disk=ssd --tls-cert-dir ~/certs tcp://10.0.0.9:2376`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.endpoints = args
			return runHostAdd(cmd.Context(), e, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "Name of the host (default: its host name)")
	f.StringVar(&o.address, "address", "", "Address by which the other hosts reach it (default: chosen)")
	f.StringArrayVar(&o.labels, "label", nil, "Label for placement, KEY=VALUE")
	f.BoolVarP(&o.force, "force", "f", false, "Take a machine over that says it belongs to another fleet")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the hosts' names")
	o.reach.flags(cmd)
	return cmd
}

func runHostAdd(ctx context.Context, e *Env, o hostAddOptions) error {
	if len(o.endpoints) > 1 && (o.name != "" || o.address != "") {
		return usageError{errors.New("--name and --address are for one host: add the hosts one by one")}
	}
	labels, err := keyValues("label", o.labels)
	if err != nil {
		return err
	}
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
	var add []fleet.AddOptions
	var errs []error
	for _, endpoint := range o.endpoints {
		conn, err := reached.open(ctx, endpoint, o.reach.options(e))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		add = append(add, fleet.AddOptions{
			Controller: c, Fleet: p.Name, CA: p.CA, Engine: conn.Client, Endpoint: conn.Endpoint,
			Name: o.name, Address: o.address, Labels: labels, Kit: kit, Force: o.force,
		})
	}
	if len(errs) > 0 { // before anything is done to the others
		return errors.Join(errs...)
	}
	show := e.steps("Adding to fleet "+p.Name, o.quiet)
	hosts, err := fleet.AddHosts(ctx, add, show.add)
	show.close(err)
	for _, h := range hosts {
		if rerr := e.remember(p, h.Name, h.Endpoint, o.reach); err == nil {
			err = rerr
		}
		if o.quiet {
			_, _ = fmt.Fprintln(e.cli.Out(), h.Name)
		} else {
			e.say("%s (%s) is a host of fleet %s", h.Name, h.Address, p.Name)
		}
	}
	return err
}

func newHostLsCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List hosts",
		Args:    args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				hosts, err := c.Hosts(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Hosts(o.options(e), hosts)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	return cmd
}

func newHostInspectCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] HOST [HOST...]",
		Short: "Show all that is known of hosts",
		Args:  args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.with(func(c *api.Client) error {
				return inspectAll(e, args, format, func(name string) (any, error) { return c.Host(cmd.Context(), name) })
			})
		},
		ValidArgsFunction: e.completeHosts,
	}
	inspectFlags(cmd, &format)
	return cmd
}

type hostRmOptions struct {
	force, forget, quiet bool
	reach                reachFlags
}

func newHostRmCommand(e *Env) *cobra.Command {
	var o hostRmOptions
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] HOST [HOST...]",
		Aliases: []string{"remove"},
		Short:   "Remove hosts from the fleet",
		Long: `Remove hosts from the fleet.

Their replicas move to other hosts first, then everything of Clocker is taken
away from them. With --force, a host that cannot be reached is given up: what
runs there goes on until somebody cleans it.`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			var errs []error
			for _, name := range args {
				if ctx.Err() == nil {
					errs = append(errs, runHostRm(ctx, e, name, o))
				}
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: e.completeHosts,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.force, "force", "f", false, "Give up a host that does not answer, cut off what others run there, let the last host go")
	f.BoolVar(&o.forget, "forget", false, "With --force: do not even try to reach the host's engine")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	o.reach.flags(cmd)
	return cmd
}

func runHostRm(ctx context.Context, e *Env, name string, o hostRmOptions) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	endpoint := p.Access[name].Endpoint
	h, err := c.Host(ctx, name)
	switch {
	case err == nil:
		name = h.Name
		if endpoint = p.Access[name].Endpoint; endpoint == "" {
			endpoint = h.Endpoint
		}
	case !errors.Is(err, api.ErrNotFound) || endpoint == "":
		return err // a removal that was interrupted can still be finished
	}
	ro := fleet.RemoveOptions{Controller: c, Fleet: p.Name, Name: name, Force: o.force}
	var reached engines
	defer reached.close()
	if o.forget {
		ro.Unreachable = errors.New("--forget leaves it alone")
	} else if conn, err := reached.open(ctx, endpoint, o.reach.known(e, p, name)); err == nil {
		ro.Engine = conn.Client
	} else {
		ro.Unreachable = err
	}
	show := e.steps("Removing host "+name, o.quiet)
	err = fleet.RemoveHost(ctx, ro, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	return e.forget(p, name)
}
