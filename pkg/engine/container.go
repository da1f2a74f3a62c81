package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/model"
)

// The states of a container, in the engine's words.
const (
	Created    = "created"
	Running    = "running"
	Paused     = "paused"
	Restarting = "restarting"
	Removing   = "removing"
	Exited     = "exited"
	Dead       = "dead"
)

// Container is a container as the engine sees it.
type Container struct {
	ID     string
	Name   string
	Labels map[string]string
	State  string
	// Health is "", "starting", "healthy" or "unhealthy".
	Health   string
	ExitCode int
	// Error is why the engine could not start it; may be empty.
	Error     string
	OOMKilled bool
	// StartedAt is zero for one that never ran.
	StartedAt time.Time
	// EndedAt is when it ended last; zero for one that never did.
	EndedAt time.Time
	TTY     bool
	// Joined are the networks it belongs to, running or not, by the engine's
	// name for them.
	Joined map[string]Joined
	// Hostname is its own name for itself; the engine takes the start of the
	// id when nobody says.
	Hostname string
	// Ports are those that it asked the host for.
	Ports []model.Port
	// SeenAt is a moment before the engine was asked: events older than it
	// are in this record already. Set by the caller.
	SeenAt time.Time
}

// Joined is a container's place in a network.
type Joined struct {
	// Address and Address6 are empty while it is not running.
	Address, Address6 string
	// Aliases are its other names there.
	Aliases []string
}

// Up reports whether the container's process runs, or will by the engine's own
// doing.
func (c *Container) Up() bool {
	return c.State == Running || c.State == Paused || c.State == Restarting
}

// Create makes a container, joined to its networks, and returns its id. A name
// that is taken gives ErrConflict, a missing image ErrNotFound. When a later
// step fails the container is removed again.
func (e *Engine) Create(ctx context.Context, r ContainerRequest) (string, error) {
	op := "create container " + r.Spec.Name
	several := e.atLeast(44)
	for _, j := range r.Spec.Networks {
		switch {
		case j.MAC != "" && !several:
			return "", &Error{Op: op, Kind: ErrInvalid, err: errors.New("mac_address needs Docker Engine 25 or newer")}
		case j.GatewayPriority != 0 && !e.atLeast(48):
			return "", &Error{Op: op, Kind: ErrInvalid, err: errors.New("gw_priority needs Docker Engine 28 or newer")}
		}
	}
	o, err := createOptions(r, several)
	if err != nil {
		return "", &Error{Op: op, Kind: ErrInvalid, err: err}
	}
	res, err := e.cli.ContainerCreate(ctx, o)
	if err != nil {
		return "", wrap(op, err)
	}
	if several || len(r.Networks) < 2 {
		return res.ID, nil
	}
	for i, n := range r.Networks[1:] {
		ep, err := endpoint(r.Spec.Networks, i+1)
		if err == nil {
			_, err = e.cli.NetworkConnect(ctx, n, client.NetworkConnectOptions{Container: res.ID, EndpointConfig: ep})
		}
		if err != nil {
			err = wrap(fmt.Sprintf("join container %s to network %s", r.Spec.Name, n), err)
			// Without ctx: it may be what ended the call before.
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			return "", errors.Join(err, e.Remove(clean, res.ID))
		}
	}
	return res.ID, nil
}

// Start starts a container. ErrCommand and ErrPort tell what will not go away
// by itself.
func (e *Engine) Start(ctx context.Context, id string) error {
	_, err := e.cli.ContainerStart(ctx, id, client.ContainerStartOptions{})
	if err == nil {
		return nil
	}
	return &Error{Op: "start container", Kind: startKind(err), err: err}
}

// Stop asks a container to end and kills it after its own grace period. One
// that is not running is left as it is.
func (e *Engine) Stop(ctx context.Context, id string) error {
	_, err := e.cli.ContainerStop(ctx, id, client.ContainerStopOptions{})
	return wrap("stop container", err)
}

