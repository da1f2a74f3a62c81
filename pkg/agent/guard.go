package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/model"
)

// guardLate is how much later than the agent its guard stops what is due: it
// only has work when the agent hangs.
const guardLate = 500 * time.Millisecond

// Guard is a process beside the agent, of the agent's own program: it stops what
// has a fence when the agent itself does not, because it hangs or is frozen. It
// reads what the agent keeps and writes nothing but what it has stopped. It
// works until ctx ends, or in does: then the agent has ended.
func Guard(ctx context.Context, o Options, in io.Reader) error {
	o = o.filled()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, in) // however it ends, it has ended
	}()
	cfg, err := hostconfig.Wait(ctx, o.ConfigDir, time.Second)
	if err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	eng, err := engine.New(o.DockerHost)
	if err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	defer func() { _ = eng.Close() }()
	if err := eng.Negotiate(ctx); err != nil {
		return fmt.Errorf("start guard: %w", err)
	}
	g := &guard{
		file:  newFenceFile(o.StateDir),
		fence: &fence{identity: identity{Fleet: cfg.Fleet, Host: cfg.HostID}, engine: eng, log: o.Log, file: newGuardFile(o.StateDir), changed: func() {}},
	}
	g.fence.now = func() time.Duration { return sinceBoot() - guardLate }
	for pause(ctx, fenceLook) {
		g.look(ctx)
	}
	return nil
}

// guard watches over an agent's fence by its file.
type guard struct {
	file  fenceFile
	fence *fence
}

// look stops what is due by what the agent has kept. What it has not kept is the
// agent's own to stop, when it starts.
func (g *guard) look(ctx context.Context) {
	s, err := g.file.load()
	if err != nil || !s.known || !s.Active {
		return
	}
	f := g.fence
	late := s.At+model.MinFence <= f.now() && !s.Handed
	f.mu.Lock()
	if s.Killed = nil; late {
		s.Killed = f.state.Killed
	}
	f.state = s
	f.mu.Unlock()
	if late {
		f.turn.Lock()
		f.sweep(ctx)
		f.turn.Unlock()
	}
}

// guarded keeps a guard running once there is something to guard, until ctx
// ends.
func (f *fence) guarded(ctx context.Context, log *slog.Logger, command func(ctx context.Context) *exec.Cmd) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wanted:
		}
		for ctx.Err() == nil {
			cmd := command(ctx)
			in, err := cmd.StdinPipe()
			if err == nil {
				cmd.Stderr = os.Stderr
				err = cmd.Run()
				_ = in.Close()
			}
			if ctx.Err() == nil {
				log.Warn("the guard of what has a fence has ended, starting another one", "error", err)
			}
			pause(ctx, time.Second)
		}
	}
}

// guardCommand is this program as the guard.
func guardCommand(o Options) func(ctx context.Context) *exec.Cmd {
	return func(ctx context.Context) *exec.Cmd {
		self, err := os.Executable()
		if err != nil {
			self = os.Args[0]
		}
		return exec.CommandContext(ctx, self, "guard", "--config", o.ConfigDir, "--state", o.StateDir, "--docker-host", o.DockerHost)
	}
}
