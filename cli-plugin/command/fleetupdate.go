package command

import (
	"context"
	"math"
	"strconv"

	"github.com/docker/cli/cli"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/strategy"
)

type fleetUpdateOptions struct {
	strategies, affinity      []string
	maxContainers             int
	maxCPU                    string
	reserveCPU, reserveMemory string
	changed                   func(flag string) bool
	quiet                     bool
}

func newFleetUpdateCommand(e *Env) *cobra.Command {
	var o fleetUpdateOptions
	cmd := &cobra.Command{
		Use:   "update [OPTIONS]",
		Short: "Change what holds for placement in the whole fleet",
		Long: `Change what holds for placement in the whole fleet.

A strategy is NAME, NAME=VALUE or, with several options, NAME=KEY=VALUE,...;
"soft:" before it makes a filter a wish. The chain given here takes the place of
the one there was, and is applied before the services' own; so are the rules. An
empty value ("") takes a setting back. What runs stays where it is.`,
		Example: `  docker clocker fleet update --strategy breadth-first --strategy max-containers=20
  docker clocker fleet update --strategy "soft:label=ssd" --affinity "NOT TYPE"
  docker clocker fleet update --max-cpu 80% --reserve-cpu 0.5 --reserve-memory 512M
  docker clocker fleet update --strategy "" --max-containers 0`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.changed = cmd.Flags().Changed
			return runFleetUpdate(cmd.Context(), e, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.strategies, "strategy", nil, "Member of the fleet's chain, in order")
	f.StringArrayVar(&o.affinity, "affinity", nil, `Rule for every replica, such as "NOT TYPE"`)
	f.IntVar(&o.maxContainers, "max-containers", 0, "Most containers on each host (0: no bound)")
	f.StringVar(&o.maxCPU, "max-cpu", "", "CPU usage from which a host takes no more, such as 80% (0: no bound)")
	f.StringVar(&o.reserveCPU, "reserve-cpu", "", "CPUs that each host keeps for itself, such as 0.5")
	f.StringVar(&o.reserveMemory, "reserve-memory", "", "Memory that each host keeps for itself, such as 512M")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	_ = cmd.RegisterFlagCompletionFunc("strategy", cobra.FixedCompletions(strategy.Names(), cobra.ShellCompDirectiveNoFileComp))
	for _, flag := range []string{"affinity", "max-containers", "max-cpu", "reserve-cpu", "reserve-memory"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
	return cmd
}

func runFleetUpdate(ctx context.Context, e *Env, o fleetUpdateOptions) error {
	any := false
	for _, flag := range []string{"strategy", "affinity", "max-containers", "max-cpu", "reserve-cpu", "reserve-memory"} {
		any = any || o.changed(flag)
	}
	if !any {
		return usageError{invalid("nothing to change: name a setting (docker clocker fleet update --help)")}
	}
	return e.with(func(c *api.Client) error {
		p, err := c.PlacementPolicy(ctx)
		if err != nil {
			return err
		}
		if err := o.apply(&p.PlacementPolicy); err != nil {
			return err
		}
		if _, err := c.SetPlacementPolicy(ctx, p); err != nil {
			return err
		}
		if !o.quiet {
			e.say("The fleet's placement is changed; docker clocker fleet inspect shows it.")
		}
		return nil
	})
}

// apply changes what was given.
func (o *fleetUpdateOptions) apply(p *record.PlacementPolicy) error {
	if o.changed("strategy") {
		p.Strategies = nil
		for _, text := range o.strategies {
			if text == "" {
				continue
			}
			s, err := strategy.Parse(text)
			if err != nil {
				return invalid("--strategy %s: %v", text, err)
			}
			p.Strategies = append(p.Strategies, s)
		}
	}
	if o.changed("affinity") {
		p.Affinity = strategy.SplitRules(o.affinity)
	}
	if o.changed("max-containers") {
		p.MaxContainers = o.maxContainers
	}
	if o.changed("max-cpu") {
		p.MaxCPU = 0
		if o.maxCPU != "" && o.maxCPU != "0" {
			share, err := strategy.Share(o.maxCPU)
			if err != nil {
				return invalid("--max-cpu: %v (such as 0.8 or 80%%)", err)
			}
			p.MaxCPU = share
		}
	}
	return o.reserve(&p.KernelReserve)
}

func (o *fleetUpdateOptions) reserve(r *model.Amounts) error {
	if o.changed("reserve-cpu") {
		r.NanoCPUs = 0
		if o.reserveCPU != "" {
			f, err := strconv.ParseFloat(o.reserveCPU, 64)
			if err != nil || !(f >= 0 && f < 1<<16) {
				return invalid("--reserve-cpu: %q is no number of CPUs (such as 0.5)", o.reserveCPU)
			}
			r.NanoCPUs = int64(math.Round(f * 1e9))
		}
	}
	if o.changed("reserve-memory") {
		r.MemoryBytes = 0
		if o.reserveMemory != "" {
			n, err := units.RAMInBytes(o.reserveMemory)
			if err != nil || n < 0 {
				return invalid("--reserve-memory: %q is no amount of memory (such as 512M)", o.reserveMemory)
			}
			r.MemoryBytes = n
		}
	}
	return nil
}
