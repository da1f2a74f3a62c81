package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

type hostDrainOptions struct {
	plan, detach, quiet bool
	timeout             time.Duration
	format              string
}

func newHostDrainCommand(e *Env) *cobra.Command {
	var o hostDrainOptions
	cmd := &cobra.Command{
		Use:   "drain [OPTIONS] HOST [HOST...]",
		Short: "Move the work of hosts elsewhere",
		Long: `Move the work of hosts elsewhere.

The hosts get no new work. Each replica is started on another host first, and
stops here once its successor is up and healthy, one of a service at a time
unless its update_config says otherwise. What cannot move is told, with why:
a replica that writes to a path of the host, one that no other host takes.

Interrupted (^C), the host that is being drained is what it was before: it takes
work again, or stays cordoned; what has moved stays where it is. With --detach
the drain goes on by itself; docker clocker host enable ends it.`,
		Example: `  docker clocker host drain --plan server-2
  docker clocker host drain server-2 && docker clocker host rm server-2`,
		Args:              args(cli.RequiresMinArgs(1)),
		RunE:              func(cmd *cobra.Command, names []string) error { return runHostDrain(cmd.Context(), e, names, o) },
		ValidArgsFunction: e.completeHosts,
	}
	f := cmd.Flags()
	f.BoolVar(&o.plan, "plan", false, "Only show what would move where, and what would not")
	f.BoolVarP(&o.detach, "detach", "d", false, "Do not wait until the hosts are empty")
	f.DurationVar(&o.timeout, "timeout", 0, "Give up waiting after so long; the drain goes on (default: wait for ever)")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	f.StringVar(&o.format, "format", "", "With --plan: format of the output, table, json or a Go template")
	return cmd
}

func runHostDrain(ctx context.Context, e *Env, names []string, o hostDrainOptions) error {
	if o.format != "" && !o.plan {
		return usageError{errors.New("--format is for --plan")}
	}
	return e.with(func(c *api.Client) error {
		if o.plan {
			return planDrain(ctx, e, c, names, o)
		}
		for _, name := range names {
			if err := drainOne(ctx, e, c, name, o); err != nil {
				return err
			}
		}
		return nil
	})
}

// errBlocked means that a plan has moves that cannot be made.
var errBlocked = errors.New("not everything can move")

func planDrain(ctx context.Context, e *Env, c *api.Client, names []string, o hostDrainOptions) error {
	var all []api.PlannedMove
	blocked := 0
	for _, name := range names {
		p, err := c.PlanDrain(ctx, name)
		if err != nil {
			return err
		}
		for _, m := range p.Moves {
			if m.Blocked != "" {
				blocked++
			}
		}
		all = append(all, p.Moves...)
	}
	out := formatter.Options{Out: e.cli.Out(), Format: o.format, Now: e.clock.Now()}
	if err := formatter.Moves(out, all); err != nil {
		return err
	}
	if blocked > 0 {
		return fmt.Errorf("%w: %d of %d replicas stay where they are", errBlocked, blocked, len(all))
	}
	return nil
}

// endTime is how long ending a drain may take.
const endTime = 10 * time.Second

func drainOne(ctx context.Context, e *Env, c *api.Client, name string, o hostDrainOptions) error {
	stream := ctx
	if o.timeout > 0 {
		var cancel context.CancelFunc
		stream, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	was, err := c.Host(ctx, name)
	if err != nil {
		return err
	}
	show := &moveShow{d: progress.New(e.cli.Err(), "Draining "+name, o.quiet, e.clock)}
	err = c.DrainHost(stream, name, func(p api.Progress) error {
		if o.detach {
			return errDetached
		}
		return show.add(p)
	})
	show.d.Close()
	switch {
	case errors.Is(err, errDetached):
		e.say("%s is being drained: docker clocker host ls shows how far it is", name)
		return nil
	case err == nil && show.failed():
		return errors.New("drain " + name + ": failed" + show.text())
	case err == nil:
		if !o.quiet {
			e.say("%s is empty: %d moved", name, show.moved)
		}
		return nil
	case ctx.Err() != nil:
		// What was begun is ended in order.
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
		defer cancel()
		text, err := endDrain(after, c, name, was.State)
		if err != nil {
			return fmt.Errorf("drain %s: interrupted, but it goes on (docker clocker host enable %s ends it): %w", name, name, err)
		}
		return verdict{errInterrupted, fmt.Sprintf("drain %s: interrupted: %s; %d moved and stay where they are now", name, text, show.moved)}
	case stream.Err() != nil:
		return fmt.Errorf("drain %s: not empty after %s; the drain goes on (docker clocker host enable %s ends it)%s", name, o.timeout, name, show.text())
	}
	var call *api.CallError
	if errors.As(err, &call) {
		return fmt.Errorf("drain %s: %w", name, err)
	}
	return fmt.Errorf("drain %s: %w (a drain that was begun goes on: docker clocker host ls shows it)", name, err)
}

// endDrain makes a host what it was before the drain, and says what that is.
func endDrain(ctx context.Context, c *api.Client, name, was string) (text string, err error) {
	switch was {
	case record.HostDraining:
		return fmt.Sprintf("it was being drained before, and that goes on (docker clocker host enable %s ends it)", name), nil
	case record.HostCordoned:
		_, err = c.CordonHost(ctx, name)
		return "it is cordoned again, as before", err
	}
	_, err = c.EnableHost(ctx, name)
	return "it takes work again", err
}

// errDetached leaves a stream that goes on without us.
var errDetached = errors.New("detached")

// moveShow shows moves as they happen.
type moveShow struct {
	d        progress.Display
	moved    int
	problems []string
	done     string
}

func (s *moveShow) add(p api.Progress) error {
	switch {
	case p.Problem != "":
		s.problems = append(s.problems, p.Problem) // told at the end
	case p.Done != "":
		s.done = p.Done
	case p.Step == nil:
	case p.Step.Action == "move":
		s.moved++
		it := progress.Item{ID: p.Step.Subject, Name: p.Step.Subject, Where: p.Step.Host, State: progress.Done, Text: p.Step.Cause}
		s.d.Update(it)
	case p.Step.Action == "wait":
		s.d.Note(p.Step.Subject + " stays on " + p.Step.Host + ": " + p.Step.Cause)
	}
	return nil
}

func (s *moveShow) failed() bool { return s.done != "ok" }

func (s *moveShow) text() string {
	out := ""
	for _, p := range s.problems {
		out += "\n" + p
	}
	return out
}
