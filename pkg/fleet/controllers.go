package fleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// Fellows is the part of a controller's API that adding and removing
// controllers needs; [api.Client] is one.
type Fellows interface {
	FleetControllers(ctx context.Context) ([]api.Controller, error)
	FleetController(ctx context.Context, name string) (api.Controller, error)
	AddController(ctx context.Context, r api.ControllerRequest) (api.ControllerPlace, error)
	RemoveController(ctx context.Context, name string, force bool) error
}

var _ Fellows = (*api.Client)(nil)

// ControllerOptions say which engine gets a further controller.
type ControllerOptions struct {
	// Dir is docker's configuration directory.
	Dir     string
	Profile *Profile
	API     Fellows
	// Engine is where the controller is to run, Endpoint and Access how the
	// user reaches it; Host is the fleet's host on that engine, if it is one.
	Engine   *client.Client
	Endpoint string
	Access   Access
	Host     string
	// Source is the engine of a controller that is there: the authority is
	// carried over from it.
	Source *client.Client
	// Name is the controller's name, empty for the machine's; Advertise its
	// address, empty for a chosen one.
	Name, Advertise string
	Kit             *Kit
	Now             func() time.Time
}

// AddController makes a further controller of a fleet and returns it once it
// serves and its member of etcd votes.
//
// It can be repeated: what is there is kept, what an interrupted run left is
// finished or made anew. On an error, ^C included, what this run made is taken
// back, the member of etcd included: as a learner, it never counted for any
// majority.
func AddController(ctx context.Context, o ControllerOptions, progress func(Progress)) (api.Controller, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Kit == nil {
		k, err := NewKit(Build{})
		if err != nil {
			return api.Controller{}, err
		}
		o.Kit = k
	}
	a := &addition{o: o, i: &initiation{
		o: InitOptions{Dir: o.Dir, Name: o.Profile.Name, Endpoint: o.Endpoint, Advertise: o.Advertise, Kit: o.Kit, Now: o.Now},
		e: o.Engine, report: oneAtATime(progress),
	}}
	c, err := a.run(ctx)
	if err != nil {
		return api.Controller{}, a.i.undo.run(ctx, err, a.i.report, o.Profile.Name)
	}
	return c, nil
}

// addition is one run of AddController.
type addition struct {
	o ControllerOptions
	i *initiation
}

func (a *addition) run(ctx context.Context) (api.Controller, error) {
	var none api.Controller
	if err := sweep(ctx, a.o.Engine, a.o.Now(), false); err != nil {
		return none, err
	}
	f, err := a.i.find(ctx)
	if err != nil {
		return none, err
	}
	if err := a.i.prepare(ctx, f); err != nil {
		return none, err
	}
	if f.volumes {
		if err := a.i.readVolumes(ctx, &f); err != nil {
			return none, err
		}
	}
	if f.config != nil {
		if f, err = a.leftover(ctx, f); err != nil {
			return none, err
		}
	}
	var cfg controllerconfig.Config
	if f.config != nil {
		cfg = *f.config
		if err := a.i.start(ctx, f, cfg); err != nil {
			return none, err
		}
	} else {
		if f.volumes || f.container != nil {
			a.i.say(StepController, Note, "an earlier attempt was interrupted: starting again")
			if err := removeController(ctx, a.o.Engine); err != nil {
				return none, err
			}
		}
		if cfg, err = a.create(ctx); err != nil {
			return none, err
		}
	}
	c, err := a.await(ctx, cfg)
	if err != nil {
		return none, err
	}
	return c, rememberController(a.o.Dir, a.o.Profile.Name, cfg.Name, controllerURL(cfg), a.o.Access)
}

// leftover decides whether the controller that is on the engine is one of the
// fleet by now; what is left of one that was removed goes.
func (a *addition) leftover(ctx context.Context, f found) (found, error) {
	name := f.config.Name
	if a.o.Name != "" && a.o.Name != name {
		return f, fmt.Errorf("%s: %w: the engine carries controller %s of this fleet already", a.i.subject(), ErrInUse, name)
	}
	_, err := a.o.API.FleetController(ctx, name)
	if errors.Is(err, api.ErrNotFound) {
		a.i.say(StepController, Note, "controller %s was removed from the fleet: starting again", name)
		if err := removeController(ctx, a.o.Engine); err != nil {
			return f, err
		}
		return found{}, nil
	}
	return f, err
}

