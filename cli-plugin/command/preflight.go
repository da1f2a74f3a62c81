package command

import (
	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/fleet/preflight"
)

// newPreflightCommand is what runs in a container on a machine that is about
// to become a host: it tells what the machine is like.
func newPreflightCommand() *cobra.Command {
	return daemonCommand(&cobra.Command{
		Use:   "preflight",
		Short: "Tell what this machine is like, as JSON",
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return preflight.Run(cmd.Context(), cmd.OutOrStdout())
		},
	})
}
