package agent

import (
	"context"
	"io"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/record"
)

// Engine is what the agent asks of the Docker Engine; [engine.Engine] is one.
type Engine interface {
	Negotiate(ctx context.Context) error
	Info(ctx context.Context) (engine.Info, error)
	Events(ctx context.Context, ready func(), f func(engine.Event)) error

	ContainerIDs(ctx context.Context, label string) ([]string, error)
	Container(ctx context.Context, id string) (engine.Container, error)
	Create(ctx context.Context, r engine.ContainerRequest) (string, error)
	Start(ctx context.Context, id string) error
	Stop(ctx context.Context, id string) error
	Kill(ctx context.Context, id string) error
	Restart(ctx context.Context, id string) error
	Remove(ctx context.Context, id string) error

	EnsureImage(ctx context.Context, ref, platform string) (pulled bool, err error)

	Networks(ctx context.Context) ([]engine.Network, error)
	Network(ctx context.Context, id string) (engine.Network, error)
	CreateNetwork(ctx context.Context, n record.Network, labels map[string]string) (string, error)
	RemoveNetwork(ctx context.Context, id string) error
	NetworkUsers(ctx context.Context, id string) ([]string, error)

	Logs(ctx context.Context, id string, o engine.LogOptions) (io.ReadCloser, error)
	Exec(ctx context.Context, container string, r engine.ExecRequest) (*engine.Exec, error)
	ExecState(ctx context.Context, id string) (engine.ExecState, error)
	ExecResize(ctx context.Context, id string, height, width uint) error
}

var _ Engine = (*engine.Engine)(nil)
