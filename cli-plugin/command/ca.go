package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/cli/cli"
	"github.com/spf13/cobra"

	"clocker.io/clocker/cli-plugin/formatter"
	"clocker.io/clocker/pkg/api"
)

func newCACommand(e *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "See and change the fleet's certificate authority",
		Long: `See and change the fleet's certificate authority.

Every certificate of the fleet is of its authority, and is renewed by itself.`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCAShowCommand(e), newCARotateCommand(e))
	return cmd
}

func newCAShowCommand(e *Env) *cobra.Command {
	var o list
	cmd := &cobra.Command{
		Use:   "show [OPTIONS]",
		Short: "Show who signs, who is trusted, and whose certificates are of whom",
		Example: `  docker clocker ca show
  docker clocker ca show --format json`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.with(func(c *api.Client) error {
				it, err := c.CA(cmd.Context())
				if err != nil {
					return err
				}
				return formatter.CA(o.options(e), it)
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.flags(cmd, "Only display kinds and names of those who have certificates")
	return cmd
}

type caRotateOptions struct {
	finish, abort, detach bool
}

func newCARotateCommand(e *Env) *cobra.Command {
	var o caRotateOptions
	cmd := &cobra.Command{
		Use:   "rotate [OPTIONS]",
		Short: "Replace the fleet's certificate authority by a new one",
		Long: `Replace the fleet's certificate authority by a new one.

Controllers start again to trust both; then hosts and users get certificates of
the new one, users with the next command that they run; then controllers start
again and trust the new one only. Applications run on meanwhile. From then on,
certificates and tokens of the old authority are refused, and so is a backup
from before: make a new one.

The change goes on without this command, which can be run again to look on. It
waits for every host and every user. A user who works on several machines must
run a command on each before it is over. With --finish, users who have not called
and hosts that are away are not waited for: they need a new token, or to be
added again. With --abort the change is taken back, until controllers show
certificates of the new authority.`,
		Example: `  docker clocker ca rotate
  docker clocker ca rotate --finish
  docker clocker ca rotate --abort`,
		Args: args(cli.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.finish && o.abort {
				return usageError{errors.New("--finish and --abort exclude each other")}
			}
			return runCARotate(cmd.Context(), e, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.BoolVar(&o.finish, "finish", false, "Wait neither for users nor for hosts that are away")
	f.BoolVar(&o.abort, "abort", false, "Take the change back")
	f.BoolVarP(&o.detach, "detach", "d", false, "Begin, and do not look on")
	return cmd
}

const (
	// caPause lies between two looks at a change, caSilence is how long no
	// controller may answer: each starts again twice.
	caPause   = 500 * time.Millisecond
	caSilence = time.Minute
)

func runCARotate(ctx context.Context, e *Env, o caRotateOptions) error {
	q := api.CARequest{Action: api.CARotate}
	switch {
	case o.finish:
		q.Action = api.CAFinish
	case o.abort:
		q.Action = api.CAAbort
	}
	var now api.CA
	// The profile is read again for each call, and brought up to date after it.
	err := e.with(func(c *api.Client) (err error) {
		now, err = c.ChangeCA(ctx, q)
		return err
	})
	if err != nil || o.detach {
		return err
	}
	var stage string
	var waits []string
	heard := e.clock.Now()
	for now.Stage != "" {
		if now.Stage != stage {
			stage = now.Stage
			e.say("%s", caStage(now))
		}
		if !slices.Equal(waits, now.Waits) {
			waits = now.Waits
			for _, w := range waits {
				e.say("  waits: %s", w)
			}
		}
		select {
		case <-ctx.Done():
			e.say("The change goes on without you: docker clocker ca show tells where it is.")
			return context.Cause(ctx)
		case <-time.After(caPause):
		}
		err := e.with(func(c *api.Client) error {
			next, err := c.CA(ctx)
			if err == nil {
				now = next
			}
			return err
		})
		switch {
		case err == nil:
			heard = e.clock.Now()
		case ctx.Err() == nil && e.clock.Now().Sub(heard) > caSilence:
			return fmt.Errorf("look on while the authority is changed: %w", err)
		}
	}
	for _, a := range now.Authorities {
		if a.Signs {
			e.say("The fleet's authority is %s.", a.Fingerprint)
		}
	}
	return nil
}

// caStage tells what a stage is about.
func caStage(c api.CA) string {
	if c.Back && c.Stage == "serve" {
		return "Taking back: certificates of the new authority are replaced"
	}
	switch c.Stage {
	case "trust":
		return "Trust: controllers start again, one after the other, to trust both authorities"
	case "issue":
		return "Issue: hosts and users get certificates of the new authority"
	case "serve":
		return "Serve: controllers show certificates of the new authority"
	case "drop":
		return "Drop: controllers start again, and trust one authority only"
	}
	return c.Stage
}
