package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
)

// UpgradeControllersOptions say which controllers are upgraded.
type UpgradeControllersOptions struct {
	// Dir is docker's configuration directory.
	Dir     string
	Profile *Profile
	API     Fellows
	// Engines opens the engine of a controller.
	Engines func(c api.Controller) (*client.Client, error)
	Kit     *Kit
	Now     func() time.Time
	// Plan only says what would be done.
	Plan bool
}

// UpgradeControllers brings a fleet's controllers to the program of a kit, one
// after the other, the leader last: the next one is begun when the last serves
// and its member of etcd votes. What is at the program already is kept. A
// controller that is down stops it before anything is done: the others could
// not be spared.
func UpgradeControllers(ctx context.Context, o UpgradeControllersOptions, progress func(Progress)) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	all, err := o.API.FleetControllers(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if !serves(c) {
			return fmt.Errorf("upgrade controllers: %s is %s: start it or remove it first (docker clocker controller rm --force %s)", c.Name, c.Status, c.Name)
		}
		if newer(c.Version, o.Kit.Version) {
			return fmt.Errorf("upgrade controllers: %s is at %s, this docker-clocker is %s: %w", c.Name, c.Version, o.Kit.Version, ErrOlder)
		}
	}
	engines := map[string]*client.Client{}
	var errs []error
	for _, c := range all {
		if engines[c.Name], err = o.Engines(c); err != nil {
			errs = append(errs, fmt.Errorf("controller %s: %w", c.Name, err))
		}
	}
	if len(errs) > 0 { // before anything is done to the others
		return errors.Join(errs...)
	}
	report := oneAtATime(progress)
	for _, c := range upgradeOrder(all) {
		if err := upgradeController(ctx, o, c, engines[c.Name], report); err != nil {
			return fmt.Errorf("upgrade controller %s: %w", c.Name, err)
		}
	}
	return nil
}

// ErrOlder means that a controller would get an older program than it has.
var ErrOlder = errors.New("older than the controllers: use the newer one, or restore a backup of before")

// upgradeOrder puts those that lead last: nothing is handed over twice.
func upgradeOrder(all []api.Controller) []api.Controller {
	rank := func(c api.Controller) int {
		r := 0
		if c.Etcd != nil && c.Etcd.Leader {
			r = 1
		}
		if c.Status == api.ControllerLeader {
			r = 2
		}
		return r
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(a, b api.Controller) int { return rank(a) - rank(b) })
	return out
}

func upgradeController(ctx context.Context, o UpgradeControllersOptions, c api.Controller, e *client.Client, report func(Progress)) error {
	i := &initiation{
		o: InitOptions{Dir: o.Dir, Name: o.Profile.Name, Endpoint: c.Endpoint, Kit: o.Kit, Now: o.Now},
		e: e, report: func(p Progress) { p.Subject = c.Name; report(p) },
	}
	if there, err := carries(ctx, e, o.Profile.Name, c.Name); err != nil || !there {
		return errors.Join(err, fmt.Errorf("its engine, at %s, does not have it: %w", c.Endpoint, ErrOtherFleet))
	}
	f, err := i.find(ctx)
	if err != nil {
		return err
	}
	if i.machine, err = ask(ctx, e); err != nil {
		return err
	}
	if o.Plan {
		what := "is made anew with " + o.Kit.Version + ", from " + c.Version
		if c.Version == o.Kit.Version {
			what = "is at " + c.Version + ": kept if its image is this one"
		}
		i.say(StepController, Note, "%s", what)
		return nil
	}
	if err := loadImage(ctx, e, o.Kit, i.machine, nil, i.report, c.Name); err != nil {
		return err
	}
	if err := i.readVolumes(ctx, &f); err != nil {
		return err
	}
	if f.config == nil {
		return errors.New("its configuration is not complete: remove it and add it again")
	}
	if err := i.start(ctx, f, *f.config); err != nil {
		return err
	}
	a := &addition{o: ControllerOptions{API: o.API, Engine: e}, i: i}
	if _, err := a.await(ctx, *f.config); err != nil {
		return err
	}
	return a.awaitLeader(ctx)
}

// awaitLeader waits until some controller leads.
func (a *addition) awaitLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for {
		all, err := a.o.API.FleetControllers(ctx)
		if err == nil && slices.ContainsFunc(all, func(c api.Controller) bool { return c.Status == api.ControllerLeader }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(errors.New("no controller leads"), ctx.Err(), err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