// create makes the controller: its place in the fleet first, then itself.
func (a *addition) create(ctx context.Context) (controllerconfig.Config, error) {
	var cfg controllerconfig.Config
	facts := a.i.machine.facts
	advertise, err := ChooseAddress(ctx, a.o.Advertise, a.o.Endpoint, facts, true, net.DefaultResolver)
	if err != nil {
		return cfg, err
	}
	source, sealed, etcd, err := readSource(ctx, a.o.Source, a.o.Profile.Name)
	if err != nil {
		return cfg, err
	}
	cfg = *source
	cfg.Advertise, cfg.Host, cfg.Endpoint, cfg.Cluster = advertise, a.o.Host, a.o.Endpoint, ""
	cfg.CreatedAt = a.o.Now().UTC().Truncate(time.Second)
	if cfg.Name = a.o.Name; cfg.Name == "" {
		if cfg.Name = a.o.Host; cfg.Name == "" {
			cfg.Name = HostName(facts.Hostname)
		}
	}
	if err := CheckName("controller", cfg.Name); err != nil {
		return cfg, fmt.Errorf("%w: give one with --name", err)
	}
	cfg.SANs = a.i.sans(advertise, cfg.Name)
	authority, err := sealed.Open(a.o.Now)
	if err != nil {
		return cfg, err
	}
	place, err := a.register(ctx, cfg)
	if err != nil {
		return cfg, err
	}
	cfg.Cluster = place.Cluster
	files, err := controllerFiles(authority, *sealed, cfg, etcd)
	if err != nil {
		return cfg, err
	}
	a.i.say(StepCertificate, Done, "certificates made by the fleet's authority")
	if err := a.i.install(ctx, cfg, files, map[string]file{ca.SealedKeyFile: {sealed.Key, 0o600}}); err != nil {
		return cfg, err
	}
	a.i.say(StepController, Done, "controller %s started on %s", cfg.Name, facts.Hostname)
	return cfg, nil
}

// register gives the controller its place in the fleet.
func (a *addition) register(ctx context.Context, cfg controllerconfig.Config) (api.ControllerPlace, error) {
	r := api.ControllerRequest{
		Name: cfg.Name, Host: cfg.Host, Endpoint: cfg.Endpoint, Address: cfg.Advertise, URL: controllerURL(cfg),
	}
	if len(cfg.Etcd) == 0 {
		r.EtcdURL = "https://" + net.JoinHostPort(cfg.Advertise, strconv.Itoa(cfg.EtcdPort))
		r.PeerURL = "https://" + net.JoinHostPort(cfg.Advertise, strconv.Itoa(cfg.EtcdPeerPort))
	}
	if _, err := a.o.API.FleetController(ctx, cfg.Name); errors.Is(err, api.ErrNotFound) {
		// The place may have been given even when its answer is lost.
		a.i.undo.add("place in the fleet", func(ctx context.Context) error {
			err := a.o.API.RemoveController(ctx, cfg.Name, true)
			if errors.Is(err, api.ErrNotFound) {
				return nil
			}
			return err
		})
	} else if err != nil {
		return api.ControllerPlace{}, err
	}
	place, err := a.o.API.AddController(ctx, r)
	if err != nil {
		return place, err
	}
	a.i.say(StepMember, Done, "controller %s has its place in the fleet", cfg.Name)
	for _, w := range place.Warnings {
		a.i.say(StepMember, Note, "%s", w)
	}
	return place, nil
}

// joinTime is how long a new controller may take until it votes: it has to
// fetch all of etcd's data first.
const joinTime = 3 * time.Minute

// await waits until the fleet sees the controller up, and voting.
func (a *addition) await(ctx context.Context, cfg controllerconfig.Config) (api.Controller, error) {
	a.i.say(StepMember, Doing, "waiting for controller %s to catch up", cfg.Name)
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	var last api.Controller
	var failed error
	for n := 0; ; n++ {
		c, err := a.o.API.FleetController(ctx, cfg.Name)
		switch {
		case err == nil && serves(c):
			a.i.say(StepMember, Done, "controller %s serves at %s", c.Name, c.URL)
			return c, nil
		case err == nil:
			last, failed = c, nil
		case ctx.Err() == nil: // else it says nothing but that
			failed = err
		}
		if n%10 == 9 {
			if ended := ending(ctx, a.o.Engine, ControllerContainer); ended != nil {
				return c, fmt.Errorf("wait for controller %s: %w", cfg.Name, ended)
			}
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return c, ctx.Err()
			}
			return c, fmt.Errorf("wait for controller %s: it is %s after %s: can the controllers reach each other's ports %d, %d and %d? %w",
				cfg.Name, standing(last), joinTime, cfg.APIPort, cfg.EtcdPort, cfg.EtcdPeerPort,
				errors.Join(failed, errors.New(lastWords(context.WithoutCancel(ctx), a.o.Engine, ControllerContainer))))
		case <-t.C:
		}
	}
}

// standing is in words how far a new controller has come.
func standing(c api.Controller) string {
	if c.Etcd == nil {
		return c.Status
	}
	text := fmt.Sprintf("%s, its member of etcd %s", c.Status, c.Etcd.State)
	if c.Etcd.Error != "" {
		text += " (" + c.Etcd.Error + ")"
	}
	return text
}

