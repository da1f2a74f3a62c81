// Command clocker-vol is the volume plugin of a host: Docker's volume driver
// (docker.volumedriver/1.0), run as a managed plugin of the engine or as a
// system service.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/docker/go-plugins-helpers/volume"

	"clocker.io/clocker/pkg/version"
	"clocker.io/clocker/volplugin/backend"
	"clocker.io/clocker/volplugin/backend/local"
	"clocker.io/clocker/volplugin/driver"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "clocker-vol:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "version" {
		fmt.Println("clocker-vol", version.Get().Version)
		return nil
	}
	flags := flag.NewFlagSet("clocker-vol", flag.ContinueOnError)
	root := flags.String("root", "/var/lib/clocker/volumes", "`directory` for volumes and state")
	socket := flags.String("socket", "/run/docker/plugins/clocker-vol.sock", "unix `socket` to answer the engine on")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv("CLOCKER_LOG_LEVEL"))); err != nil {
		level = slog.LevelInfo
	}
	// Engines log a managed plugin's standard error as errors.
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return serve(ctx, log, *root, *socket)
}

// serve answers on the socket until ctx ends.
func serve(ctx context.Context, log *slog.Logger, root, socket string) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	dirs, err := local.Open(root, log)
	if err != nil {
		return err
	}
	defer dirs.Close()
	d, err := driver.Open(driver.Config{
		Dir: root, Backends: []backend.Backend{dirs}, Boot: strings.TrimSpace(string(boot)), Log: log,
	})
	if err != nil {
		return err
	}
	defer d.Close()
	l, err := listen(socket)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	log.Info("answering", "socket", socket, "root", root, "version", version.Get().Version)
	if err := volume.NewHandler(d).Serve(l); !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve %s: %w", socket, err)
	}
	return nil
}

// listen opens a socket that only root can reach. A file that a killed process
// left behind is replaced; one that somebody answers on is not.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open plugin socket: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("open plugin socket %s: another process is serving it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open plugin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("open plugin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("open plugin socket: %w", err), l.Close())
	}
	return l, nil
}
