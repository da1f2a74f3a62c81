package command

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"clocker.io/clocker/cli-plugin/logview"
	"clocker.io/clocker/pkg/api"
)

type logsOptions struct {
	app        string
	services   []string
	follow     bool
	tail       string
	since      string
	timestamps bool
	noPrefix   bool
	noColor    bool
}

func newLogsCommand(e *Env) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] APP [SERVICE...]",
		Short: "Show the logs of an application's replicas, merged",
		Args:  args(cli.RequiresMinArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.app, o.services = args[0], args[1:]
			return runLogs(cmd.Context(), e, o)
		},
		ValidArgsFunction: e.completeServices,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "Go on with new lines")
	f.StringVarP(&o.tail, "tail", "n", "all", "Number of last lines of each replica")
	f.StringVar(&o.since, "since", "", `Only lines since a time ("2026-01-02T15:04:05Z") or for a duration ("10m")`)
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "Show the time of each line")
	f.BoolVar(&o.noPrefix, "no-log-prefix", false, "Leave out the names of the replicas")
	f.BoolVar(&o.noColor, "no-color", false, "Leave out colours")
	return cmd
}

func runLogs(ctx context.Context, e *Env, o logsOptions) error {
	lo := api.LogOptions{Follow: o.follow, Tail: o.tail, Timestamps: o.timestamps}
	if o.since != "" {
		t, err := moment(o.since, e.clock.Now())
		if err != nil {
			return err
		}
		lo.Since = t.UTC().Format(time.RFC3339Nano)
	}
	return e.with(func(c *api.Client) error {
		tasks, err := tasksOf(ctx, c, o.app, o.services)
		if err != nil {
			return err
		}
		tasks = slices.DeleteFunc(tasks, func(t api.Task) bool { return t.Container == "" })
		var names []string
		for _, t := range tasks {
			names = append(names, t.Name)
		}
		view := logview.New(e.cli.Out(), e.cli.Err(), names, logview.Options{
			NoPrefix: o.noPrefix,
			Colour:   !o.noColor && os.Getenv("NO_COLOR") == "" && e.cli.Out().IsTerminal(),
		})
		// One replica's trouble does not end the others' logs.
		var g errgroup.Group
		errs := make([]error, len(tasks))
		for i, t := range tasks {
			g.Go(func() error {
				log, err := c.Logs(ctx, t.ID, lo)
				if err != nil {
					errs[i] = textError{errors.New(t.Name + ": " + err.Error()), err}
					return nil
				}
				defer func() { _ = log.Close() }()
				errs[i] = view.Copy(t.Name, log)
				return nil
			})
		}
		_ = g.Wait()
		if ctx.Err() != nil {
			return context.Canceled
		}
		return errors.Join(errs...)
	})
}

// tasksOf returns the tasks of some services of an application, or of all,
// sorted. A service that does not exist is an error.
func tasksOf(ctx context.Context, c *api.Client, app string, wanted []string) ([]api.Task, error) {
	tasks, err := c.Tasks(ctx, app)
	if err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		if _, err := c.Application(ctx, app); err != nil {
			return nil, err
		}
	}
	sortTasks(tasks)
	if len(wanted) == 0 {
		return tasks, nil
	}
	known := services(tasks)
	for _, s := range wanted {
		if !slices.Contains(known, s) {
			return nil, noService(app, s, known)
		}
	}
	return slices.DeleteFunc(tasks, func(t api.Task) bool { return !slices.Contains(wanted, t.Service) }), nil
}
