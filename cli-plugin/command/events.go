package command

import (
	"context"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

type eventsOptions struct {
	since, until string
	filters      []string
	format       string
}

func newEventsCommand(e *Env) *cobra.Command {
	var o eventsOptions
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Show what happens in the fleet",
		Long: `Show what happens in the fleet, as it happens.

A filter is KEY=VALUE, with "type" (application, task, host, network,
controller), "action", "subject" or any attribute of the event, such as "app",
for a key. Filters of one key add up, those of different keys must all match.`,
		Example: `  docker clocker events --since 10m --filter type=task
  docker clocker events --since 1h --until 0s --format json`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runEvents(cmd.Context(), e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.StringVar(&o.since, "since", "", `Begin with the events since a time, or of a duration ("10m")`)
	f.StringVar(&o.until, "until", "", `End at a time, or a duration before now ("0s" is now)`)
	f.StringArrayVar(&o.filters, "filter", nil, "Only events that match KEY=VALUE")
	f.StringVar(&o.format, "format", "", `Format output: "json" or a Go TEMPLATE`)
	return cmd
}

func runEvents(ctx context.Context, e *Env, o eventsOptions) error {
	match, err := eventFilter(o.filters)
	if err != nil {
		return err
	}
	now := e.clock.Now()
	var since, until time.Time
	if o.since != "" {
		if since, err = moment(o.since, now); err != nil {
			return err
		}
	}
	if o.until != "" {
		if until, err = moment(o.until, now); err != nil {
			return err
		}
	}
	return e.with(func(c *api.Client) error {
		last := ""
		if o.since == "" && o.until == "" {
			// Only what is new: the controller's clock need not be ours.
			if err := c.Events(ctx, false, "", func(ev record.Event) error { last = ev.ID; return nil }); err != nil {
				return err
			}
		}
		follow := until.IsZero() || until.After(now)
		if follow && !until.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, until)
			defer cancel()
		}
		err := c.Events(ctx, follow, last, func(ev record.Event) error {
			if ev.At.Before(since) || !until.IsZero() && ev.At.After(until) || !match(ev) {
				return nil
			}
			return formatter.Event(e.cli.Out(), o.format, ev)
		})
		if ctx.Err() == context.DeadlineExceeded { //nolint:errorlint // a context's own error
			return nil
		}
		return err
	})
}

// eventFilter makes a test out of KEY=VALUE filters.
func eventFilter(filters []string) (func(record.Event) bool, error) {
	want := map[string]map[string]bool{}
	for _, f := range filters {
		k, v, ok := strings.Cut(f, "=")
		if !ok || k == "" {
			return nil, invalid("filter %q is not KEY=VALUE", f)
		}
		if want[k] == nil {
			want[k] = map[string]bool{}
		}
		want[k][v] = true
	}
	return func(ev record.Event) bool {
		for k, values := range want {
			got := ev.Attrs[k]
			switch k {
			case "type":
				got = ev.Type
			case "action":
				got = ev.Action
			case "subject":
				got = ev.Subject
			}
			if !values[got] {
				return false
			}
		}
		return true
	}, nil
}
