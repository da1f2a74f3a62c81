package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/netplugin/cleanup"
	"clocker.io/clocker/pkg/fleet/hostclean"
)

// newHostcleanCommand is what runs in a container on a machine that was a
// host: it takes away what Clocker left there outside of the engine.
func newHostcleanCommand() *cobra.Command {
	kernel := func(context.Context) ([]string, error) { return nil, cleanup.Kernel() }
	return daemonCommand(&cobra.Command{
		Use:   "hostclean",
		Short: "Take away what Clocker left on this machine",
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return hostclean.Run(cmd.Context(), cmd.OutOrStdout(), kernel)
		},
	})
}
