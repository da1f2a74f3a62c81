package command

import (
	"context"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newNetworkLsCommand(e *Env) *cobra.Command {
	var o list
	var filters []string
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Long: `List networks.

A filter is KEY=VALUE, with "name", "id", "app", "driver", "segment", "carrier"
or "label" (label=KEY or label=KEY=VALUE) for a key; "name" matches a part.
Filters of one key add up, those of different keys must all match.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			match, err := networkFilter(filters)
			if err != nil {
				return err
			}
			return e.with(func(c *api.Client) error {
				all, err := c.Networks(cmd.Context())
				if err != nil {
					return err
				}
				var shown []api.Network
				for _, n := range all {
					if match(n) {
						shown = append(shown, n)
					}
				}
				return formatter.Networks(o.options(e), shown)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display IDs")
	cmd.Flags().StringArrayVarP(&filters, "filter", "f", nil, "Only networks that match KEY=VALUE")
	return cmd
}

// networkFilter reads filters as docker network ls has them.
func networkFilter(filters []string) (func(api.Network) bool, error) {
	want := map[string][]string{}
	for _, f := range filters {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, invalid("filter %q is not KEY=VALUE", f)
		}
		switch k {
		case "name", "id", "app", "driver", "segment", "carrier", "label":
			want[k] = append(want[k], v)
		default:
			return nil, invalid("filter %q: there are name, id, app, driver, segment, carrier and label", f)
		}
	}
	return func(n api.Network) bool {
		for k, values := range want {
			if !anyMatch(n, k, values) {
				return false
			}
		}
		return true
	}, nil
}

func anyMatch(n api.Network, key string, values []string) bool {
	for _, v := range values {
		label, value, exact := strings.Cut(v, "=")
		had, labelled := n.Labels[label]
		if map[string]bool{
			"name": strings.Contains(n.Name, v), "id": strings.HasPrefix(n.ID, v), "app": n.App == v,
			"driver": formatter.NetworkDriver(n) == v, "segment": n.Segment == v, "carrier": n.Carrier == v,
			"label": labelled && (!exact || had == value),
		}[key] {
			return true
		}
	}
	return false
}

type networkInspectOptions struct {
	format   string
	topology bool
}

func newNetworkInspectCommand(e *Env) *cobra.Command {
	var o networkInspectOptions
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NETWORK [NETWORK...]",
		Short: "Show all that is known of networks",
		Long: `Show all that is known of networks: on which hosts they are, which addresses
are in use by what, and what is open to others.

With --topology it is drawn as a tree; --format is then "json" or "dot" (a graph
for Graphviz).`,
		Example: `  docker clocker network inspect front
  docker clocker network inspect --topology front
  docker clocker network inspect --topology --format dot front | dot -Tsvg -o front.svg`,
		Args: args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runNetworkInspect(cmd.Context(), e, args, o)
		},
		ValidArgsFunction: e.completeNetworks,
	}
	inspectFlags(cmd, &o.format)
	cmd.Flags().BoolVar(&o.topology, "topology", false, "Draw which host, endpoint and rule belong to it")
	return cmd
}

func runNetworkInspect(ctx context.Context, e *Env, names []string, o networkInspectOptions) error {
	if o.topology {
		return e.topology(ctx, names, o.format)
	}
	return e.with(func(c *api.Client) error {
		return inspectAll(e, names, o.format, func(name string) (any, error) { return c.Network(ctx, name) })
	})
}
