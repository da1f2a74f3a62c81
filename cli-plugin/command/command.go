// Package command is the command line of docker clocker: one file per verb,
// each turning flags into options and calling what does the work. It decides
// nothing about placement and never writes etcd.
//
// Design page: docs/design/cli.md.
package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli-plugins/plugin"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
)

// Env is what the verbs share.
type Env struct {
	cli   command.Cli
	clock progress.Clock
	// fleet is the value of --fleet.
	fleet string
}

// New returns the command `docker clocker` with all its verbs.
func New(dockerCLI command.Cli) *cobra.Command {
	return newRoot(&Env{cli: dockerCLI, clock: progress.SystemClock()})
}

func newRoot(e *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "clocker [OPTIONS] COMMAND",
		Short: "Deploy applications across a fleet of Docker hosts",
		Long: `Deploy applications across a fleet of Docker hosts.

Make a fleet of the engine of the current docker context with "init", add more
hosts with "host add", and give "deploy" a compose file or a blueprint.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
		PersistentPreRunE:          prepare,
		SuggestionsMinimumDistance: 2,
	}
	root.PersistentFlags().StringVar(&e.fleet, "fleet", "", "Fleet to use (default: $CLOCKER_FLEET, else the one chosen by fleet use)")
	root.SetFlagErrorFunc(flagError)
	_ = root.RegisterFlagCompletionFunc("fleet", e.completeFleets)
	root.AddCommand(
		newInitCommand(e), newHostCommand(e), newFleetCommand(e),
		newDeployCommand(e), newLsCommand(e), newPsCommand(e), newInspectCommand(e),
		newLogsCommand(e), newExecCommand(e), newEventsCommand(e),
		newOperateCommand(e, operations[0]), newOperateCommand(e, operations[1]), newOperateCommand(e, operations[2]),
		newRmCommand(e), newVersionCommand(e),
		newNetworkCommand(e), newPoolCommand(e), newDoctorCommand(e), newTraceCommand(e),
		newHeadroomCommand(e), newProviderCommand(e),
		newUserCommand(e), newTokenCommand(e), newAuditCommand(e),
		newCACommand(e),
		newWhyCommand(e), newRebalanceCommand(e),
		newControllerCommand(e), newBackupCommand(e), newRestoreCommand(e), newUpgradeCommand(e),
		newServeCommand(e), newAgentCommand(), newGuardCommand(), newPreflightCommand(), newHostcleanCommand(), newHostenterCommand(), newAgentSwapCommand(),
	)
	return root
}

// prepare does what the plugin framework wants done before a verb, and makes
// an interrupt end the verb's context. A second interrupt ends the program,
// unless the verb itself listens.
func prepare(cmd *cobra.Command, args []string) error {
	if plugin.PersistentPreRunE != nil { // nil when not run by the framework
		if err := plugin.PersistentPreRunE(cmd, args); err != nil {
			return err
		}
	}
	ctx, stop := interruptible(cmd.Context())
	context.AfterFunc(ctx, stop)
	cmd.SetContext(ctx)
	return nil
}

func unknownCommand(cmd *cobra.Command, name string) error {
	msg := fmt.Sprintf("unknown command: docker clocker %s", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		msg += fmt.Sprintf(" (did you mean %s?)", strings.Join(near, " or "))
	}
	return usageError{errors.New(msg + "\n\nRun 'docker clocker --help' for more information")}
}

// flagError marks what is wrong with flags as the user's own mistake.
func flagError(cmd *cobra.Command, err error) error {
	var status cli.StatusError
	if errors.As(cli.FlagErrorFunc(cmd, err), &status) {
		return usageError{errors.New(status.Status)}
	}
	return usageError{err}
}

// args marks a wrong number of arguments as the user's own mistake.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// fleetName is the fleet the user named, or "" for the current one.
func (e *Env) fleetName() string {
	if e.fleet != "" {
		return e.fleet
	}
	return os.Getenv("CLOCKER_FLEET")
}

// profile opens the fleet's files on this machine.
func (e *Env) profile() (*fleet.Profile, error) {
	return fleet.Open(config.Dir(), e.fleetName())
}

// with calls f with a client, and keeps the user's certificate fresh.
func (e *Env) with(f func(*api.Client) error) error {
	p, err := e.profile()
	if err != nil {
		return err
	}
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	err = f(c)
	e.refresh(p, c)
	return err
}

// list holds the flags of the verbs that list.
type list struct {
	format         string
	quiet, noTrunc bool
}

func (l *list) flags(cmd *cobra.Command, quiet string) {
	f := cmd.Flags()
	f.StringVar(&l.format, "format", "", `Format output: "table", "table TEMPLATE", "json" or a Go TEMPLATE`)
	f.BoolVarP(&l.quiet, "quiet", "q", false, quiet)
	f.BoolVar(&l.noTrunc, "no-trunc", false, "Don't truncate output")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (l *list) options(e *Env) formatter.Options {
	return formatter.Options{Out: e.cli.Out(), Format: l.format, Quiet: l.quiet, NoTrunc: l.noTrunc, Now: e.clock.Now()}
}

// coloured reports whether the user wants colours on a terminal.
func coloured() bool { return os.Getenv("NO_COLOR") == "" }

// say writes a line to the user, apart from the command's output.
func (e *Env) say(format string, a ...any) { _, _ = fmt.Fprintf(e.cli.Err(), format+"\n", a...) }

// completionTimeout is how long a shell waits for names.
const completionTimeout = 2 * time.Second

// ask returns a client and a context for the names that a shell completes.
func (e *Env) ask(parent context.Context, f func(context.Context, *api.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	if parent == nil {
		parent = context.Background()
	}
	ctx, cancel := context.WithTimeout(parent, completionTimeout)
	defer cancel()
	var names []string
	err := e.with(func(c *api.Client) (err error) {
		names, err = f(ctx, c)
		return err
	})
	if err != nil {
		cobra.CompDebugln(err.Error(), false)
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
