// Command clocker-net is the network plugin of a host: Docker's network driver
// and IPAM driver named clocker, in one process. It is run as a managed plugin
// of the engine, or as a system service.
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

	"clocker.io/clocker/netplugin/server"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/version"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "clocker-net:", err)
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
		fmt.Println("clocker-net", version.Get().Version)
		return nil
	}
	var paths sockets
	flags := flag.NewFlagSet("clocker-net", flag.ContinueOnError)
	config := flags.String("config", hostconfig.Dir, "`directory` with host.json")
	state := flags.String("state", hostconfig.StateDir, "`directory` for state")
	sysctl := flags.String("sysctl", "/proc/sys/net", "`directory` with the host's network settings, writable")
	flags.Var(&paths, "socket", "unix socket to answer the engine on; may be given more than once (default /run/docker/plugins/clocker.sock)")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if len(paths) == 0 {
		paths = sockets{"/run/docker/plugins/clocker.sock"}
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(os.Getenv("CLOCKER_LOG_LEVEL"))); err != nil {
		level = slog.LevelInfo
	}
	// Engines log a managed plugin's standard error as errors.
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return serve(ctx, log, paths, host{config: *config, state: filepath.Join(*state, "net"), sysctl: *sysctl, log: log})
}

// serve opens the sockets before anything else: an engine that starts waits
// for them.
func serve(ctx context.Context, log *slog.Logger, paths []string, h host) error {
	s := server.New(log, spaces)
	var open []net.Listener
	defer func() {
		for _, l := range open {
			l.Close()
		}
	}()
	failed := make(chan error, len(paths)+1)
	for _, p := range paths {
		l, err := server.Listen(p)
		if err != nil {
			return err
		}
		open = append(open, l)
		go func() { failed <- s.Serve(l) }()
	}
	go func() { failed <- h.keep(ctx, s) }()
	log.Info("answering", "sockets", paths, "version", version.Get().Version)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
}
