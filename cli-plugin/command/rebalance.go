package command

import (
	"context"
	"errors"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/api"
)

type rebalanceOptions struct {
	plan, quiet bool
	most        int
	format      string
}

func newRebalanceCommand(e *Env) *cobra.Command {
	var o rebalanceOptions
	cmd := &cobra.Command{
		Use:   "rebalance [OPTIONS]",
		Short: "Spread replicas evenly over the hosts",
		Long: `Spread replicas evenly over the hosts, with as few moves as it takes.

Replicas move one after the other: each is started on its new host first, and
stops on the old one once it is up and healthy there. Every rule of placement
holds. What writes to a path of its host, or is pinned to it, stays. Nothing is
ever rebalanced unless you ask.`,
		Example: `  docker clocker rebalance --plan
  docker clocker rebalance --max-moves 5`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runRebalance(cmd.Context(), e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVar(&o.plan, "plan", false, "Only show what would move")
	f.IntVar(&o.most, "max-moves", 0, "Move at most so many replicas (default: as many as it takes)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	f.StringVar(&o.format, "format", "", "With --plan: format of the output, table, json or a Go template")
	return cmd
}

func runRebalance(ctx context.Context, e *Env, o rebalanceOptions) error {
	switch {
	case o.most < 0:
		return usageError{errors.New("--max-moves must not be negative")}
	case o.format != "" && !o.plan:
		return usageError{errors.New("--format is for --plan")}
	}
	return e.with(func(c *api.Client) error {
		if o.plan {
			moves, err := c.PlanRebalance(ctx, o.most)
			if err != nil {
				return err
			}
			if len(moves) == 0 && o.format == "" {
				e.say("nothing to move: replicas are spread as evenly as they may be")
				return nil
			}
			return formatter.Moves(formatter.Options{Out: e.cli.Out(), Format: o.format, Now: e.clock.Now()}, moves)
		}
		show := &moveShow{d: progress.New(e.cli.Err(), "Rebalancing", o.quiet, e.clock)}
		err := c.Rebalance(ctx, o.most, show.add)
		show.d.Close()
		switch {
		case err != nil && ctx.Err() != nil:
			return verdict{errInterrupted, "rebalance: interrupted: the move under way comes to its end, no other is begun"}
		case err != nil:
			return err
		case show.failed():
			return errors.New("rebalance: not everything could move" + show.text())
		case o.quiet:
		case show.moved == 0:
			e.say("nothing to move: replicas are spread as evenly as they may be")
		default:
			e.say("%d moved", show.moved)
		}
		return nil
	})
}
