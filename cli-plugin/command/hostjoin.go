package command

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/token"
)

// EnvToken holds a token that is not to stand in an argument.
const EnvToken = "CLOCKER_TOKEN"

type hostJoinOptions struct {
	token         string
	name, address string
	labels        []string
	force, quiet  bool
}

func newHostJoinCommand(e *Env) *cobra.Command {
	var o hostJoinOptions
	cmd := &cobra.Command{
		Use:   "join [OPTIONS] TOKEN|-",
		Short: "Make this machine a host of a fleet",
		Long: `Make this machine a host of a fleet, with a token that an administrator of the
fleet made. It is given on the machine itself, which nobody has to reach: the
machine must reach the fleet's controllers (ports 7480 and 7481), and be root or in
the group docker.

With - the token is read from standard input; without it, from $` + EnvToken + `. A
token is good for one host, once, and not for ever.`,
		Example: `  docker clocker host join clocker1_aAbB...
  ssh root@behind-nat docker clocker host join - < token`,
		Args: args(cli.RequiresMaxArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if o.token, err = readToken(cmd.InOrStdin(), args); err != nil {
				return err
			}
			return runHostJoin(cmd.Context(), e, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "Name of the host (default: its host name)")
	f.StringVar(&o.address, "address", "", "Address by which the other hosts reach it (default: chosen)")
	f.StringArrayVar(&o.labels, "label", nil, "Label for placement, KEY=VALUE")
	f.BoolVarP(&o.force, "force", "f", false, "Take a machine over that says it belongs to another fleet")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the host's name")
	return cmd
}

// readToken takes a token from the argument, standard input or the
// environment.
func readToken(stdin io.Reader, args []string) (string, error) {
	given := strings.Join(args, "")
	switch given {
	case "":
		if given = os.Getenv(EnvToken); given == "" {
			return "", invalid("no token: give it as an argument, - for standard input, or in $%s", EnvToken)
		}
	case "-":
		b, err := io.ReadAll(io.LimitReader(bufio.NewReader(stdin), 64<<10))
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		given = string(b)
	}
	return given, nil
}

func runHostJoin(ctx context.Context, e *Env, o hostJoinOptions) error {
	t, err := token.Parse(o.token)
	if err != nil {
		return invalid("join fleet: %v", err)
	}
	labels, err := keyValues("label", o.labels)
	if err != nil {
		return err
	}
	var reached engines
	defer reached.close()
	conn, err := reached.open(ctx, "", reachFlags{}.options(e))
	if err != nil {
		return err
	}
	if conn.Host != "" {
		return invalid("join fleet %s: the docker command points to the engine of another machine (%s): give this on that machine, or use host add", t.Fleet, conn.Endpoint)
	}
	show := e.steps("Joining fleet "+t.Fleet, o.quiet)
	h, err := fleet.JoinHost(ctx, fleet.JoinOptions{Token: t, Add: fleet.AddOptions{
		Engine: conn.Client, Endpoint: conn.Endpoint, Name: o.name, Address: o.address, Labels: labels, Force: o.force,
	}}, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	if o.quiet {
		_, _ = fmt.Fprintln(e.cli.Out(), h.Name)
	} else {
		e.say("This machine is host %s (%s) of fleet %s", h.Name, h.Address, t.Fleet)
	}
	return nil
}
