package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// RemoveControllerOptions say which controller leaves a fleet.
type RemoveControllerOptions struct {
	// Dir is docker's configuration directory.
	Dir   string
	Fleet string
	API   Fellows
	Name  string
	// Engine is the controller's; nil when it does not answer: then
	// Unreachable says why, and Force is needed.
	Engine      *client.Client
	Unreachable error
	// Force gives up a controller that does not answer.
	Force bool
}

// RemoveController takes a controller out of a fleet: out of etcd and the list
// of controllers first, then container and volumes. It can be repeated.
func RemoveController(ctx context.Context, o RemoveControllerOptions, progress func(Progress)) error {
	report := oneAtATime(progress)
	say := func(s Step, st State, format string, args ...any) {
		report(Progress{Subject: o.Fleet, Step: s, State: st, Text: fmt.Sprintf(format, args...)})
	}
	if o.Engine == nil && !o.Force {
		return fmt.Errorf("remove controller %s: %w: start it, or give the controller up with --force: %w", o.Name, ErrUnreachable, o.Unreachable)
	}
	c, err := o.API.FleetController(ctx, o.Name)
	gone := errors.Is(err, api.ErrNotFound)
	if err != nil && !gone {
		return err
	}
	there := false
	if o.Engine != nil {
		if there, err = carries(ctx, o.Engine, o.Fleet, o.Name); err != nil {
			return err
		}
	}
	if gone && !there {
		return noController(o.Name, o.Fleet)
	}
	if !gone {
		if err := removeFellow(ctx, o); err != nil {
			return err
		}
		say(StepMember, Done, "controller %s is out of the fleet", o.Name)
	}
	switch {
	case there:
		if err := removeController(ctx, o.Engine); err != nil {
			return err
		}
		if agent, err := inspect(ctx, o.Engine, AgentContainer); err == nil && agent == nil {
			if _, err := removeImages(ctx, o.Engine); err != nil {
				return err
			}
		}
		say(StepClean, Done, "container and volumes removed")
	case o.Engine == nil:
		say(StepClean, Note, "its engine does not answer: should it come back, remove container %s and volumes %s and %s there", ControllerContainer, DataVolume, ConfigVolume)
	}
	return forgetController(o.Dir, o.Fleet, o.Name, c.URL)
}

func noController(name, fleet string) error {
	return fmt.Errorf("fleet %s has no controller %s: %w", fleet, name, api.ErrNotFound)
}

// removeFellow asks the fleet. A controller that is removed ends at once, and
// the answer with it when the request went through it.
func removeFellow(ctx context.Context, o RemoveControllerOptions) error {
	for attempt := 0; ; attempt++ {
		err := o.API.RemoveController(ctx, o.Name, o.Force)
		switch {
		case err == nil, attempt > 0 && errors.Is(err, api.ErrNotFound):
			return nil
		case attempt < 5 && errors.Is(err, api.ErrLost):
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// carries reports whether an engine has this very controller.
func carries(ctx context.Context, e *client.Client, fleet, name string) (bool, error) {
	c, err := inspect(ctx, e, ControllerContainer)
	if err != nil || c == nil || label(c, LabelFleet) != fleet {
		return false, err
	}
	b, err := get(ctx, e, ControllerContainer, controllerconfig.ConfigDir+"/"+controllerconfig.File)
	if err != nil {
		return false, err
	}
	cfg, err := controllerconfig.Parse(b)
	if err != nil {
		return false, err
	}
	return cfg.Name == name, nil
}

// RecoverOptions say which controller goes on alone.
type RecoverOptions struct {
	// Dir is docker's configuration directory.
	Dir     string
	Profile *Profile
	// Engine is the surviving controller's.
	Engine *client.Client
	Access Access
	// ID names this recovery.
	ID  string
	Now func() time.Time
}

// RecoverController makes one surviving controller go on alone after the
// majority was lost for good: its member of etcd forgets the others. It can be
// repeated. The others must never come back with their old data.
func RecoverController(ctx context.Context, o RecoverOptions, progress func(Progress)) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	i := &initiation{o: InitOptions{Dir: o.Dir, Name: o.Profile.Name, Now: o.Now}, e: o.Engine, report: oneAtATime(progress)}
	c, err := inspect(ctx, o.Engine, ControllerContainer)
	if err != nil {
		return err
	}
	if c == nil || label(c, LabelFleet) != o.Profile.Name {
		return fmt.Errorf("recover fleet %s: %w: the engine has no controller of it", o.Profile.Name, ErrOtherFleet)
	}
	text, err := get(ctx, o.Engine, ControllerContainer, controllerconfig.ConfigDir+"/"+controllerconfig.File)
	if err != nil {
		return err
	}
	cfg, err := controllerconfig.Parse(text)
	if err != nil {
		return err
	}
	if len(cfg.Etcd) > 0 {
		return fmt.Errorf("recover fleet %s: it uses an etcd cluster of your own: recover that one", o.Profile.Name)
	}
	if err := stopContainer(ctx, o.Engine, ControllerContainer, 10); err != nil {
		return err
	}
	i.say(StepController, Done, "controller %s stopped", cfg.Name)
	order, err := json.Marshal(controllerconfig.Restore{ID: o.ID, At: o.Now().UTC()})
	if err != nil {
		return fmt.Errorf("write order: %w", err)
	}
	if err := put(ctx, o.Engine, ControllerContainer, controllerconfig.DataDir, map[string]file{controllerconfig.RecoverFile: {order, 0o600}}, o.Now()); err != nil {
		return err
	}
	if err := i.startContainer(ctx); err != nil {
		return err
	}
	p := *o.Profile
	p.Controllers = []string{controllerURL(*cfg)}
	if err := i.awaitNew(ctx, &p); err != nil {
		return err
	}
	i.say(StepMember, Done, "controller %s goes on alone", cfg.Name)
	return settleProfile(o.Dir, &p, cfg.Name, o.Access)
}

// awaitNew waits until the only controller of a profile answers.
func (i *initiation) awaitNew(ctx context.Context, p *Profile) error {
	c, err := p.Client()
	if err != nil {
		return err
	}
	defer c.Close()
	return i.awaitAnswer(ctx, c, p)
}

// settleProfile saves a profile whose only controller is the named one.
func settleProfile(dir string, p *Profile, name string, a Access) error {
	unlock, err := lock(dir, true)
	if err != nil {
		return err
	}
	defer unlock()
	if p.Access == nil {
		p.Access = map[string]Access{}
	}
	p.Access[""], p.Access[controllerAccess(name)] = a, a
	return p.Save(dir)
}
