package fleet

import (
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/hostconfig"
)

// agentSpec is the agent's container: the host's network, the engine's
// socket, its own directories, and no more rights than it needs (addresses
// and port 53 on the host's own network).
func agentSpec(fleet, host, socket, image, reference, identity string) client.ContainerCreateOptions {
	h := &container.HostConfig{
		NetworkMode: "host", UsernsMode: "host", ReadonlyRootfs: true,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyAlways},
		CapDrop:       []string{"ALL"}, CapAdd: []string{"NET_ADMIN", "NET_BIND_SERVICE"},
		SecurityOpt: []string{"label=disable", "no-new-privileges"},
		// Binds make the directories that a reboot empties; a mount does
		// not, and the socket must be there.
		Binds: []string{
			hostconfig.Dir + ":" + hostconfig.Dir, // the agent renews its certificate
			hostconfig.StateDir + ":" + hostconfig.StateDir,
			hostconfig.RunDir + ":" + hostconfig.RunDir,
		},
		// The agent reaches the engine through the socket's directory: an
		// engine that starts again makes its socket anew, and with
		// live-restore the agent's mount of the old one would stay. The
		// socket itself is mounted only so that an engine without one is
		// noticed here. Mounts below the directory (sandboxes of
		// containers) are left out: the agent would hold them.
		Mounts: []mount.Mount{
			{Type: mount.TypeBind, Source: socket, Target: engineSocketTarget},
			{Type: mount.TypeBind, Source: path.Dir(socket), Target: engineDir, ReadOnly: true, BindOptions: &mount.BindOptions{NonRecursive: true}},
		},
		LogConfig: ownLog(),
	}
	stop := 10
	c := &container.Config{
		Image: reference, Entrypoint: []string{"/docker-clocker"}, Cmd: []string{"agent", "--docker-host", "unix://" + path.Join(engineDir, path.Base(socket))},
		Labels:      map[string]string{LabelFleet: fleet, LabelHost: host, LabelSystem: SystemAgent},
		StopTimeout: &stop,
	}
	c.Labels[labelHash] = specHash(image, c, h)
	c.Labels[labelIdentity] = identity
	return client.ContainerCreateOptions{Name: AgentContainer, Config: c, HostConfig: h}
}

// engineDir is where the agent sees the directory of the engine's socket.
const engineDir = "/host/run"

// labelIdentity tells which of the host's files an agent was started with.
const labelIdentity = "io.clocker.identity"

// agent brings the agent's container up: kept when it is as it would be made.
func (a *adoption) agent(ctx context.Context, id *identity) error {
	was, err := inspect(ctx, a.e, AgentContainer)
	if err != nil {
		return err
	}
	if was != nil && label(was, LabelSystem) != SystemAgent {
		return fmt.Errorf("create agent: the engine has a container called %s that this program did not make: rename or remove it", AgentContainer)
	}
	if !a.o.ThroughAgent { // of an upgrade that was cut off
		if _, err := removeContainer(ctx, a.e, nextAgent); err != nil {
			return err
		}
	}
	socket := engineSocket(a.o.Endpoint)
	if a.o.ThroughAgent && was != nil {
		socket = socketOf(was) // no endpoint tells
	}
	want := agentSpec(a.o.Fleet, a.o.Name, socket, a.machine.image, a.o.Kit.Image.Reference(), id.hash)
	same := was != nil && label(was, labelHash) == want.Config.Labels[labelHash] &&
		(strings.HasPrefix(id.hash, "kept:") || label(was, labelIdentity) == id.hash)
	what := "started"
	switch {
	case same && was.State != nil && was.State.Running:
		a.say(StepAgent, Kept, "agent runs")
		return nil
	case same:
		what = "started again"
	case was != nil && a.o.ThroughAgent:
		return a.swapAgent(ctx, was, want)
	default:
		if was != nil {
			what, a.anew = "made anew", true
			if err := stopContainer(ctx, a.e, AgentContainer, 10); err != nil {
				return err
			}
			if _, err := removeContainer(ctx, a.e, AgentContainer); err != nil {
				return err
			}
		}
		_, err := a.e.ContainerCreate(ctx, want)
		if was == nil && !a.upgrade && !errdefs.IsConflict(err) {
			a.undo.add("agent", func(ctx context.Context) error {
				_, err := removeContainer(ctx, a.e, AgentContainer)
				return err
			})
		}
		if err != nil {
			return fmt.Errorf("create agent: %w", socketMissing(err))
		}
	}
	if _, err := a.e.ContainerStart(ctx, AgentContainer, client.ContainerStartOptions{}); err != nil {
		return fmt.Errorf("start agent: %w", socketMissing(err))
	}
	a.say(StepAgent, Done, "agent %s", what)
	return nil
}

// socketMissing says what to do when the engine has no socket on its machine.
func socketMissing(err error) error {
	if strings.Contains(err.Error(), "bind source path does not exist") {
		return fmt.Errorf("the engine has no socket on its own machine: let it listen on unix:///var/run/docker.sock too: %w", err)
	}
	return err
}
