package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/fleet"
)

func newHostLeaveCommand(e *Env) *cobra.Command {
	var force, quiet bool
	cmd := &cobra.Command{
		Use:   "leave [OPTIONS]",
		Short: "Take Clocker off this machine",
		Long: `Take everything of Clocker off this machine, which joined a fleet by itself. The
fleet is not told: take the host out there first (docker clocker host rm), so that
its work is moved away.`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runHostLeave(cmd.Context(), e, force, quiet) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "Cut off containers of others that use its networks")
	f.BoolVarP(&quiet, "quiet", "q", false, "Print nothing but errors")
	return cmd
}

func runHostLeave(ctx context.Context, e *Env, force, quiet bool) error {
	var reached engines
	defer reached.close()
	conn, err := reached.open(ctx, "", reachFlags{}.options(e))
	if err != nil {
		return err
	}
	if conn.Host != "" {
		return invalid("leave fleet: the docker command points to the engine of another machine (%s): give this on that machine, or use host rm", conn.Endpoint)
	}
	show := e.steps("Leaving", quiet)
	left, err := fleet.LeaveHost(ctx, fleet.RemoveOptions{Engine: conn.Client, Force: force}, show.add)
	show.close(err)
	if err != nil {
		return err
	}
	if !quiet {
		e.say("This machine is in fleet %s no more", left)
	}
	return nil
}
