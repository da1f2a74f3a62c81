package command

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/templates"
	"github.com/spf13/cobra"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/version"
)

func newVersionCommand(e *Env) *cobra.Command {
	var (
		format string
		short  bool
	)
	cmd := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Show the versions of this program and of the fleet's controller",
		Args:  args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVersion(cmd.Context(), e, format, short)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", `Format output: "json" or a Go TEMPLATE`)
	cmd.Flags().BoolVar(&short, "short", false, "Show only this program's version number")
	return cmd
}

// versions is what a template of `docker clocker version` sees.
type versions struct {
	Client version.Info
	// Controller is nil when no fleet is known or it does not answer.
	Controller *api.Info `json:",omitempty"`
}

func runVersion(ctx context.Context, e *Env, format string, short bool) error {
	v := versions{Client: version.Get()}
	if short {
		_, err := fmt.Fprintln(e.cli.Out(), v.Client.Version)
		return err
	}
	reached := e.with(func(c *api.Client) error {
		info, err := c.Info(ctx)
		if err == nil {
			v.Controller = &info
		}
		return err
	})
	if errors.Is(reached, fleet.ErrNoFleet) && e.fleetName() == "" {
		reached = nil // a machine without a fleet has a version too
	}
	if err := writeVersions(e, format, v); err != nil {
		return err
	}
	return reached
}

func writeVersions(e *Env, format string, v versions) error {
	switch format {
	case "":
		w := tabwriter.NewWriter(e.cli.Out(), 0, 1, 1, ' ', 0)
		c := v.Client
		fmt.Fprintf(w, "Client:\n Version:\t%s\n Git commit:\t%s\n Built:\t%s\n Go version:\t%s\n OS/Arch:\t%s/%s\n", c.Version, c.Commit, c.Date, c.Go, c.OS, c.Arch)
		if s := v.Controller; s != nil {
			fmt.Fprintf(w, "\nController:\n Fleet:\t%s\n Version:\t%s\n Git commit:\t%s\n Leader:\t%s\n Etcd:\t%s\n Hosts:\t%d of %d up\n Replicas:\t%d of %d running\n",
				s.Fleet, s.Version, s.Commit, s.Leader, s.EtcdKind, s.HostsUp, s.Hosts, s.Running, s.Tasks)
		}
		return w.Flush()
	case "json":
		format = "{{json .}}"
	}
	t, err := templates.Parse(format)
	if err != nil {
		return invalid("parse format: %v", err)
	}
	if err := t.Execute(e.cli.Out(), v); err != nil {
		return invalid("format: %v", err)
	}
	_, err = fmt.Fprintln(e.cli.Out())
	return err
}
