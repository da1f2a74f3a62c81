package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"
)

// SwapCommand is the command of this program that puts a new agent in the place
// of the one that runs; see [SwapAgent].
const SwapCommand = "agentswap"

// nextAgent is the new agent's container until it has shown that it runs.
const nextAgent = AgentContainer + "-next"

// settleTime is how long a new agent must run before the old one goes for good.
const settleTime = 2 * time.Second

// swapAgent makes the agent anew where the engine is reached through it: whoever
// stopped it could not go on. So a container on the machine does that.
func (a *adoption) swapAgent(ctx context.Context, was *container.InspectResponse, want client.ContainerCreateOptions) error {
	next, err := inspect(ctx, a.e, nextAgent)
	if err != nil {
		return err
	}
	// One that runs is what we are connected through, of an exchange that was
	// cut off: that is brought to its end.
	if next == nil || next.State == nil || !next.State.Running {
		want.Name = nextAgent
		if _, err := removeContainer(ctx, a.e, nextAgent); err != nil {
			return err
		}
		if _, err := a.e.ContainerCreate(ctx, want); err != nil {
			return fmt.Errorf("create agent: %w", err)
		}
	}
	id, err := probe{
		image: a.machine.image, args: []string{SwapCommand},
		mounts: []mount.Mount{{Type: mount.TypeBind, Source: socketOf(was), Target: engineSocketTarget}},
		// It goes on after a restart of the machine.
		restart: container.RestartPolicy{Name: container.RestartPolicyOnFailure, MaximumRetryCount: 3},
	}.create(ctx, a.e)
	if err != nil {
		return fmt.Errorf("exchange agent: %w", err)
	}
	if _, err := a.e.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		discard(ctx, a.e, id)
		return fmt.Errorf("exchange agent: %w", err)
	}
	a.anew = true
	return a.awaitSwap(ctx, id, want.Config.Labels[labelHash])
}

// awaitSwap waits until the agent is the one with the given hash. For a moment
// nobody answers. The container that exchanges them is removed when it has ended,
// and never before, whoever stops waiting: the next sweep takes it.
func (a *adoption) awaitSwap(ctx context.Context, id, hash string) error {
	ctx, cancel := context.WithTimeout(ctx, a.o.Wait)
	defer cancel()
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	last := errors.New("it is being stopped")
	for {
		one, done := context.WithTimeout(ctx, 5*time.Second)
		swap, err := inspect(one, a.e, id) // first: what it did is seen then
		var now *container.InspectResponse
		if err == nil {
			now, err = inspect(one, a.e, AgentContainer)
		}
		done()
		switch {
		case err != nil:
			last = err
		case now != nil && label(now, labelHash) == hash && now.State != nil && now.State.Running:
			a.say(StepAgent, Done, "agent made anew")
			discard(ctx, a.e, id)
			return nil
		case swap == nil || swap.State == nil || !swap.State.Running && !swap.State.Restarting && swap.State.Status != container.StateCreated:
			words := lastWords(ctx, a.e, id)
			discard(ctx, a.e, id)
			return fmt.Errorf("exchange agent: the one that ran runs on: %s", words)
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return fmt.Errorf("exchange agent: nobody answers on the host after %s: %w", a.o.Wait, last)
		case <-t.C:
		}
	}
}

// engineSocketTarget is where our containers see the engine's socket.
const engineSocketTarget = "/var/run/docker.sock"

// socketOf is the engine's socket on its machine, as the agent there has it.
func socketOf(agent *container.InspectResponse) string {
	if agent.HostConfig != nil {
		for _, m := range agent.HostConfig.Mounts {
			if m.Target == engineSocketTarget {
				return m.Source
			}
		}
	}
	return engineSocket("")
}

// SwapAgent puts the agent that was made under another name in the place of the
// one that runs. It runs on the machine itself. When the new one does not stay
// up, the old one runs on and the error says why. It may end anywhere and be
// repeated: there is an agent at every restart of the machine, and in the end
// one under the usual name.
func SwapAgent(ctx context.Context, e *client.Client, log *slog.Logger) error {
	return swapAgents(ctx, agentEngine{e}, log, time.After)
}

// swapEngine is what swapping agents needs of an engine.
type swapEngine interface {
	// running tells whether a container is there, and has run on since it was
	// started.
	running(ctx context.Context, name string) (up bool, there bool, err error)
	stop(ctx context.Context, name string) error
	start(ctx context.Context, name string) error
	remove(ctx context.Context, name string) error
	rename(ctx context.Context, name, to string) error
	words(ctx context.Context, name string) string
}

func swapAgents(ctx context.Context, e swapEngine, log *slog.Logger, after func(time.Duration) <-chan time.Time) error {
	_, there, err := e.running(ctx, nextAgent)
	if err != nil || !there {
		return err // it was done before, or taken back
	}
	if err := e.stop(ctx, AgentContainer); err != nil {
		return err
	}
	log.Info("the agent that ran is stopped")
	problem := e.start(ctx, nextAgent)
	for waited := time.Duration(0); problem == nil && waited < settleTime; waited += settleTime / 10 {
		select {
		case <-ctx.Done():
			return ctx.Err() // what is there is gone on from
		case <-after(settleTime / 10):
		}
		up, _, err := e.running(ctx, nextAgent)
		if err == nil && !up {
			problem = fmt.Errorf("the new agent does not stay up: %s", e.words(ctx, nextAgent))
		}
	}
	if problem != nil {
		err := e.remove(ctx, nextAgent)
		return errors.Join(problem, err, e.start(ctx, AgentContainer))
	}
	if err := e.remove(ctx, AgentContainer); err != nil {
		return err
	}
	log.Info("the new agent runs")
	return e.rename(ctx, nextAgent, AgentContainer)
}

// agentEngine is an engine's containers, by name.
type agentEngine struct{ e *client.Client }

func (a agentEngine) running(ctx context.Context, name string) (up, there bool, err error) {
	c, err := inspect(ctx, a.e, name)
	if err != nil || c == nil {
		return false, false, err
	}
	if label(c, LabelSystem) != SystemAgent {
		return false, true, fmt.Errorf("container %s is not an agent of Clocker's", name)
	}
	return c.State != nil && c.State.Running && c.RestartCount == 0, true, nil
}

func (a agentEngine) stop(ctx context.Context, name string) error {
	return stopContainer(ctx, a.e, name, 10)
}

func (a agentEngine) start(ctx context.Context, name string) error {
	if _, err := a.e.ContainerStart(ctx, name, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start container %s: %w", name, socketMissing(err))
	}
	return nil
}

func (a agentEngine) remove(ctx context.Context, name string) error {
	_, err := removeContainer(ctx, a.e, name)
	return err
}

func (a agentEngine) rename(ctx context.Context, name, to string) error {
	_, err := a.e.ContainerRename(ctx, name, client.ContainerRenameOptions{NewName: to})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("rename container %s: %w", name, err)
	}
	return nil
}

func (a agentEngine) words(ctx context.Context, name string) string {
	return lastWords(ctx, a.e, name)
}
