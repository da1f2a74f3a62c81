package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

// dryRun shows what a deploy would do, and what every host says to replicas
// that none takes. The error is that there is such a one.
func dryRun(ctx context.Context, e *Env, c *api.Client, req api.DeployRequest, o deployOptions) error {
	var (
		steps    []api.Step
		problems []string
		done     string
	)
	err := c.Deploy(ctx, req, func(p api.Progress) error {
		if p.Step != nil {
			steps = append(steps, *p.Step)
		}
		if p.Problem != "" {
			problems = append(problems, p.Problem)
		}
		done = p.Done
		return nil
	})
	if err != nil {
		return err
	}
	name := req.Application.Name
	var end error
	switch done {
	case "ok":
	case "conflict":
		end = verdict{errConflict, strings.Join(problems, "\n")}
	default:
		return errors.New(strings.Join(append([]string{name + " cannot be deployed"}, problems...), "\n"))
	}
	if o.quiet {
		return end
	}
	if err := showSteps(e, steps, o); err != nil {
		return err
	}
	changes := 0
	for _, s := range steps {
		if s.Action != "keep" {
			changes++
		}
	}
	if changes == 0 {
		e.say("%s is as the file says: nothing to do", name)
	}
	return end
}

func showSteps(e *Env, steps []api.Step, o deployOptions) error {
	options := formatter.Options{Out: e.cli.Out(), Format: o.format}
	if len(steps) > 0 {
		if err := formatter.Steps(options, steps); err != nil {
			return err
		}
	}
	if o.format != "" && !strings.HasPrefix(o.format, "table") {
		return nil
	}
	for _, s := range steps {
		if len(s.Hosts) == 0 {
			continue
		}
		title := s.Subject + " goes to " + s.Host + ":"
		if s.Action == "refuse" {
			title = s.Subject + " has no host:"
		}
		if _, err := fmt.Fprintln(options.Out, "\n"+title); err != nil {
			return err
		}
		if err := formatter.Verdicts(options, s.Hosts); err != nil {
			return err
		}
	}
	return nil
}
