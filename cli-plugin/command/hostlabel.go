package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newHostLabelCommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "label HOST KEY=VALUE|KEY- [KEY=VALUE|KEY-...]",
		Short: "Change the labels of a host",
		Long: `Change the labels of a host, for placement.

KEY=VALUE sets a label, KEY- takes it away. What runs on the host stays there:
labels count when a replica is placed.`,
		Example: `  docker clocker host label server-2 disk=ssd zone=north
  docker clocker host label server-2 zone-`,
		Args: args(cli.RequiresMinArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runHostLabel(cmd.Context(), e, args[0], args[1:])
		},
		ValidArgsFunction: func(cmd *cobra.Command, given []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(given) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return e.completeHosts(cmd, given, word)
		},
	}
	return cmd
}

func runHostLabel(ctx context.Context, e *Env, host string, changes []string) error {
	change, err := labelChange(changes)
	if err != nil {
		return err
	}
	return e.with(func(c *api.Client) error {
		h, err := c.LabelHost(ctx, host, change)
		if err != nil {
			return err
		}
		return formatter.Hosts(formatter.Options{Out: e.cli.Out(), Format: "{{.Labels}}"}, []api.Host{h})
	})
}

// labelChange reads KEY=VALUE and KEY-.
func labelChange(changes []string) (api.LabelChange, error) {
	out := api.LabelChange{Set: map[string]string{}}
	for _, c := range changes {
		k, v, set := strings.Cut(c, "=")
		switch {
		case set && k != "":
			out.Set[k] = v
		case !set && len(c) > 1 && strings.HasSuffix(c, "-"):
			out.Remove = append(out.Remove, strings.TrimSuffix(c, "-"))
		default:
			return out, usageError{fmt.Errorf("%q is neither KEY=VALUE nor KEY-", c)}
		}
	}
	return out, nil
}
