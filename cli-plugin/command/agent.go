package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/agent"
	"clocker.io/clocker/pkg/hostconfig"
)

func newAgentCommand() *cobra.Command {
	var (
		o   agent.Options
		log logFlags
	)
	cmd := daemonCommand(&cobra.Command{
		Use:   "agent [OPTIONS]",
		Short: "Run the agent of a host",
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Log, err = log.logger("agent"); err != nil {
				return err
			}
			return untilSignal(cmd.Context(), func(ctx context.Context) error { return agent.Run(ctx, o) })
		},
	})
	f := cmd.Flags()
	f.StringVar(&o.ConfigDir, "config", hostconfig.Dir, "Directory of host.json")
	f.StringVar(&o.StateDir, "state", hostconfig.StateDir, "Directory of the agent's state")
	f.StringVar(&o.DockerHost, "docker-host", "", "Endpoint of the host's engine (default: $DOCKER_HOST, else the local socket)")
	log.flags(cmd)
	return cmd
}

// newGuardCommand is what the agent starts beside itself.
func newGuardCommand() *cobra.Command {
	var (
		o   agent.Options
		log logFlags
	)
	cmd := daemonCommand(&cobra.Command{
		Use:   "guard [OPTIONS]",
		Short: "Stop what has a fence when the agent hangs",
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Log, err = log.logger("guard"); err != nil {
				return err
			}
			return untilSignal(cmd.Context(), func(ctx context.Context) error { return agent.Guard(ctx, o, cmd.InOrStdin()) })
		},
	})
	f := cmd.Flags()
	f.StringVar(&o.ConfigDir, "config", hostconfig.Dir, "Directory of host.json")
	f.StringVar(&o.StateDir, "state", hostconfig.StateDir, "Directory of the agent's state")
	f.StringVar(&o.DockerHost, "docker-host", "", "Endpoint of the host's engine (default: $DOCKER_HOST, else the local socket)")
	log.flags(cmd)
	return cmd
}
