package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/hostconfig"
)

// RehomeOptions say which host is told where the controllers are.
type RehomeOptions struct {
	Fleet string
	Host  string
	// CA is the fleet's certificate as PEM: another fleet's host is left alone.
	CA []byte
	// Etcd and Controllers are URLs.
	Etcd, Controllers []string
	Engine            *client.Client
	Kit               *Kit
	Now               func() time.Time
}

// Rehome tells a host, through its engine, where the fleet's controllers are:
// for hosts that cannot learn it from the fleet, since all the addresses that
// they know are dead. Its certificate stays.
func Rehome(ctx context.Context, o RehomeOptions, progress func(Progress)) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	m, err := ask(ctx, o.Engine)
	if err != nil {
		return err
	}
	report := oneAtATime(progress)
	if err := loadImage(ctx, o.Engine, o.Kit, m, nil, func(Progress) {}, o.Host); err != nil {
		return err
	}
	p := probe{image: m.image, args: []string{"version"}, mounts: []mount.Mount{
		{Type: mount.TypeBind, Source: hostconfig.Dir, Target: hostconfig.Dir},
	}}
	id, err := p.create(ctx, o.Engine)
	if err != nil {
		return fmt.Errorf("tell host %s: %w", o.Host, err)
	}
	defer discard(ctx, o.Engine, id)
	text, err := get(ctx, o.Engine, id, hostconfig.Dir+"/"+hostFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tell host %s: %w", o.Host, hostconfig.ErrNotAdopted)
	}
	if err != nil {
		return fmt.Errorf("tell host %s: %w", o.Host, err)
	}
	own, err := get(ctx, o.Engine, id, hostconfig.Dir+"/"+hostCA)
	if err != nil {
		return fmt.Errorf("tell host %s: %w", o.Host, err)
	}
	next, same, err := rehomed(text, o, own)
	if err != nil {
		return fmt.Errorf("tell host %s: %w", o.Host, err)
	}
	if same {
		report(Progress{Subject: o.Host, Step: StepFiles, State: Kept, Text: "host knows the controllers"})
		return nil
	}
	if err := put(ctx, o.Engine, id, hostconfig.Dir, map[string]file{hostFile: {next, 0o644}}, o.Now()); err != nil {
		return fmt.Errorf("tell host %s: %w", o.Host, err)
	}
	if err := restartHost(ctx, o.Engine); err != nil {
		return fmt.Errorf("tell host %s: %w", o.Host, err)
	}
	report(Progress{Subject: o.Host, Step: StepFiles, State: Done, Text: "host was told where the controllers are"})
	return nil
}

// rehomed is a host's configuration with other controllers.
func rehomed(text []byte, o RehomeOptions, own []byte) (next []byte, same bool, err error) {
	cfg := hostconfig.Config{}
	if err := json.Unmarshal(text, &cfg); err != nil {
		return nil, false, fmt.Errorf("read %s: %w", hostFile, err)
	}
	theirs, err := ca.Fingerprint(own)
	if err != nil {
		return nil, false, err
	}
	ours, err := ca.Fingerprint(o.CA)
	if err != nil {
		return nil, false, err
	}
	if cfg.Fleet != o.Fleet || theirs != ours {
		return nil, false, fmt.Errorf("%w: it is a host of fleet %s", ErrOtherFleet, cfg.Fleet)
	}
	if sameList(cfg.Etcd, o.Etcd) && sameList(cfg.Controllers, o.Controllers) {
		return nil, true, nil
	}
	cfg.Etcd, cfg.Controllers = o.Etcd, o.Controllers
	if next, err = json.MarshalIndent(cfg, "", "  "); err != nil {
		return nil, false, fmt.Errorf("write %s: %w", hostFile, err)
	}
	return append(next, '\n'), false, nil
}

// sameList compares lists whose order means nothing.
func sameList(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// restartHost has the agent read its configuration anew. The network plugin
// follows the file by itself.
func restartHost(ctx context.Context, e *client.Client) error {
	ten := 10
	if _, err := e.ContainerRestart(ctx, AgentContainer, client.ContainerRestartOptions{Timeout: &ten}); err != nil {
		return fmt.Errorf("restart agent: %w", err)
	}
	return nil
}
