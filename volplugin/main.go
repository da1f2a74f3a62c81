// Command clocker-vol is the volume plugin of a host: Docker's volume driver
// (docker.volumedriver/1.0), run as a managed plugin of the engine or as a
// system service. What it answers the engine are paths of the host: where it
// runs in a container, its root must be the host's directory of the same path.
//
// Design page: docs/design/volumes.md.
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

// sockets gathers the values of a flag that may be given more than once.
type sockets []string

func (s *sockets) String() string { return strings.Join(*s, ",") }

func (s *sockets) Set(v string) error {
	*s = append(*s, v)
	return nil
}

func run(args []string) error {
	if len(args) == 1 && args[0] == "version" {
		fmt.Println("clocker-vol", version.Get().Version)
		return nil
	}
	flags := flag.NewFlagSet("clocker-vol", flag.ContinueOnError)
	root := flags.String("root", "/var/lib/clocker/volumes", "`directory` for the content of volumes")
	state := flags.String("state", "", "`directory` for what is known of them (default that of --root)")
	var paths sockets
	flags.Var(&paths, "socket", "unix `socket` to answer the engine on; may be given more than once (default /run/docker/plugins/clocker-vol.sock)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *state == "" {
		*state = *root
	}
	if len(paths) == 0 {
		paths = sockets{"/run/docker/plugins/clocker-vol.sock"}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv("CLOCKER_LOG_LEVEL"))); err != nil {
		level = slog.LevelInfo
	}
	// Engines log a managed plugin's standard error as errors.
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return serve(ctx, log, *root, *state, paths)
}

// serve answers on the sockets until ctx ends. They are opened before anything
// else: an engine that starts waits for them, and what it asks meanwhile is
// answered once the state has been read.
func serve(ctx context.Context, log *slog.Logger, root, state string, paths sockets) error {
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	for _, path := range paths {
		l, err := listen(path)
		if err != nil {
			return err
		}
		open = append(open, l)
	}
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
		Dir: state, Backends: []backend.Backend{dirs}, Boot: strings.TrimSpace(string(boot)), Log: log,
	})
	if err != nil {
		return err
	}
	defer func() {
		if err := d.Close(); err != nil {
			log.Error("state not closed", "error", err)
		}
	}()
	log.Info("answering", "sockets", paths, "root", root, "version", version.Get().Version)
	handler, failed := volume.NewHandler(d), make(chan error, len(open))
	for _, l := range open {
		go func() { failed <- fmt.Errorf("serve %s: %w", l.Addr(), handler.Serve(l)) }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
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