// serves reports whether a controller is up and its member of etcd votes.
func serves(c api.Controller) bool {
	up := c.Status == api.ControllerLeader || c.Status == api.ControllerStandby
	return up && (c.Etcd == nil || c.Etcd.State == api.MemberVoter && c.Etcd.Healthy)
}

// readSource reads configuration and authority of a controller on another
// engine. They pass through this machine's memory, as when the fleet was made,
// and no API hands them out: who may use a controller's engine has them anyway.
func readSource(ctx context.Context, e *client.Client, fleet string) (*controllerconfig.Config, *ca.Sealed, *EtcdCluster, error) {
	c, err := inspect(ctx, e, ControllerContainer)
	if err != nil {
		return nil, nil, nil, err
	}
	if c == nil || label(c, LabelFleet) != fleet {
		return nil, nil, nil, fmt.Errorf("read authority: the engine has no controller of fleet %s: name one that has with --from", fleet)
	}
	s := &ca.Sealed{}
	etcd := &EtcdCluster{}
	var text []byte
	for _, part := range []struct {
		name     string
		data     *[]byte
		optional bool
	}{
		{controllerconfig.ConfigDir + "/" + controllerconfig.File, &text, false},
		{controllerconfig.ConfigDir + "/" + ca.CertificateFile, &s.Certificate, false},
		{controllerconfig.ConfigDir + "/" + ca.IdentityFile, &s.Identity, false},
		{controllerconfig.DataDir + "/" + ca.SealedKeyFile, &s.Key, false},
		{controllerconfig.ConfigDir + "/" + controllerconfig.EtcdCAFile, &etcd.CA, true},
		{controllerconfig.ConfigDir + "/" + controllerconfig.EtcdCertFile, &etcd.Cert, true},
		{controllerconfig.ConfigDir + "/" + controllerconfig.EtcdKeyFile, &etcd.Key, true},
	} {
		b, err := get(ctx, e, ControllerContainer, part.name)
		if part.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, nil, fmt.Errorf("read authority: %w", err)
		}
		*part.data = b
	}
	cfg, err := controllerconfig.Parse(text)
	if err != nil {
		return nil, nil, nil, err
	}
	if len(cfg.Etcd) == 0 {
		etcd = nil
	} else {
		etcd.Endpoints = cfg.Etcd
	}
	return cfg, s, etcd, nil
}

// controllerAccess is the key of a further controller's engine in a profile's
// Access; no host can have that name.
func controllerAccess(name string) string { return "controller:" + name }

// AccessOf tells how the engine of a controller is reached from this machine,
// as far as the profile knows.
func (p *Profile) AccessOf(c api.Controller) (Access, bool) {
	if a, ok := p.Access[controllerAccess(c.Name)]; ok {
		return a, true
	}
	if c.Host != "" {
		if a, ok := p.Access[c.Host]; ok {
			return a, true
		}
	}
	a, ok := p.Access[""]
	return a, ok && c.Endpoint != "" && a.Endpoint == c.Endpoint
}

// rememberController adds a controller to the profile as it is by now.
func rememberController(dir, fleet, name, url string, a Access) error {
	unlock, err := lock(dir, true)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := Open(dir, fleet)
	if err != nil {
		return err
	}
	if !slices.Contains(p.Controllers, url) {
		p.Controllers = append(p.Controllers, url)
	}
	if p.Access == nil {
		p.Access = map[string]Access{}
	}
	p.Access[controllerAccess(name)] = a
	return p.Save(dir)
}

// forgetController drops a controller from the profile; without a URL only how
// its engine is reached.
func forgetController(dir, fleet, name, url string) error {
	unlock, err := lock(dir, true)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := Open(dir, fleet)
	if err != nil {
		return err
	}
	p.Controllers = slices.DeleteFunc(p.Controllers, func(u string) bool { return strings.TrimRight(u, "/") == url && len(p.Controllers) > 1 })
	delete(p.Access, controllerAccess(name))
	return p.Save(dir)
}

// LearnControllers brings the profile's list of controllers to what the fleet
// says: others may have been added or removed from another machine.
func LearnControllers(dir string, p *Profile, all []api.Controller) error {
	var urls []string
	for _, c := range all {
		if c.Status != api.ControllerJoining {
			urls = append(urls, c.URL)
		}
	}
	if len(urls) == 0 {
		return nil
	}
	was := slices.Sorted(slices.Values(p.Controllers))
	slices.Sort(urls)
	if slices.Equal(was, urls) {
		return nil
	}
	unlock, err := lock(dir, true)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := Open(dir, p.Name)
	if err != nil {
		return err
	}
	now.Controllers, p.Controllers = urls, urls
	return now.Save(dir)
}
