package command

import (
	"context"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/record"
)

type auditOptions struct {
	follow      bool
	since, user string
	format      string
}

func newAuditCommand(e *Env) *cobra.Command {
	var o auditOptions
	cmd := &cobra.Command{
		Use:   "audit [OPTIONS]",
		Short: "Show who has changed what, and who was refused",
		Long: `Show who has changed what, and who was refused: every request that changes
something, and every one that was not allowed. Entries are kept for 90 days.

An entry whose result is "begun" is of a request that still runs, or whose
controller died in the middle of it.`,
		Example: `  docker clocker audit --since 24h
  docker clocker audit --follow --user ben
  docker clocker audit --format json`,
		Args:              args(cli.NoArgs),
		RunE:              func(cmd *cobra.Command, _ []string) error { return runAudit(cmd.Context(), e, o) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVarP(&o.follow, "follow", "f", false, "Go on with what happens from now on")
	f.StringVar(&o.since, "since", "", `Begin with the entries since a time, or of a duration ("10m")`)
	f.StringVar(&o.user, "user", "", "Only what this user did")
	f.StringVar(&o.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go TEMPLATE`)
	_ = cmd.RegisterFlagCompletionFunc("user", e.completeUsers)
	return cmd
}

func runAudit(ctx context.Context, e *Env, o auditOptions) error {
	q := api.AuditQuery{Follow: o.follow, User: o.user}
	if o.since != "" {
		at, err := moment(o.since, e.clock.Now())
		if err != nil {
			return err
		}
		q.Since = at.UTC().Format(time.RFC3339Nano)
	}
	options := formatter.Options{Out: e.cli.Out(), Format: o.format, Now: e.clock.Now()}
	return e.with(func(c *api.Client) error {
		if o.follow {
			return c.Audit(ctx, q, func(a record.AuditEntry) error { return formatter.AuditLine(options, a) })
		}
		var all []record.AuditEntry
		if err := c.Audit(ctx, q, func(a record.AuditEntry) error { all = append(all, a); return nil }); err != nil {
			return err
		}
		return formatter.Audit(options, all)
	})
}
