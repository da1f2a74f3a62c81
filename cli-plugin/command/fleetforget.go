package command

import (
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/fleet"
)

func newFleetForgetCommand(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "forget FLEET",
		Short: "Forget a fleet on this machine; the fleet itself is left as it is",
		Long: `Remove what this machine knows of a fleet: its controllers' addresses, your
certificate and key, and the docker contexts of its hosts. The fleet goes on, and
so does everybody else who uses it. To come back, join it with a new token.

To take a fleet away with its controller, use docker clocker fleet rm.`,
		Args: args(cli.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := fleet.Forget(config.Dir(), args[0]); err != nil {
				return err
			}
			if err := fleet.RemoveContexts(e.cli.ContextStore(), args[0]); err != nil {
				return err
			}
			e.say("Fleet %s is forgotten here; the fleet itself is as it was.", args[0])
			return nil
		},
		ValidArgsFunction: e.completeFleets,
	}
}
