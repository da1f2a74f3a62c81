package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
)

// Destroy takes a whole fleet away: its hosts, its controller with all state,
// and the user's profile. progress may be nil.
//
// Without Force it refuses, with [ErrInUse], while applications run, and stops
// at the first host that cannot be cleaned; with Force it goes on, and what it
// could not reach is said in the progress. It can be repeated.
func Destroy(ctx context.Context, o DestroyOptions, progress func(Progress)) error {
	d := &destruction{o: o, report: oneAtATime(progress)}
	return d.run(ctx)
}

type destruction struct {
	o      DestroyOptions
	report func(Progress)
}

func (d *destruction) say(s Step, st State, format string, args ...any) {
	d.report(Progress{Subject: d.o.Profile.Name, Step: s, State: st, Text: fmt.Sprintf(format, args...)})
}

func (d *destruction) run(ctx context.Context) error {
	name := d.o.Profile.Name
	if d.o.Engine == nil && !d.o.Force {
		return fmt.Errorf("remove fleet %s: the engine of its controller: %w: start it, or forget the fleet with --force", name, ErrUnreachable)
	}
	hosts, err := d.hosts(ctx)
	if err != nil {
		return err
	}
	if d.o.Kit == nil {
		k, err := NewKit(Build{})
		if err != nil {
			return err
		}
		d.o.Kit = k
	}
	others, err := d.controllers(ctx)
	if err != nil {
		return err
	}
	if err := d.allHosts(ctx, hosts); err != nil {
		return err
	}
	if err := d.otherControllers(ctx, others); err != nil {
		return err
	}
	if d.o.Engine != nil {
		c, err := inspect(ctx, d.o.Engine, ControllerContainer)
		if err != nil {
			return err
		}
		if c != nil && label(c, LabelFleet) != name {
			return fmt.Errorf("remove fleet %s: %w: its controller's engine carries fleet %s by now", name, ErrOtherFleet, label(c, LabelFleet))
		}
		if err := removeController(ctx, d.o.Engine); err != nil {
			return err
		}
		if _, err := removeImages(ctx, d.o.Engine); err != nil {
			return err
		}
		d.say(StepController, Done, "controller removed")
	}
	if err := Remove(d.o.Dir, name); err != nil {
		return err
	}
	d.say(StepProfile, Done, "fleet %s is gone", name)
	return nil
}

// controllers lists the fleet's further controllers, with the name by which the
// profile knows their engines: those that the fleet lists, else those that this
// machine remembers.
func (d *destruction) controllers(ctx context.Context) (map[string]api.Controller, error) {
	out := map[string]api.Controller{}
	fellows, ok := d.o.Controller.(Fellows)
	if !ok || d.o.Controller == nil {
		for key, a := range d.o.Profile.Access {
			if name, found := strings.CutPrefix(key, controllerAccess("")); found {
				out[key] = api.Controller{Name: name, Endpoint: a.Endpoint}
			}
		}
		return out, nil
	}
	all, err := fellows.FleetControllers(ctx)
	if err != nil {
		return nil, fmt.Errorf("remove fleet %s: %w", d.o.Profile.Name, err)
	}
	for _, c := range all {
		key := controllerAccess(c.Name)
		if _, known := d.o.Profile.Access[key]; !known {
			key = c.Host
		}
		if key != "" {
			out[key] = c
		}
	}
	return out, nil
}

// otherControllers takes the further controllers away; the one on the fleet's
// own engine comes last.
func (d *destruction) otherControllers(ctx context.Context, all map[string]api.Controller) error {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if err := d.otherController(ctx, key, all[key]); err != nil {
			errs = append(errs, fmt.Errorf("remove controller %s: %w", all[key].Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil && !d.o.Force {
		return err
	}
	for _, err := range errs {
		d.say(StepController, Note, "%v", err)
	}
	return nil
}

func (d *destruction) otherController(ctx context.Context, key string, c api.Controller) error {
	if d.o.Engines == nil {
		return ErrUnreachable
	}
	e, err := d.o.Engines(key, c.Endpoint)
	if err != nil {
		return err
	}
	if d.o.Engine != nil {
		own, err := d.o.Engine.Info(ctx, client.InfoOptions{})
		if err != nil {
			return err
		}
		there, err := e.Info(ctx, client.InfoOptions{})
		if err != nil {
			return err
		}
		if own.Info.ID == there.Info.ID {
			return nil // its turn comes
		}
	}
	there, err := carries(ctx, e, d.o.Profile.Name, c.Name)
	if err != nil || !there {
		return err
	}
	if err := removeController(ctx, e); err != nil {
		return err
	}
	if _, err := removeImages(ctx, e); err != nil {
		return err
	}
	d.say(StepController, Done, "controller %s removed", c.Name)
	return nil
}

// allHosts cleans every host at the same time.
func (d *destruction) allHosts(ctx context.Context, hosts map[string]string) error {
	names := slices.Sorted(maps.Keys(hosts))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { errs[i] = d.host(ctx, name, hosts[name]) })
	}
	wg.Wait()
	if !d.o.Force {
		return errors.Join(errs...)
	}
	for i, err := range errs {
		if err != nil {
			d.say(StepClean, Note, "host %s is not clean: %v", names[i], err)
		}
	}
	return nil
}

// hosts returns the endpoints of the fleet's hosts: those the controller
// lists, else those this machine remembers.
func (d *destruction) hosts(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	if d.o.Controller == nil {
		if !d.o.Force {
			return nil, fmt.Errorf("remove fleet %s: its controller does not answer: start it, or use --force", d.o.Profile.Name)
		}
		for name, a := range d.o.Profile.Access {
			if name != "" && !strings.HasPrefix(name, controllerAccess("")) {
				out[name] = a.Endpoint
			}
		}
		return out, nil
	}
	info, err := d.o.Controller.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("remove fleet %s: %w", d.o.Profile.Name, err)
	}
	if info.Apps > 0 && !d.o.Force {
		return nil, fmt.Errorf("remove fleet %s: %w: %d applications run in it: remove them first (docker clocker ls), or use --force", d.o.Profile.Name, ErrInUse, info.Apps)
	}
	hosts, err := d.o.Controller.Hosts(ctx)
	if err != nil {
		return nil, fmt.Errorf("remove fleet %s: %w", d.o.Profile.Name, err)
	}
	for _, h := range hosts {
		out[h.Name] = h.Endpoint
	}
	return out, nil
}

func (d *destruction) host(ctx context.Context, name, endpoint string) error {
	var e *client.Client
	var unreachable error
	if d.o.Engines == nil {
		unreachable = errors.New("no way to it is known")
	} else if e, unreachable = d.o.Engines(name, endpoint); unreachable == nil {
		defer func() { _ = e.Close() }() // all is done by then
	}
	if unreachable != nil && !d.o.Force {
		return fmt.Errorf("remove host %s: %w: start it, or use --force: %w", name, ErrUnreachable, unreachable)
	}
	// The hosts go one by one until none is left, so force is right here:
	// what it guards was checked for the fleet as a whole.
	return RemoveHost(ctx, RemoveOptions{
		Controller: d.o.Controller, Fleet: d.o.Profile.Name, Name: name, Engine: e, Unreachable: unreachable,
		Force: true, Kit: d.o.Kit,
	}, d.report)
}
