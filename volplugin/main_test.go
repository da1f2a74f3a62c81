package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

func TestServeUntilTold(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "run", "s")
	log := slog.New(slog.DiscardHandler)
	// A socket file of a killed process is in the way.
	assert.NilError(t, os.Mkdir(filepath.Dir(socket), 0o755))
	stale, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	assert.NilError(t, stale.Close())
	for range 2 {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- serve(ctx, log, filepath.Join(dir, "root"), filepath.Join(dir, "state"), sockets{socket, socket + "2"})
		}()
		poll.WaitOn(t, func(poll.LogT) poll.Result {
			c, err := net.Dial("unix", socket+"2")
			if err != nil {
				return poll.Continue("%v", err)
			}
			_ = c.Close()
			return poll.Success()
		}, poll.WithDelay(time.Millisecond))
		assert.ErrorContains(t, serve(ctx, log, filepath.Join(dir, "other"), dir, sockets{socket}), "another process is serving it")
		stop()
		assert.NilError(t, <-done)
	}
}

func TestArguments(t *testing.T) {
	assert.NilError(t, run([]string{"version"}))
	assert.NilError(t, run([]string{"--help"}))
	assert.ErrorContains(t, run([]string{"--nonsense"}), "nonsense")
	assert.ErrorContains(t, run([]string{"x"}), `unexpected argument "x"`)
	assert.ErrorContains(t, run([]string{"--root", "relative"}), "not an absolute path")
}
