package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/fleet/preflight"
)

// machine is what is known of an engine and the machine under it.
type machine struct {
	info    system.Info
	version client.ServerVersionResult
	facts   preflight.Facts
	// image is the engine's own id of our image; loaded says that it was not
	// there before.
	image  string
	loaded bool
	// skew is how far the machine's clock is ahead of this one's, within
	// the time that asking took.
	skew, within time.Duration
}

// ask asks the engine about itself.
func ask(ctx context.Context, e *client.Client) (*machine, error) {
	i, err := e.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask engine: %w", err)
	}
	v, err := e.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask engine: %w", err)
	}
	return &machine{info: i.Info, version: v}, nil
}

// look gathers the facts of the machine in a container on it, for which the
// image must be loaded.
func (m *machine) look(ctx context.Context, e *client.Client, now func() time.Time) error {
	p := probe{
		image: m.image, args: []string{"preflight"},
		// Docker's nftables rules can be seen by nobody else.
		caps: []string{"NET_ADMIN"},
		mounts: []mount.Mount{
			{
				Type: mount.TypeBind, Source: "/etc", Target: preflight.HostEtc, ReadOnly: true,
				BindOptions: &mount.BindOptions{NonRecursive: true},
			},
			{
				Type: mount.TypeBind, Source: "/dev", Target: preflight.HostDev, ReadOnly: true,
				BindOptions: &mount.BindOptions{NonRecursive: true},
			},
		},
	}
	before := now()
	out, err := p.run(ctx, e)
	if err != nil {
		return fmt.Errorf("look at machine: %w", err)
	}
	after := now()
	if err := json.Unmarshal(out, &m.facts); err != nil {
		return fmt.Errorf("look at machine: read facts: %w", err)
	}
	m.within = after.Sub(before) / 2
	m.skew = m.facts.Now.Sub(before.Add(m.within))
	return nil
}

// engineSocket is where the engine listens on its own machine, as far as the
// endpoint tells.
func engineSocket(endpoint string) string {
	const usual = "/var/run/docker.sock"
	if path, ok := strings.CutPrefix(endpoint, "unix://"); ok && path != "" {
		return path
	}
	if rest, ok := strings.CutPrefix(endpoint, "ssh://"); ok {
		if i := strings.IndexByte(rest, '/'); i >= 0 && len(rest) > i+1 {
			return rest[i:]
		}
	}
	return usual
}
