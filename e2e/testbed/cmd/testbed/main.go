// Command testbed makes Docker hosts out of this machine. See
// e2e/testbed/README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"clocker.io/clocker/e2e/testbed"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := rootCommand().ExecuteContext(ctx)
	stop()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(1)
	}
}

func rootCommand() *cobra.Command {
	var name string
	root := &cobra.Command{
		Use:           "testbed",
		Short:         "Docker hosts on one machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&name, "name", testbed.DefaultName, "which testbed")
	// on makes a command that works on a testbed that is there.
	on := func(use, short string, args cobra.PositionalArgs, run func(context.Context, *testbed.Testbed, []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
			t, err := testbed.Open(name)
			if err != nil {
				return err
			}
			return run(cmd.Context(), t, args)
		}}
	}
	// at makes one that works on a host of it.
	at := func(use, short string, args cobra.PositionalArgs, run func(context.Context, *testbed.Host, []string) error) *cobra.Command {
		return on(use, short, args, func(ctx context.Context, t *testbed.Testbed, args []string) error {
			h := t.Host(args[0])
			if h == nil {
				return fmt.Errorf("find host: testbed %s has no %s", t.Name(), args[0])
			}
			return run(ctx, h, args[1:])
		})
	}
	root.AddCommand(
		upCommand(&name),
		prepareCommand(),
		&cobra.Command{Use: "down", Short: "end the testbed and remove all of it", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return testbed.Down(cmd.Context(), name) }},
		at("exec HOST -- COMMAND...", "run a command on a host", cobra.MinimumNArgs(2), execOn),
		at("kill HOST", "cut a host's power", cobra.ExactArgs(1),
			func(_ context.Context, h *testbed.Host, _ []string) error { return h.Kill() }),
		at("restart HOST", "boot a host, again or after kill", cobra.ExactArgs(1),
			func(ctx context.Context, h *testbed.Host, _ []string) error { return h.Restart(ctx) }),
		on("partition A [B]", "let no traffic pass between A and B, or pull A's cable", cobra.RangeArgs(1, 2),
			func(_ context.Context, t *testbed.Testbed, args []string) error {
				return t.Partition(args[0], strings.Join(args[1:], ""))
			}),
		on("heal", "undo every partition", cobra.NoArgs,
			func(_ context.Context, t *testbed.Testbed, _ []string) error { return t.Heal() }),
		at("mtu HOST BYTES", "set the MTU of a host's link; 0 is the usual one", cobra.ExactArgs(2),
			func(_ context.Context, h *testbed.Host, args []string) error {
				bytes, err := strconv.Atoi(args[0])
				if err != nil {
					return fmt.Errorf("read MTU: %w", err)
				}
				return h.SetMTU(bytes)
			}),
		on("ps", "list the hosts", cobra.NoArgs, list),
		on("env", "print shell exports that reach the first host's engine", cobra.NoArgs, env),
	)
	return root
}

func logTo(began time.Time) func(string, ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.2fs %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func upCommand(name *string) *cobra.Command {
	var o testbed.Options
	cmd := &cobra.Command{Use: "up", Short: "make the testbed, or what is missing of it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Name, o.Log = *name, logTo(time.Now())
			_, err := testbed.Up(cmd.Context(), o)
			return err
		}}
	cmd.Flags().IntVar(&o.Hosts, "hosts", 3, "how many hosts")
	cmd.Flags().IntVar(&o.Bare, "bare", 0, "how many more hosts without an engine")
	cmd.Flags().StringVar(&o.Engine, "engine", "28", "major version of Docker Engine: 28 or 20")
	cmd.Flags().IntVar(&o.Links, "links", 1, "how many links the hosts are on: 1, or 2 with a router between")
	return cmd
}

func prepareCommand() *cobra.Command {
	var engines []string
	cmd := &cobra.Command{Use: "prepare", Short: "build the root trees and images only", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return testbed.Prepare(cmd.Context(), logTo(time.Now()), engines...)
		}}
	cmd.Flags().StringSliceVar(&engines, "engine", []string{"28", "20"}, "for which engines")
	return cmd
}

func execOn(ctx context.Context, h *testbed.Host, args []string) error {
	if !h.Running() {
		return fmt.Errorf("run on %s: the host is down", h.Name)
	}
	cmd := h.Command(ctx, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func list(_ context.Context, t *testbed.Testbed, _ []string) error {
	fmt.Printf("%-8s %-15s %-8s %s\n", "HOST", "ADDRESS", "PID", "ENGINE")
	for _, h := range t.Hosts() {
		engine := "down"
		if h.Running() {
			engine = h.DockerHost()
		}
		fmt.Printf("%-8s %-15s %-8d %s\n", h.Name, h.Address, h.PID(), engine)
	}
	return nil
}

func env(_ context.Context, t *testbed.Testbed, _ []string) error {
	h := t.Hosts()[0]
	fmt.Printf("export DOCKER_HOST=%s\nexport DOCKER_TLS_VERIFY=1\nexport DOCKER_CERT_PATH=%q\n", h.DockerHost(), h.CertPath())
	return nil
}
