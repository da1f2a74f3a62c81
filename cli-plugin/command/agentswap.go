package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
)

// newAgentSwapCommand is what runs in a container on a machine whose agent is
// upgraded through that agent.
func newAgentSwapCommand() *cobra.Command {
	var log logFlags
	cmd := daemonCommand(&cobra.Command{
		Use:   fleet.SwapCommand + " [OPTIONS]",
		Short: "Put the new agent in the place of the one that runs",
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := log.logger(fleet.SwapCommand)
			if err != nil {
				return err
			}
			return untilSignal(cmd.Context(), func(ctx context.Context) error {
				conn, err := connect.Open(ctx, "unix://"+connect.DefaultSocket, connect.Options{})
				if err != nil {
					return err
				}
				defer func() { _ = conn.Close() }()
				return fleet.SwapAgent(ctx, conn.Client, l)
			})
		},
	})
	log.flags(cmd)
	return cmd
}
