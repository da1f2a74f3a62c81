package command

import (
	"context"
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newDoctorCommand(e *Env) *cobra.Command {
	var o list
	var q api.DoctorRequest
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "Find what is wrong with the fleet's networks, and mend it",
		Long: `Find what is wrong with the fleet's networks, and mend it.

Every host compares its routes, links, packet filter, addresses, carriers and
Docker networks with what they must be, and the controller does so with what is
in etcd, all at the same time. With --fix, what can be mended is.

The exit code is 0 when nothing is found, or all of it has been mended, and 1
otherwise. A host that does not answer is a finding too.`,
		Example: `  docker clocker doctor
  docker clocker doctor --fix --host h2`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDoctor(cmd.Context(), e, q, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display the hosts with findings")
	cmd.Flags().BoolVar(&q.Fix, "fix", false, "Mend what can be mended")
	e.hostFlag(cmd, &q.Hosts, "Only look at this host")
	return cmd
}

func runDoctor(ctx context.Context, e *Env, q api.DoctorRequest, o list) error {
	return e.with(func(c *api.Client) error {
		r, err := c.Doctor(ctx, q)
		if err != nil {
			return err
		}
		return e.findings(o, r.Findings, "nothing is wrong on "+counted(r.Hosts, "host", "hosts"))
	})
}

// findings shows what was found, or says that nothing was. The error is that
// something is left.
func (e *Env) findings(o list, found []api.Finding, nothing string) error {
	if len(found) == 0 {
		if o.format == "" && !o.quiet {
			e.say("%s", nothing)
		}
		return nil
	}
	if err := formatter.Findings(o.options(e), found); err != nil {
		return err
	}
	left := 0
	for _, f := range found {
		if !f.Fixed {
			left++
		}
	}
	if left == 0 {
		e.say("all of it has been mended")
		return nil
	}
	return statusError(ExitFailed)
}

// counted counts things in words: "host h1", "3 hosts".
func counted(names []string, one, many string) string {
	if len(names) == 1 {
		return one + " " + names[0]
	}
	return fmt.Sprintf("%d %s", len(names), many)
}
