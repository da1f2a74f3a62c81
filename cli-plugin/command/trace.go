package command

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/sketch"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/trace"
)

func newTraceCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "trace [OPTIONS] FROM TO[:PORT][/PROTOCOL]",
		Short: "Follow a connection across the fleet to the first hop that breaks it",
		Long: `Follow a connection across the fleet to the first hop that breaks it: from the
name to the service's address, the rules where it begins, the route, the carrier
to the other host, the rules there, and the endpoint.

FROM and TO are a replica, a service (SERVICE.APP, or SERVICE where only one
application has it), a container, a host (host:NAME) or an address. With a port
the protocol is tcp, without icmp. An IPv6 address with a port is in square
brackets.

No packet is sent: the hosts say what would become of one. The exit code is 1
when a hop is broken.`,
		Example: `  docker clocker trace shop-web-1 db.shop:5432
  docker clocker trace host:h1 shop-web-1:80
  docker clocker trace 10.208.0.5 [fd12:3456:789a::5]:53/udp`,
		Args: args(cli.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, port, protocol, err := target(args[1])
			if err != nil {
				return err
			}
			return runTrace(cmd.Context(), e, trace.Query{From: args[0], To: to, Port: port, Protocol: protocol}, format)
		},
		ValidArgsFunction: e.completeParties,
	}
	cmd.Flags().StringVar(&format, "format", "", `Format output: "json"`)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"json"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runTrace(ctx context.Context, e *Env, q trace.Query, format string) error {
	if format != "" && format != "json" {
		return invalid(`format %q: there is "json"`, format)
	}
	return e.with(func(c *api.Client) error {
		r, err := c.Trace(ctx, q)
		if err != nil {
			return err
		}
		if format == "json" {
			d := json.NewEncoder(e.cli.Out())
			d.SetIndent("", "    ")
			err = d.Encode(r)
		} else {
			_, err = fmt.Fprintln(e.cli.Out(), strings.Join(e.style().Trace(r), "\n"))
		}
		if err == nil && r.Broken() != nil {
			return statusError(ExitFailed)
		}
		return err
	})
}

// style is how drawings look on the user's terminal.
func (e *Env) style() sketch.Style {
	s := sketch.Style{Width: 0}
	if e.cli.Out().IsTerminal() {
		_, width := e.cli.Out().GetTtySize()
		s.Width, s.Colour = int(width), coloured()
	}
	return s
}

// topology draws networks.
func (e *Env) topology(ctx context.Context, names []string, format string) error {
	return e.with(func(c *api.Client) error {
		for i, name := range names {
			n, err := c.Network(ctx, name)
			if err != nil {
				return err
			}
			t := sketch.Topology(n)
			switch format {
			case "":
				if i > 0 {
					_, _ = fmt.Fprintln(e.cli.Out())
				}
				_, err = fmt.Fprintln(e.cli.Out(), strings.Join(e.style().Tree(t), "\n"))
			case "json":
				d := json.NewEncoder(e.cli.Out())
				d.SetIndent("", "    ")
				err = d.Encode(t)
			case "dot":
				_, err = fmt.Fprint(e.cli.Out(), sketch.Dot(t))
			default:
				return invalid(`format %q: a topology is shown as "json" or "dot"`, format)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
