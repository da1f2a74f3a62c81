package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/image"
	"clocker.io/clocker/pkg/record"
)

// ErrNewer means that a host would get a newer program than the controllers
// have.
var ErrNewer = errors.New("newer than the controllers")

// Upgrader is the part of a controller's API that upgrading hosts needs;
// [api.Client] is one.
type Upgrader interface {
	Controller
	Tasks(ctx context.Context, app string) ([]api.Task, error)
}

var _ Upgrader = (*api.Client)(nil)

// UpgradeOptions say which host of a fleet is upgraded.
type UpgradeOptions struct {
	// Add is as for adding the host again: Name must be set, Kit is what the
	// host is brought to.
	Add AddOptions
	// Controller is the fleet's.
	Controller Upgrader
}

// UpgradeHosts brings hosts to the programs of a kit, one after the other: the
// image, the network plugin in place, the agent. Networks and containers go on
// meanwhile, as all that they need is in the kernel. After each host it waits
// until the host is ready with its new agent and what ran there runs; it stops
// at the first that does not come to that, and leaves the rest as it is.
//
// It can be repeated, and goes on where it was interrupted: what a host has
// already is kept. Hosts must not get newer programs than the controllers
// have, which is [ErrNewer].
func UpgradeHosts(ctx context.Context, os []UpgradeOptions, progress func(Progress)) ([]api.Host, error) {
	var done []api.Host
	for i, o := range os {
		h, err := upgradeHost(ctx, o, progress)
		if err == nil {
			done = append(done, h)
			continue
		}
		var rest []string
		for _, r := range os[i+1:] {
			rest = append(rest, r.Add.Name)
		}
		if len(rest) > 0 {
			err = fmt.Errorf("%w\nnot begun: %s: upgrade them when this is put right", err, strings.Join(rest, ", "))
		}
		return done, err
	}
	return done, nil
}

func upgradeHost(ctx context.Context, o UpgradeOptions, progress func(Progress)) (api.Host, error) {
	var none api.Host
	o.Add.Controller = o.Controller
	a, err := newAdoption(o.Add, progress)
	if err != nil {
		return none, err
	}
	a.upgrade = true
	info, err := o.Controller.Info(ctx)
	if err != nil {
		return none, fmt.Errorf("upgrade host %s: ask controller: %w", a.o.Name, err)
	}
	if newer(a.o.Kit.Version, info.Version) {
		return none, fmt.Errorf("upgrade host %s: this docker-clocker is %s, the controllers are %s: %w: upgrade them first (docker clocker controller upgrade)",
			a.o.Name, a.o.Kit.Version, info.Version, ErrNewer)
	}
	before, err := running(ctx, o.Controller, a.o.Name)
	if err != nil {
		return none, fmt.Errorf("upgrade host %s: %w", a.o.Name, err)
	}
	if err := a.look(ctx); err != nil {
		return none, err
	}
	if a.known == nil || a.machine.facts.Member == nil || a.machine.facts.Member.HostID != a.known.ID {
		return none, fmt.Errorf("upgrade host %s: the engine that answers at %s is not that host's: add the host again", a.o.Name, a.o.Endpoint)
	}
	h, err := a.carryOut(ctx)
	if err != nil {
		return none, fmt.Errorf("upgrade host %s: %w: upgrade it again, it goes on from there", a.o.Name, err)
	}
	if err := a.awaitWork(ctx, o.Controller, before); err != nil {
		return none, fmt.Errorf("upgrade host %s: %w", a.o.Name, err)
	}
	if err := removeOldImages(ctx, a.e, a.machine.image); err != nil {
		return none, fmt.Errorf("upgrade host %s: %w", a.o.Name, err)
	}
	return h, nil
}

// running lists the tasks that run on a host, and are not unhealthy.
func running(ctx context.Context, c Upgrader, host string) (map[string]string, error) {
	ts, err := c.Tasks(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("ask controller for tasks: %w", err)
	}
	out := map[string]string{}
	for _, t := range ts {
		if t.Host == host && t.State == record.StateRunning && t.Health != "unhealthy" {
			out[t.ID] = t.Name
		}
	}
	return out, nil
}

// awaitWork waits until what ran on the host runs, or is wanted there no more.
func (a *adoption) awaitWork(ctx context.Context, c Upgrader, before map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, a.o.Wait)
	defer cancel()
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for {
		ts, err := c.Tasks(ctx, "")
		var missing []string
		for _, task := range ts {
			if before[task.ID] != "" && task.Host == a.o.Name && task.Desired == record.PhaseRun &&
				(task.State != record.StateRunning || task.Health == "unhealthy") {
				missing = append(missing, task.Name)
			}
		}
		if err == nil && len(missing) == 0 {
			a.say(StepReady, Done, "what ran on host %s runs: %d replicas", a.o.Name, len(before))
			return nil
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("wait for what ran there: %w", err)
			}
			slices.Sort(missing)
			return fmt.Errorf("wait for what ran there: these do not run after %s: %s", a.o.Wait, strings.Join(missing, ", "))
		case <-t.C:
		}
	}
}

// removeOldImages removes images of ours that nothing runs from.
func removeOldImages(ctx context.Context, e *client.Client, keep string) error {
	l, err := e.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("label", image.Label)})
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, i := range l.Items {
		if i.ID == keep {
			continue
		}
		refs := i.RepoTags
		if len(refs) == 0 {
			refs = []string{i.ID}
		}
		for _, ref := range refs {
			if _, err := removeImage(ctx, e, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// newer reports whether version a comes after b: by numbers, a release after
// its pre-releases. Versions that are none, as of builds from a branch, are
// not compared.
func newer(a, b string) bool {
	x, ok := parseVersion(a)
	y, ok2 := parseVersion(b)
	if !ok || !ok2 {
		return false
	}
	if c := slices.Compare([]int{x.major, x.minor, x.patch}, []int{y.major, y.minor, y.patch}); c != 0 {
		return c > 0
	}
	return strings.Contains(b, "-") && !strings.Contains(a, "-")
}