// Kill ends a container at once. One that does not run is no error.
func (e *Engine) Kill(ctx context.Context, id string) error {
	_, err := e.cli.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: "KILL"})
	err = wrap("kill container", err)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrConflict) {
		return nil
	}
	return err
}

// Restart stops and starts a container.
func (e *Engine) Restart(ctx context.Context, id string) error {
	_, err := e.cli.ContainerRestart(ctx, id, client.ContainerRestartOptions{})
	if err == nil {
		return nil
	}
	return &Error{Op: "restart container", Kind: startKind(err), err: err}
}

// Remove takes a container away, killing it if it runs, with its anonymous
// volumes. One that is gone already, or going, is no error.
func (e *Engine) Remove(ctx context.Context, id string) error {
	_, err := e.cli.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true})
	err = wrap("remove container", err)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case errors.Is(err, ErrConflict) && strings.Contains(err.Error(), "already in progress"):
		return nil
	}
	return err
}

// Container inspects one container by id or name.
func (e *Engine) Container(ctx context.Context, id string) (Container, error) {
	r, err := e.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return Container{}, wrap("inspect container", err)
	}
	return fromInspect(r.Container), nil
}

// ContainerIDs lists the containers, running or not, that have a label
// ("key" or "key=value").
func (e *Engine) ContainerIDs(ctx context.Context, label string) ([]string, error) {
	return e.containerIDs(ctx, client.Filters{}.Add("label", label))
}

func (e *Engine) containerIDs(ctx context.Context, f client.Filters) ([]string, error) {
	r, err := e.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: f})
	if err != nil {
		return nil, wrap("list containers", err)
	}
	ids := make([]string, len(r.Items))
	for i, c := range r.Items {
		ids[i] = c.ID
	}
	return ids, nil
}

func fromInspect(r container.InspectResponse) Container {
	c := Container{
		ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"),
		Labels: map[string]string{}, Joined: map[string]Joined{},
	}
	if r.Config != nil {
		c.TTY, c.Hostname = r.Config.Tty, r.Config.Hostname
		if r.Config.Labels != nil {
			c.Labels = r.Config.Labels
		}
	}
	if s := r.State; s != nil {
		c.State, c.ExitCode, c.Error, c.OOMKilled = string(s.Status), s.ExitCode, s.Error, s.OOMKilled
		if t, err := time.Parse(time.RFC3339Nano, s.StartedAt); err == nil && t.Year() > 1 {
			c.StartedAt = t
		}
		if t, err := time.Parse(time.RFC3339Nano, s.FinishedAt); err == nil && t.Year() > 1 {
			c.EndedAt = t
		}
		if s.Health != nil && s.Health.Status != container.NoHealthcheck {
			c.Health = string(s.Health.Status)
		}
	}
	if r.NetworkSettings != nil {
		for name, ep := range r.NetworkSettings.Networks {
			if ep == nil {
				continue
			}
			j := Joined{Aliases: ep.Aliases}
			if ep.GlobalIPv6Address.IsValid() {
				j.Address6 = ep.GlobalIPv6Address.String()
			}
			if ep.IPAddress.IsValid() {
				j.Address = ep.IPAddress.String()
			}
			c.Joined[name] = j
		}
	}
	if r.HostConfig != nil {
		c.Ports = fromBindings(r.HostConfig.PortBindings)
	}
	return c
}

func fromBindings(m network.PortMap) []model.Port {
	var out []model.Port
	for port, bindings := range m {
		for _, b := range bindings {
			n, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue // no fixed port was asked for
			}
			p := model.Port{HostPort: uint16(n), ContainerPort: port.Num(), Protocol: string(port.Proto()), Mode: "host"}
			if b.HostIP.IsValid() {
				p.HostIP = b.HostIP.String()
			}
			out = append(out, p)
		}
	}
	return out
}
