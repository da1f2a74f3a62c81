package command

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
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
	cmd.AddCommand(newHostLabelCommand(e), newHostExecCommand(e), newHostLogsCommand(e), newHostUpgradeCommand(e), newHostJoinCommand(e), newHostLeaveCommand(e))
	cmd.AddCommand(newHostCordonCommand(e), newHostDrainCommand(e), newHostEnableCommand(e))
	return cmd
}

func newHostLsCommand(e *Env) *cobra.Command {
	var o list
	var wanted []string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List hosts",
		Long: `List hosts.

STATUS is ready, joining (added, not heard of yet), cordoned or draining (takes no
new work), suspect (not heard of for a moment), lost (its work is replaced),
quarantined (it comes and goes), down or removing.`,
		Example: `  docker clocker host ls --filter label=disk=ssd --filter status=ready
  docker clocker host ls --format 'table {{.Name}}\t{{.Containers}}\t{{.DiskFree}}\t{{.Labels}}'`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filters, err := hostFilters(wanted)
			if err != nil {
				return err
			}
			return e.with(func(c *api.Client) error {
				hosts, err := c.Hosts(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.Hosts(o.options(e), slices.DeleteFunc(hosts, func(h api.Host) bool { return !filters(h) }))
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display names")
	cmd.Flags().StringArrayVarP(&wanted, "filter", "f", nil, `Only hosts that match: "label=KEY[=VALUE]", "status=STATUS", "name=PATTERN"`)
	return cmd
}

// hostFilters reads filters; those of one kind are alternatives, but for
// labels, all of which a host must have.
func hostFilters(wanted []string) (func(api.Host) bool, error) {
	var labels [][]string
	values := map[string][]string{}
	for _, w := range wanted {
		k, v, ok := strings.Cut(w, "=")
		switch {
		case !ok || v == "":
			return nil, usageError{fmt.Errorf("--filter %q is not KEY=VALUE", w)}
		case k == "label":
			labels = append(labels, strings.SplitN(v, "=", 2))
		case k == "status" || k == "name":
			if _, err := path.Match(v, ""); err != nil {
				return nil, usageError{fmt.Errorf("--filter %q: %w", w, err)}
			}
			values[k] = append(values[k], v)
		default:
			return nil, usageError{fmt.Errorf("--filter %q: there are label, status and name", w)}
		}
	}
	matches := func(patterns []string, s string) bool {
		return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, s); return ok })
	}
	return func(h api.Host) bool {
		for _, l := range labels {
			v, has := h.Labels[l[0]]
			if !has || len(l) == 2 && v != l[1] {
				return false
			}
		}
		return matches(values["status"], h.Status) && matches(values["name"], h.Name)
	}, nil
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
	if ro.Joined = err == nil && endpoint == ""; ro.Joined && !o.forget {
		// There is no way to it, and none is needed.
	} else if o.forget {
		ro.Unreachable = errors.New("--forget leaves it alone")
	} else if conn, err := reached.open(ctx, endpoint, o.reach.known(e, p, name)); err == nil {
		ro.Engine = conn.Client
	} else {
		ro.Unreachable = err
	}
	show := e.steps("Removing host "+name, o.quiet)
	err = fleet.RemoveHost(ctx, ro, show.add)
	show.close(err)
	switch {
	case err != nil && ctx.Err() != nil:
		return verdict{errInterrupted, fmt.Sprintf("remove host %s: interrupted: while docker clocker host ls shows it, it is what it was before; run it again to go on", name)}
	case err != nil:
		return err
	}
	if err := fleet.Remember(config.Dir(), p.Name, name, fleet.Access{}); err != nil {
		return err
	}
	return fleet.RemoveContext(e.cli.ContextStore(), p.Name, name)
}
