package command

import (
	"context"
	"io"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/agent"
	"clocker.io/clocker/pkg/hostconfig"
)

func newAgentCommand() *cobra.Command {
	return agentProcess("agent", "Run the agent of a host",
		func(ctx context.Context, o agent.Options, _ io.Reader) error { return agent.Run(ctx, o) })
}

// newGuardCommand is what the agent starts beside itself.
func newGuardCommand() *cobra.Command {
	return agentProcess("guard", "Stop what has a fence when the agent hangs", agent.Guard)
}

// agentProcess is a process of a host, with the command's input.
func agentProcess(name, short string, run func(context.Context, agent.Options, io.Reader) error) *cobra.Command {
	var (
		o   agent.Options
		log logFlags
	)
	cmd := daemonCommand(&cobra.Command{
		Use:   name + " [OPTIONS]",
		Short: short,
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Log, err = log.logger(name); err != nil {
				return err
			}
			return untilSignal(cmd.Context(), func(ctx context.Context) error { return run(ctx, o, cmd.InOrStdin()) })
		},
	})
	f := cmd.Flags()
	f.StringVar(&o.ConfigDir, "config", hostconfig.Dir, "Directory of host.json")
	f.StringVar(&o.StateDir, "state", hostconfig.StateDir, "Directory of the agent's state")
	f.StringVar(&o.DockerHost, "docker-host", "", "Endpoint of the host's engine (default: $DOCKER_HOST, else the local socket)")
	log.flags(cmd)
	return cmd
}
