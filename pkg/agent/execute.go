package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"clocker.io/clocker/pkg/engine"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// execution carries out one action. It is made by the loop and knows all it
// needs; run touches nothing of the loop's.
type execution struct {
	action
	identity
	// assigned is the zero value for a task that is assigned no more.
	assigned assigned
	// name is the container's name, for messages.
	name   string
	claims claims
	engine Engine
	nets   *networks
	images *once
	slots  chan struct{}
	host   hostCheck
	fence  *fence
	look   func(ctx context.Context, id string) (engine.Container, error)
}

// result is what an action came to.
type result struct {
	// container is what the engine says about it now; nil when not asked.
	container *engine.Container
	// gone is the id of a container that was removed.
	gone string
	err  error
	// fatal means that trying again without a change cannot help.
	fatal bool
}

func (l *loop) execution(a action) *execution {
	x := &execution{
		action: a, identity: l.identity, assigned: l.assigned[a.Task],
		engine: l.engine, nets: l.nets, images: l.images, slots: l.slots, host: l.host, fence: l.fence,
		look: func(ctx context.Context, id string) (engine.Container, error) {
			at := l.now()
			c, err := l.engine.Container(ctx, id)
			c.SeenAt = at
			return c, err
		},
	}
	x.name = x.assigned.Container.Name
	if c, ok := l.containers[a.Container]; ok {
		x.name = c.Name
	}
	if a.Verb == doPrepare {
		x.claims = claim(x.assigned, l.claimants(), values(l.containers))
	}
	return x
}

// claimants are the assignments that may hold ports: those that cannot be
// prepared never will.
func (l *loop) claimants() map[string]assigned {
	out := make(map[string]assigned, len(l.assigned))
	for t, a := range l.assigned {
		f := l.tasks[t].Failure
		if a.Phase != record.PhasePrepare || !f.Fatal || f.Revision != a.Revision {
			out[t] = a
		}
	}
	return out
}

func (x *execution) run(ctx context.Context) result {
	switch x.Verb {
	case doPrepare:
		return x.prepare(ctx)
	case doCreate:
		return x.create(ctx)
	case doStart:
		return x.act(ctx, x.engine.Start)
	case doRestart:
		return x.act(ctx, x.engine.Restart)
	case doStop:
		return x.act(ctx, x.engine.Stop)
	case doRemove:
		return x.remove(ctx)
	}
	return result{err: fmt.Errorf("carry out %q: unknown action", x.Verb), fatal: true}
}

// prepare sees to it that what can be known to fail fails now, before anything
// is made.
func (x *execution) prepare(ctx context.Context) result {
	if err := x.host.mounts(x.assigned.Container.Mounts); err != nil {
		return result{err: err, fatal: true}
	}
	if err := x.host.resources(x.assigned.Container.Resources); err != nil {
		return result{err: err, fatal: true}
	}
	if x.claims.err != nil {
		return result{err: x.claims.err, fatal: x.claims.fatal}
	}
	if err := x.host.ports(ctx, x.assigned.Container.Ports, x.claims.held); err != nil {
		return result{err: err, fatal: true}
	}
	if err := x.nameFree(ctx); err != nil {
		return result{err: err, fatal: errors.Is(err, errForeign)}
	}
	err := x.image(ctx)
	return result{err: err, fatal: errors.Is(err, engine.ErrImage) || errors.Is(err, engine.ErrInvalid)}
}

func (x *execution) image(ctx context.Context) error {
	ref, on := x.assigned.Container.Image, x.assigned.Container.Platform
	return x.images.do(ctx, ref+" "+on, func(ctx context.Context) error {
		_, err := x.engine.EnsureImage(ctx, ref, on)
		return err
	})
}

// errForeign means that a container which is not Clocker's has the name.
var errForeign = errors.New("the name is taken by a container that is not Clocker's: remove or rename it")

// nameFree reports an error when a container of somebody else's has the name.
func (x *execution) nameFree(ctx context.Context) error {
	c, err := x.engine.Container(ctx, x.assigned.Container.Name)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		return nil
	case err != nil:
		return err
	case c.Labels[engine.LabelFleet] == x.Fleet && c.Labels[engine.LabelTask] != "":
		return nil // it is removed before the new one is made
	}
	return fmt.Errorf("make container %s: %w", x.assigned.Container.Name, errForeign)
}

