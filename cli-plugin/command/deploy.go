package command

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
)

type deployOptions struct {
	ref      string
	app      string
	envFiles []string
	profiles []string
	dryRun   bool
	explain  bool
	format   string
	wait     bool
	quiet    bool
}

func newDeployCommand(e *Env) *cobra.Command {
	var o deployOptions
	cmd := &cobra.Command{
		Use:     "deploy [OPTIONS] FILE|DIR|URL|-",
		Aliases: []string{"up"},
		Short:   "Deploy an application from a compose file or a blueprint",
		Long: `Deploy an application from a compose file or a blueprint.

The fleet is brought to what the file says: what is missing is created, what
differs is replaced, what is gone from the file is removed, the rest is left
alone. It happens as a whole: images are fetched and ports are checked on every
host before the first container is made, and a deploy that fails is taken back.

An interrupt (^C) takes the deploy back, too; a second one leaves at once.

With --dry-run nothing is done: each step is shown with its cause, each new
replica with its host and why, and where no host takes a replica, what every
host says to it. --explain shows that for each new replica.`,
		Example: `  docker clocker deploy compose.yaml
  docker clocker deploy --dry-run blueprint.yaml
  docker clocker deploy --dry-run --explain --format json compose.yaml
  docker clocker deploy --app shop https://example.com/shop/compose.yaml
  docker clocker deploy - < compose.yaml`,
		Args: args(cli.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ref = args[0]
			if !o.dryRun && (o.explain || o.format != "") {
				return usageError{invalid("--explain and --format go with --dry-run")}
			}
			return runDeploy(cmd.Context(), e, o)
		},
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(given) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.app, "app", "", "Name of the application (default: what the file says, else its directory)")
	f.BoolVar(&o.dryRun, "dry-run", false, "Show what would be done, and why, without doing it")
	f.BoolVar(&o.explain, "explain", false, "With --dry-run: show what every host says to each new replica")
	f.StringVar(&o.format, "format", "", `Format of a dry run: "table", "json" or a Go TEMPLATE`)
	f.BoolVar(&o.wait, "wait", false, "Wait until every replica is healthy, not only started")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "File with variables for the compose file")
	f.StringArrayVar(&o.profiles, "profile", nil, "Profile of the compose file to enable")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print nothing but errors")
	_ = cmd.RegisterFlagCompletionFunc("app", e.completeApps)
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("env-file", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveDefault
	})
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.NoFileCompletions)
	return cmd
}

func runDeploy(ctx context.Context, e *Env, o deployOptions) error {
	app, warnings, err := e.load(ctx, o)
	if err != nil {
		return notDeployed(o.ref, err)
	}
	for _, w := range warnings {
		e.say("warning: %s", w)
	}
	return e.with(func(c *api.Client) error {
		req := api.DeployRequest{Application: app, DryRun: o.dryRun, Explain: o.explain, Wait: o.wait}
		if o.dryRun {
			return dryRun(ctx, e, c, req, o)
		}
		_, err := e.follow(ctx, c, operation{
			verb: "deploy", title: "Deploying " + app.Name, app: app.Name, wait: o.wait, quiet: o.quiet,
			start: func(ctx context.Context, f func(api.Progress) error) error { return c.Deploy(ctx, req, f) },
		})
		if err != nil || o.quiet {
			return err
		}
		return showAddresses(ctx, e, c, app)
	})
}

// notDeployed adds what the problems of a file mean for the user.
func notDeployed(ref string, err error) error {
	var problems model.Problems
	if !errors.As(err, &problems) {
		return err
	}
	if ref == "-" {
		ref = "standard input"
	}
	what := "1 problem"
	if n := len(problems); n > 1 {
		what = fmt.Sprintf("%d problems", n)
	}
	return textError{fmt.Errorf("%w\n\n%s has %s: nothing was deployed", err, ref, what), err}
}

// showAddresses tells where the application's published ports are.
func showAddresses(ctx context.Context, e *Env, c *api.Client, app *model.Application) error {
	tasks, err := c.Tasks(ctx, app.Name)
	if err != nil {
		return err
	}
	sortTasks(tasks)
	w := tabwriter.NewWriter(e.cli.Out(), 0, 1, 2, ' ', 0)
	for _, s := range services(tasks) {
		var of []api.Task
		for _, t := range tasks {
			if t.Service == s {
				of = append(of, t)
			}
		}
		name := s
		if ent := app.Entity(s); ent != nil && ent.Name != "" {
			name = ent.Name
		}
		for _, url := range formatter.PublishedURLs(of) {
			fmt.Fprintf(w, "%s\t%s\n", name, url)
		}
	}
	return w.Flush()
}
