package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// answerTime is how long a controller may take to answer once started: etcd
// on a slow disk elects itself in seconds.
const answerTime = 60 * time.Second

// Init makes a fleet: a controller on the given engine and, unless
// ControllerOnly, that engine as the first host. It writes the profile into
// o.Dir, makes it the current one and returns it. progress may be nil.
//
// It can be repeated: what is there is kept, what is missing is made, what an
// interrupted run left is finished or taken away, and a lost profile is made
// anew from the controller's own files. An engine that carries another fleet
// is refused with [ErrOtherFleet]; everything else that speaks against it
// comes at once, as [*Problems]. On an error, ^C included, what this run made
// is taken back.
func Init(ctx context.Context, o InitOptions, progress func(Progress)) (*Profile, error) {
	if progress == nil {
		progress = func(Progress) {}
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.User == "" {
		o.User = "admin"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Connect == nil {
		o.Connect = func(p *Profile) (Controller, error) { return p.Client() }
	}
	o.Access.Endpoint = o.Endpoint
	if err := CheckName("fleet", o.Name); err != nil {
		return nil, err
	}
	if o.Kit == nil {
		k, err := NewKit(Build{})
		if err != nil {
			return nil, err
		}
		o.Kit = k
	}
	if o.Kit.pluginErr != nil && !o.ControllerOnly {
		return nil, o.Kit.pluginErr
	}
	unlock, err := lock(o.Dir, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	i := &initiation{o: o, e: o.Engine, report: progress}
	p, err := i.run(ctx)
	if err != nil {
		return nil, i.undo.run(ctx, err, progress, o.Name)
	}
	return p, nil
}

// initiation is one run of Init.
type initiation struct {
	o       InitOptions
	e       *client.Client
	report  func(Progress)
	undo    undo
	machine *machine
}

func (i *initiation) say(s Step, st State, format string, args ...any) {
	i.report(Progress{Subject: i.o.Name, Step: s, State: st, Text: fmt.Sprintf(format, args...)})
}

func (i *initiation) run(ctx context.Context) (*Profile, error) {
	if err := sweep(ctx, i.e, i.o.Now(), false); err != nil {
		return nil, err
	}
	found, err := i.find(ctx)
	if err != nil {
		return nil, err
	}
	if err := i.prepare(ctx, found); err != nil {
		return nil, err
	}
	p, err := i.controller(ctx, found)
	if err != nil {
		return nil, err
	}
	c, err := i.o.Connect(p)
	if err != nil {
		return nil, err
	}
	if err := i.awaitAnswer(ctx, c, p); err != nil {
		return nil, err
	}
	if !i.o.ControllerOnly {
		h, err := AddHost(ctx, AddOptions{
			Controller: c, Fleet: i.o.Name, CA: p.CA, Engine: i.e, Endpoint: i.o.Endpoint,
			Name: i.o.HostName, Address: i.hostAddress(), Labels: i.o.Labels, Kit: i.o.Kit, Now: i.o.Now,
		}, i.report)
		if err != nil {
			return nil, err
		}
		p.Access[h.Name] = i.o.Access
	}
	p.Making = false
	if err := p.Save(i.o.Dir); err != nil {
		return nil, err
	}
	if err := Use(i.o.Dir, p.Name); err != nil {
		return nil, err
	}
	i.say(StepProfile, Done, "fleet %s is ready, at %s", p.Name, p.Controllers[0])
	return p, nil
}

// hostAddress is the address that the first host is asked to have: that of
// the controller, when it was chosen by hand and is the machine's own.
func (i *initiation) hostAddress() string {
	for _, a := range i.machine.facts.Addresses {
		if a.Address.Addr().String() == i.o.Advertise {
			return i.o.Advertise
		}
	}
	return ""
}

// prepare loads the image, looks at the machine and finds every problem at
// once. A controller that is there already holds its ports rightly.
func (i *initiation) prepare(ctx context.Context, found found) error {
	m, err := ask(ctx, i.e)
	if err != nil {
		return err
	}
	i.machine = m
	problems := checkEngine(m.version.Version, m.version.Os, m.info)
	if err := i.o.Kit.Image.CheckArchitecture(m.version.Os, m.version.Arch); err != nil {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		return &Problems{Subject: i.subject(), List: problems}
	}
	if err := loadImage(ctx, i.e, i.o.Kit, m, &i.undo, i.report, i.o.Name); err != nil {
		return err
	}
	if err := m.look(ctx, i.e, i.o.Now); err != nil {
		return err
	}
	if !found.running {
		problems = checkPorts(m.facts, i.ports())
	}
	if len(problems) > 0 {
		return &Problems{Subject: i.subject(), List: problems}
	}
	i.say(StepPreflight, Done, "machine %s, Docker Engine %s, looked at", m.facts.Hostname, m.version.Version)
	return nil
}

func (i *initiation) subject() string {
	if i.o.Endpoint != "" {
		return i.o.Endpoint
	}
	return i.o.Name
}

func (i *initiation) ports() map[string]int {
	p := i.config("")
	out := map[string]int{"the API": p.APIPort}
	if len(p.Etcd) == 0 {
		out["etcd"], out["etcd's peers"] = p.EtcdPort, p.EtcdPeerPort
	}
	return out
}

// loadImage puts our image on an engine, to be taken back when it was not
// there before.
func loadImage(ctx context.Context, e *client.Client, k *Kit, m *machine, u *undo, report func(Progress), subject string) error {
	report(Progress{Subject: subject, Step: StepImage, State: Doing, Text: "loading image " + k.Image.Reference()})
	id, loaded, err := k.Image.Load(ctx, e)
	if loaded && u != nil {
		u.add("image", func(ctx context.Context) error { _, err := removeImage(ctx, e, k.Image.Reference()); return err })
	}
	if err != nil {
		return err
	}
	m.image, m.loaded = id, loaded
	state, text := Done, "image "+k.Image.Reference()+" loaded"
	if !loaded {
		state, text = Kept, "image "+k.Image.Reference()+" is there"
	}
	report(Progress{Subject: subject, Step: StepImage, State: state, Text: text})
	return nil
}

// controllerURL is how everybody calls a controller.
func controllerURL(c controllerconfig.Config) string {
	return "https://" + net.JoinHostPort(c.Advertise, strconv.Itoa(c.APIPort))
}

// awaitAnswer waits until the controller answers over mutual TLS. A container
// that has ended, or goes on ending, is not waited for.
func (i *initiation) awaitAnswer(ctx context.Context, c Controller, p *Profile) error {
	i.say(StepController, Doing, "waiting for %s", p.Controllers[0])
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	for n := 0; ; n++ {
		info, err := c.Info(ctx)
		if err == nil {
			if info.Fleet != i.o.Name {
				return fmt.Errorf("wait for controller: %s answers for fleet %s: %w", p.Controllers[0], info.Fleet, ErrOtherFleet)
			}
			i.say(StepController, Done, "controller answers at %s", p.Controllers[0])
			return nil
		}
		if n%10 == 9 {
			if ended := ending(ctx, i.e, ControllerContainer); ended != nil {
				return fmt.Errorf("wait for controller: %w", ended)
			}
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return fmt.Errorf("wait for controller: %s does not answer within %s, though its container runs: is a firewall in between? %w",
				p.Controllers[0], answerTime, err)
		case <-t.C:
		}
	}
}

// ending says that a container has ended or keeps ending, with its last
// words; nil when it runs.
func ending(ctx context.Context, e *client.Client, name string) error {
	c, err := inspect(ctx, e, name)
	switch {
	case err != nil:
		return nil // the next look will tell
	case c == nil:
		return fmt.Errorf("container %s is gone", name)
	case c.State != nil && c.State.Running && c.RestartCount < 3:
		return nil
	case c.State != nil && c.State.Restarting && c.RestartCount < 3:
		return nil
	}
	words := lastWords(ctx, e, name)
	if words == "" {
		words = "it said nothing"
	}
	return fmt.Errorf("container %s does not stay up: %s", name, words)
}

// makeCredentials makes a new authority and the certificates of controller
// and user.
func (i *initiation) makeCredentials(cfg controllerconfig.Config) (*Profile, map[string]file, ca.Sealed, error) {
	var none ca.Sealed
	a, err := ca.Create(i.o.Name, i.o.Now)
	if err != nil {
		return nil, nil, none, err
	}
	sealed, err := a.Seal()
	if err != nil {
		return nil, nil, none, err
	}
	files, err := controllerFiles(a, sealed, cfg, i.o.Etcd)
	if err != nil {
		return nil, nil, none, err
	}
	p, err := i.makeProfile(a, cfg)
	if err != nil {
		return nil, nil, none, err
	}
	return p, files, sealed, nil
}

// makeProfile makes the user a certificate.
func (i *initiation) makeProfile(a *ca.Authority, cfg controllerconfig.Config) (*Profile, error) {
	key, csr, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	cert, err := a.IssueUser(csr, i.o.User)
	if err != nil {
		return nil, err
	}
	return &Profile{
		Name: i.o.Name, Controllers: []string{controllerURL(cfg)}, User: i.o.User,
		Access: map[string]Access{"": i.o.Access}, Making: true, CreatedAt: i.o.Now().UTC(),
		CA: a.Bundle(), Cert: cert, Key: key,
	}, nil
}
