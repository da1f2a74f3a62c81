package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// daemonCommand marks a command that a machine runs, not a user: it is hidden,
// and needs nothing of the docker CLI's configuration.
func daemonCommand(cmd *cobra.Command) *cobra.Command {
	cmd.Hidden = true
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error { return nil }
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// interruptible returns a context that SIGINT and SIGTERM end.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
}

// untilSignal runs f until it ends or SIGINT or SIGTERM comes, which is no
// error.
func untilSignal(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	if err := f(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// logFlags say how a daemon logs, to standard error.
type logFlags struct{ level, format string }

func (l *logFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&l.level, "log-level", "info", `Least level to log: "debug", "info", "warn" or "error"`)
	cmd.Flags().StringVar(&l.format, "log-format", "text", `Format of the log: "text" or "json"`)
}

func (l *logFlags) logger(component string) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level: %w", err)}
	}
	o := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch l.format {
	case "text":
		h = slog.NewTextHandler(os.Stderr, o)
	case "json":
		h = slog.NewJSONHandler(os.Stderr, o)
	default:
		return nil, usageError{fmt.Errorf("--log-format: %q is neither text nor json", l.format)}
	}
	return slog.New(h).With("component", component), nil
}
