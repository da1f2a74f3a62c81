package command

import (
	"context"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/strategy"
)

// fleetDetail is what `docker clocker fleet inspect` shows.
type fleetDetail struct {
	Name        string   `json:"name"`
	Controllers []string `json:"controllers"`
	// Info is what the controller says of itself and the fleet.
	Info      api.Info       `json:"info"`
	Placement fleetPlacement `json:"placement"`
}

// fleetPlacement is the fleet's placement policy; strategies as
// `fleet update --strategy` takes them.
type fleetPlacement struct {
	Strategies    []string `json:"strategies"`
	Affinity      []string `json:"affinity"`
	MaxContainers int      `json:"maxContainers,omitempty"`
	MaxCPU        float64  `json:"maxCPU,omitempty"`
	ReserveCPUs   float64  `json:"reserveCPUs,omitempty"`
	ReserveMemory int64    `json:"reserveMemory,omitempty"`
	Revision      int64    `json:"revision"`
}

func newFleetInspectCommand(e *Env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] [FLEET]",
		Short: "Show a fleet's controllers and what holds for placement in it",
		Args:  args(cli.RequiresMaxArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := e.fleetName()
			if len(args) == 1 {
				name = args[0]
			}
			return runFleetInspect(cmd.Context(), e, name, format)
		},
		ValidArgsFunction: e.completeFleets,
	}
	inspectFlags(cmd, &format)
	return cmd
}

func runFleetInspect(ctx context.Context, e *Env, name, format string) error {
	p, err := fleet.Open(config.Dir(), name)
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	return inspectAll(e, []string{p.Name}, format, func(string) (any, error) {
		info, err := c.Info(ctx)
		if err != nil {
			return nil, err
		}
		policy, err := c.PlacementPolicy(ctx)
		if err != nil {
			return nil, err
		}
		d := fleetDetail{Name: p.Name, Controllers: p.Controllers, Info: info, Placement: fleetPlacement{
			Strategies: []string{}, Affinity: append([]string{}, policy.Affinity...), MaxContainers: policy.MaxContainers, MaxCPU: policy.MaxCPU,
			ReserveCPUs: float64(policy.KernelReserve.NanoCPUs) / 1e9, ReserveMemory: policy.KernelReserve.MemoryBytes, Revision: policy.Revision,
		}}
		for _, s := range policy.Strategies {
			d.Placement.Strategies = append(d.Placement.Strategies, strategy.String(s))
		}
		return d, nil
	})
}