// create makes and starts the container. It asks the engine three things:
// create, start, inspect; the image is looked for only when the engine misses
// it.
func (x *execution) create(ctx context.Context) result {
	networks, err := x.nets.ensure(ctx, x.assigned.Container.Networks)
	if err != nil {
		return result{err: err, fatal: errors.Is(err, errNetworkTaken)}
	}
	release, err := x.slot(ctx)
	if err != nil {
		return result{err: err}
	}
	defer func() { release() }()
	r := x.request(networks)
	id, err := x.engine.Create(ctx, r)
	if errors.Is(err, engine.ErrNotFound) {
		// The image was removed, or a network was: both are made sure of
		// again, without a slot since a pull may take long.
		release()
		release = func() {}
		if err := x.image(ctx); err != nil {
			return result{err: err, fatal: errors.Is(err, engine.ErrImage)}
		}
		x.nets.recheck(ctx, x.assigned.Container.Networks)
		if _, err = x.nets.ensure(ctx, x.assigned.Container.Networks); err != nil {
			return result{err: err, fatal: errors.Is(err, errNetworkTaken)}
		}
		id, err = x.engine.Create(ctx, r)
	}
	switch {
	case errors.Is(err, engine.ErrConflict):
		if taken := x.nameFree(ctx); taken != nil {
			return result{err: taken, fatal: errors.Is(taken, errForeign)}
		}
		return result{err: err}
	case err != nil:
		return result{err: err, fatal: errors.Is(err, engine.ErrInvalid)}
	}
	x.Container = id
	return x.start(ctx, x.engine.Start)
}

func (x *execution) request(networks []string) engine.ContainerRequest {
	a := x.assigned
	dns, search := resolver(x.nets.joined(a.Container.Networks))
	r := engine.ContainerRequest{
		Spec: a.Container, Networks: networks, DNS: dns, DNSSearch: search,
		Labels: map[string]string{
			engine.LabelFleet: x.Fleet, engine.LabelApp: a.App, engine.LabelService: a.Service,
			engine.LabelSlot: fmt.Sprint(a.Slot), engine.LabelTask: a.Task, engine.LabelHash: a.Hash,
		},
	}
	r.Spec.Labels = maps.Clone(a.Container.Labels)
	// A label that says "this is Clocker's own" would hide the container
	// from the agent.
	delete(r.Spec.Labels, engine.LabelSystem)
	if f := a.Container.Fence; f > 0 {
		// The engine would start it after a reboot, when it may run elsewhere.
		r.Spec.Restart = model.Restart{}
		r.Labels[engine.LabelFence] = f.String()
	}
	return r
}

// resolver says which addresses containers on the given networks ask, in
// families that they have, and which domains they try. Servers of the networks'
// own are asked by us.
func resolver(nets []record.Network) (servers []netip.Addr, search []string) {
	v4, v6 := len(nets) == 0, false
	for _, n := range nets {
		v4, v6 = v4 || n.Subnet != "", v6 || n.Subnet6 != ""
		for _, d := range n.DNSSearch {
			if !slices.Contains(search, d) {
				search = append(search, d)
			}
		}
	}
	if v4 || !v6 {
		return []netip.Addr{netip.MustParseAddr(hostconfig.DNSAddress)}, search
	}
	return []netip.Addr{netip.MustParseAddr(hostconfig.DNSAddress6)}, search
}

// act does something to the container that takes one call, and looks at what
// came of it.
func (x *execution) act(ctx context.Context, f func(context.Context, string) error) result {
	release, err := x.slot(ctx)
	if err != nil {
		return result{err: err}
	}
	defer release()
	return x.start(ctx, f)
}

func (x *execution) start(ctx context.Context, f func(context.Context, string) error) result {
	err := x.fenced(ctx, f)
	r := result{err: err, fatal: errors.Is(err, engine.ErrCommand) || errors.Is(err, engine.ErrPort) || errors.Is(err, engine.ErrInvalid)}
	c, lookErr := x.look(ctx, x.Container)
	switch {
	case errors.Is(lookErr, engine.ErrNotFound):
		r.gone, r.fatal = x.Container, false
		r.err = errors.Join(err, lookErr)
	case lookErr != nil:
		r.err = errors.Join(err, lookErr)
	default:
		r.container = &c
	}
	return r
}

// fenced starts what has a fence only if it may.
func (x *execution) fenced(ctx context.Context, f func(context.Context, string) error) error {
	bound := x.assigned.Container.Fence
	if bound == 0 || x.Verb == doStop {
		return f(ctx, x.Container)
	}
	if x.fence == nil {
		return fmt.Errorf("nothing guards this host: %w", errFence)
	}
	lapses, err := x.fence.permit(ctx, x.Task, bound)
	if err != nil {
		return err
	}
	err = f(ctx, x.Container)
	// Whatever the engine says: it may run.
	return errors.Join(err, x.fence.started(ctx, x.Container, bound, lapses))
}

// remove stops the container, with its grace period, and takes it away.
func (x *execution) remove(ctx context.Context) result {
	// Not bounded by slots: waiting for a container to end costs the engine
	// nothing, and may take long.
	if err := x.engine.Stop(ctx, x.Container); err != nil && !errors.Is(err, engine.ErrNotFound) {
		return result{err: err}
	}
	if err := x.engine.Remove(ctx, x.Container); err != nil {
		return result{err: err}
	}
	return result{gone: x.Container}
}

// slot waits for a turn at the engine. release may be called more than once.
func (x *execution) slot(ctx context.Context) (release func(), err error) {
	select {
	case x.slots <- struct{}{}:
		given := false
		return func() {
			if !given {
				given = true
				<-x.slots
			}
		}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
