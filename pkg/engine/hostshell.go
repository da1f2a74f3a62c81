package engine

import (
	"context"
	"fmt"
	"net"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/record"
)

// SystemShell is the value of [record.LabelSystem] of containers in which
// commands run on the machine itself.
const SystemShell = "shell"

// StartShell starts a container with all rights on the machine, in which
// [Engine.Exec] runs commands: entrypoint waits, and is what such commands
// begin with to enter the machine's own namespaces. like names a container
// whose image it is made from. The caller removes it.
func (e *Engine) StartShell(ctx context.Context, like string, entrypoint []string) (id string, err error) {
	self, err := e.cli.ContainerInspect(ctx, like, client.ContainerInspectOptions{})
	if err != nil {
		return "", wrap("inspect container "+like, err)
	}
	labels := map[string]string{record.LabelSystem: SystemShell}
	if f := self.Container.Config.Labels[record.LabelFleet]; f != "" {
		labels[record.LabelFleet] = f
	}
	r, err := e.cli.ContainerCreate(ctx, client.ContainerCreateOptions{
		Config: &container.Config{Image: self.Container.Image, Entrypoint: entrypoint, Labels: labels},
		HostConfig: &container.HostConfig{
			Privileged: true, PidMode: "host", NetworkMode: "host", IpcMode: "host", UTSMode: "host", UsernsMode: "host",
			ReadonlyRootfs: true, LogConfig: container.LogConfig{Type: "none"},
		},
	})
	if err != nil {
		return "", wrap("create container", err)
	}
	if _, err := e.cli.ContainerStart(ctx, r.ID, client.ContainerStartOptions{}); err != nil {
		_ = e.Remove(context.WithoutCancel(ctx), r.ID) // the first error matters
		return "", wrap("start container", err)
	}
	return r.ID, nil
}

// RemoveShells removes the containers of [Engine.StartShell] that are left.
func (e *Engine) RemoveShells(ctx context.Context) error {
	ids, err := e.ContainerIDs(ctx, record.LabelSystem+"="+SystemShell)
	if err != nil {
		return fmt.Errorf("remove shells: %w", err)
	}
	for _, id := range ids {
		if err := e.Remove(ctx, id); err != nil {
			return fmt.Errorf("remove shells: %w", err)
		}
	}
	return nil
}

// Dial opens a connection to the engine's API.
func (e *Engine) Dial(ctx context.Context) (net.Conn, error) {
	conn, err := e.cli.Dialer()(ctx)
	if err != nil {
		return nil, wrap("reach engine", err)
	}
	return conn, nil
}
