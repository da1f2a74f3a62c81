package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
)

type hostUpgradeOptions struct {
	hosts      []string
	all, quiet bool
	reach      reachFlags
}

func newHostUpgradeCommand(e *Env) *cobra.Command {
	var o hostUpgradeOptions
	cmd := &cobra.Command{
		Use:   "upgrade [OPTIONS] HOST [HOST...]",
		Short: "Bring hosts to this version of Clocker",
		Long: `Bring hosts to this version of Clocker: image, network plugin and agent.

One host comes after the other; the next one is begun when the last is ready with
its new agent and what ran there runs. Containers and their connections go on, the
engine is not restarted. Controllers are upgraded first (docker clocker controller
upgrade): a host that would be newer than them is refused. What was interrupted
goes on when the command is given again.

Hosts that joined by themselves are upgraded through their agents. With --all, hosts
that cannot be reached are left as they are and named at the end, and the exit code
tells.`,
		Example: `  docker clocker host upgrade --all
  docker clocker host upgrade server-2 server-3`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.hosts = args; o.all == (len(args) > 0) {
				return usageError{errors.New("name hosts, or give --all")}
			}
			return runHostUpgrade(cmd.Context(), e, o)
		},
		ValidArgsFunction: e.completeHosts,
	}
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "Upgrade every host of the fleet")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the names of hosts that were upgraded")
	o.reach.flags(cmd)
	return cmd
}

func runHostUpgrade(ctx context.Context, e *Env, o hostUpgradeOptions) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	var hosts []api.Host
	if o.all {
		if hosts, err = c.Hosts(ctx); err != nil {
			return err
		}
	}
	for _, name := range o.hosts {
		h, err := c.Host(ctx, name)
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	kit, err := fleet.NewKit(fleet.Build{})
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	var up []fleet.UpgradeOptions
	var errs []error
	for _, h := range hosts {
		endpoint := first(p.Access[h.Name].Endpoint, h.Endpoint)
		joined := endpoint == "" // by itself: no way to its engine is known but through its agent
		var conn *connect.Conn
		var err error
		if joined {
			conn, err = reached.through(ctx, c, h.Name, o.reach.options(e))
		} else {
			conn, err = reached.open(ctx, endpoint, o.reach.known(e, p, h.Name))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("host %s: %w", h.Name, err))
			continue
		}
		up = append(up, fleet.UpgradeOptions{Controller: c, Add: fleet.AddOptions{
			Fleet: p.Name, CA: p.CA, Engine: conn.Client, ThroughAgent: joined, Endpoint: h.Endpoint, Name: h.Name, Kit: kit,
		}})
	}
	left := errors.Join(errs...)
	if left != nil && !o.all { // before anything is done to the others
		return left
	}
	show := e.steps("Upgrading to "+kit.Version, o.quiet)
	done, err := fleet.UpgradeHosts(ctx, up, show.add)
	show.close(err)
	for _, h := range done {
		if o.quiet {
			_, _ = fmt.Fprintln(e.cli.Out(), h.Name)
		} else {
			e.say("host %s is at %s", h.Name, kit.Version)
		}
	}
	if left != nil {
		left = fmt.Errorf("not upgraded:\n%w", left)
	}
	return errors.Join(err, left)
}
