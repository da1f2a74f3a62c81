package command

import (
	"context"
	"time"

	"github.com/docker/cli/cli"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
)

func newHostLogsCommand(e *Env) *cobra.Command {
	var (
		component, since string
		o                api.LogOptions
	)
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] HOST",
		Short: "Show the log of a host's agent, plugin or engine",
		Args:  args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if since != "" {
				t, err := moment(since, e.clock.Now())
				if err != nil {
					return err
				}
				o.Since = t.UTC().Format(time.RFC3339Nano)
			}
			return runHostLogs(cmd.Context(), e, args[0], component, o)
		},
		ValidArgsFunction: e.completeHosts,
	}
	f := cmd.Flags()
	f.StringVar(&component, "component", "agent", `Whose log: "agent", "plugin" or "engine"`)
	f.BoolVarP(&o.Follow, "follow", "f", false, "Go on with new lines")
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of last lines")
	f.StringVar(&since, "since", "", `Of the agent, only lines since a time ("2026-01-02T15:04:05Z") or for a duration ("10m")`)
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Of the agent, show the time of each line")
	_ = cmd.RegisterFlagCompletionFunc("component", cobra.FixedCompletions([]string{"agent", "plugin", "engine"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func runHostLogs(ctx context.Context, e *Env, host, component string, o api.LogOptions) error {
	return e.with(func(c *api.Client) error {
		log, err := c.HostLogs(ctx, host, component, o)
		if err != nil {
			return err
		}
		defer func() { _ = log.Close() }()
		_, err = stdcopy.StdCopy(e.cli.Out(), e.cli.Err(), log)
		if ctx.Err() != nil {
			return context.Canceled
		}
		return err
	})
}
