package engine

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// Engine is one Docker Engine. Its methods may be called at the same time.
type Engine struct{ cli *client.Client }

// New returns the engine at host, such as "unix:///var/run/docker.sock"; empty
// means the engine's usual socket. It does not connect.
func New(host string) (*Engine, error) {
	// The agent's engine is on the agent's host: its socket, in plain HTTP.
	// The client's own transport keeps two idle connections: with sixteen
	// containers starting at once most calls would dial.
	opts := []client.Opt{client.WithHTTPClient(&http.Client{Transport: &http.Transport{
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}})}
	if host == "" {
		host = client.DefaultDockerHost
	}
	opts = append(opts, client.WithHost(host), client.WithScheme("http"))
	cli, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("reach engine at %s: %w", host, err)
	}
	return &Engine{cli: cli}, nil
}

// Close gives idle connections back.
func (e *Engine) Close() error { return e.cli.Close() }

// Negotiate agrees with the engine on an API version, anew when the engine has
// been replaced by another release. It fails while the engine is away.
func (e *Engine) Negotiate(ctx context.Context) error {
	_, err := e.cli.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true, ForceNegotiate: true})
	return wrap("reach engine", err)
}

// Info is what an engine says about itself and its machine.
type Info struct {
	ID            string
	Name          string
	EngineVersion string
	APIVersion    string
	OS            string
	Architecture  string
	Kernel        string
	CPUs          int
	MemoryBytes   int64
	Labels        map[string]string
}

// Info asks the engine about itself.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	r, err := e.cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return Info{}, wrap("inspect engine", err)
	}
	i := Info{
		ID:            r.Info.ID,
		Name:          r.Info.Name,
		EngineVersion: r.Info.ServerVersion,
		APIVersion:    e.cli.ClientVersion(),
		OS:            r.Info.OperatingSystem,
		Architecture:  r.Info.Architecture,
		Kernel:        r.Info.KernelVersion,
		CPUs:          r.Info.NCPU,
		MemoryBytes:   r.Info.MemTotal,
		Labels:        map[string]string{},
	}
	for _, l := range r.Info.Labels {
		k, v, _ := strings.Cut(l, "=")
		i.Labels[k] = v
	}
	return i, nil
}

// atLeast reports whether the negotiated API is major 1 and minor or later.
func (e *Engine) atLeast(minor int) bool {
	var have int
	if _, err := fmt.Sscanf(e.cli.ClientVersion(), "1.%d", &have); err != nil {
		return false
	}
	return have >= minor
}
