package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/preflight"
)

// readyTime is how long a host may take to report ready once its agent runs.
const readyTime = time.Minute

// renewBefore is how long before its end a host's certificate is renewed when
// the host is added again.
const renewBefore = 30 * 24 * time.Hour

// AddHost makes the machine of an engine a host of a fleet and returns it as
// the controller sees it, ready. progress may be nil; calls come from one
// goroutine.
//
// It can be repeated: what is as it would be made is kept, an agent of another
// version is made anew, a plugin too unless networks use it. Everything that
// speaks against the machine comes at once, as [*Problems]. On an error, ^C
// included, what this run made is taken back. Containers that are not
// Clocker's are never touched.
func AddHost(ctx context.Context, o AddOptions, progress func(Progress)) (api.Host, error) {
	var none api.Host
	if progress == nil {
		progress = func(Progress) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == 0 {
		o.Wait = readyTime
	}
	if o.Kit == nil {
		k, err := NewKit(Build{})
		if err != nil {
			return none, err
		}
		o.Kit = k
	}
	if o.Kit.pluginErr != nil {
		return none, o.Kit.pluginErr
	}
	if o.Name != "" {
		if err := CheckName("host", o.Name); err != nil {
			return none, err
		}
	}
	a := &adoption{o: o, e: o.Engine, report: progress}
	h, err := a.run(ctx)
	if err != nil {
		return none, a.undo.run(ctx, err, progress, a.subject())
	}
	return h, nil
}

// AddHosts adds several hosts at the same time. It returns those that are
// ready, in the order of the options, and the errors of all others joined.
// Calls of progress come one at a time.
func AddHosts(ctx context.Context, os []AddOptions, progress func(Progress)) ([]api.Host, error) {
	one := oneAtATime(progress)
	hosts, errs := make([]api.Host, len(os)), make([]error, len(os))
	var wg sync.WaitGroup
	for i, o := range os {
		wg.Go(func() { hosts[i], errs[i] = AddHost(ctx, o, one) })
	}
	wg.Wait()
	var ready []api.Host
	for i, h := range hosts {
		if errs[i] == nil {
			ready = append(ready, h)
		}
	}
	return ready, errors.Join(errs...)
}

// adoption is one run of AddHost.
type adoption struct {
	o       AddOptions
	e       *client.Client
	report  func(Progress)
	undo    undo
	machine *machine

	// What check decides.
	address string
	// known is the host as the controller lists it; nil when it does not.
	known *api.Host
	// fresh says that nothing of Clocker was on the machine before.
	fresh bool
}

func (a *adoption) subject() string {
	if a.o.Name != "" {
		return a.o.Name
	}
	return a.o.Endpoint
}

func (a *adoption) say(s Step, st State, format string, args ...any) {
	a.report(Progress{Subject: a.subject(), Step: s, State: st, Text: fmt.Sprintf(format, args...)})
}

func (a *adoption) run(ctx context.Context) (api.Host, error) {
	var none api.Host
	if err := sweep(ctx, a.e, a.o.Now(), false); err != nil {
		return none, err
	}
	if err := a.check(ctx); err != nil {
		return none, err
	}
	cfg, err := a.credentials(ctx)
	if err != nil {
		return none, err
	}
	if err := a.plugin(ctx, cfg); err != nil {
		return none, err
	}
	if err := a.agent(ctx, cfg); err != nil {
		return none, err
	}
	return a.awaitReady(ctx)
}

// check looks at engine, machine and fleet and finds every problem at once.
func (a *adoption) check(ctx context.Context) error {
	m, err := ask(ctx, a.e)
	if err != nil {
		return err
	}
	a.machine = m
	if a.o.Name == "" {
		a.o.Name = HostName(m.info.Name)
	}
	problems := checkEngine(m.version.Version, m.version.Os, m.info)
	if err := a.o.Kit.Image.CheckArchitecture(m.version.Os, m.version.Arch); err != nil {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		// Nothing of ours runs there, so no more can be found out.
		return &Problems{Subject: a.subject(), List: problems}
	}
	if err := loadImage(ctx, a.e, a.o.Kit, m, &a.undo, a.report, a.subject()); err != nil {
		return err
	}
	if err := m.look(ctx, a.e, a.o.Now); err != nil {
		return err
	}
	before := a.o.Now()
	info, err := a.o.Controller.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask controller: %w", err)
	}
	half := a.o.Now().Sub(before) / 2
	hosts, err := a.o.Controller.Hosts(ctx)
	if err != nil {
		return fmt.Errorf("ask controller: %w", err)
	}
	fingerprint, err := ca.Fingerprint(a.o.CA)
	if err != nil {
		return err
	}
	a.settleName(hosts)
	if err := CheckName("host", a.o.Name); err != nil {
		problems = append(problems, err.Error()+": give one with --name")
	}
	c := candidate{
		fleet: a.o.Fleet, ca: fingerprint, name: a.o.Name, engineID: m.info.ID,
		facts: m.facts, hosts: hosts, pools: info.Pools,
	}
	if !info.Now.IsZero() {
		c.skewKnown, c.within = true, m.within+half
		c.skew = m.skew - info.Now.Sub(before.Add(half))
	}
	for _, h := range hosts {
		if h.Name == a.o.Name && h.EngineID == m.info.ID {
			a.known = &h
		}
	}
	over, why, err := a.left(ctx, fingerprint)
	if err != nil {
		return err
	}
	if over {
		c.facts.Member = nil
	}
	problems = append(problems, checkHost(c)...)
	problems = append(problems, why...)
	a.fresh = over || m.facts.Member == nil
	asked := a.o.Address
	if asked == "" && a.known != nil {
		asked = a.known.Address
	}
	if a.address, err = ChooseAddress(ctx, asked, a.o.Endpoint, m.facts, false, net.DefaultResolver); err != nil {
		problems = append(problems, err.Error())
	}
	if len(problems) > 0 {
		return &Problems{Subject: a.subject(), List: problems}
	}
	a.say(StepPreflight, Done, "machine %s, Docker Engine %s, looked at", m.facts.Hostname, m.version.Version)
	if over {
		return a.takeOver(ctx)
	}
	return nil
}

// left decides whether what is on the machine must go first: what another
// fleet left, which takes force, or what is left of a membership that this
// fleet has forgotten. It also says what speaks against that.
func (a *adoption) left(ctx context.Context, fingerprint string) (over bool, problems []string, err error) {
	m := a.machine.facts.Member
	switch {
	case m == nil, a.known != nil && a.known.ID == m.HostID:
		return false, nil, nil
	case foreign(m, a.o.Fleet, fingerprint) && !a.o.Force:
		return false, nil, nil // checkHost says it
	}
	users, err := strangers(ctx, a.e)
	if err != nil {
		return false, nil, err
	}
	if len(users) > 0 && !a.o.Force {
		problems = append(problems, fmt.Sprintf("the machine was a host before, and containers that are not Clocker's still use networks of then: stop them, or cut them off with --force: %s",
			strings.Join(users, ", ")))
	}
	return true, problems, nil
}

// takeOver removes what an earlier membership left on the machine.
func (a *adoption) takeOver(ctx context.Context) error {
	m := a.machine.facts.Member
	a.say(StepClean, Note, "removing what is left from when the machine was host %s of fleet %s", m.Name, m.Fleet)
	r := &removal{
		o: RemoveOptions{Fleet: m.Fleet, Name: a.subject(), Force: true, Kit: a.o.Kit},
		e: a.e, report: a.report, keepImage: true,
	}
	if err := r.clean(ctx, a.machine); err != nil {
		return fmt.Errorf("take machine over: %w", err)
	}
	a.machine.facts.Member = nil
	return nil
}

// settleName gives a host that was named by nobody the name it has in the
// fleet already.
func (a *adoption) settleName(hosts []api.Host) {
	if a.o.Name != HostName(a.machine.info.Name) {
		return
	}
	for _, h := range hosts {
		if h.EngineID != "" && h.EngineID == a.machine.info.ID {
			a.o.Name = h.Name
		}
	}
}

// current says that the host's credentials are as they would be made.
func (a *adoption) current() bool {
	m := a.machine.facts.Member
	return m != nil && a.known != nil && m.HostID == a.known.ID && m.CA != "" &&
		m.CertificateUntil.Sub(a.o.Now()) > renewBefore &&
		m.Address == a.address && a.known.Address == a.address && a.known.Name == m.Name &&
		(a.o.Endpoint == "" || a.known.Endpoint == a.o.Endpoint) &&
		(len(a.o.Labels) == 0 || maps.Equal(a.o.Labels, a.known.Labels)) &&
		a.known.State == "active"
}

// credentials registers the host and puts its files on it, unless they are
// there.
func (a *adoption) credentials(ctx context.Context) (*identity, error) {
	if a.current() {
		m := a.machine.facts.Member
		a.say(StepRegister, Kept, "host is in fleet %s, its certificate holds until %s", a.o.Fleet, m.CertificateUntil.Format(time.DateOnly))
		return &identity{hash: "kept:" + m.HostID, adopted: m.Adopted}, nil
	}
	key, csr, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	if a.known == nil {
		// Registering may have happened even when its answer is lost.
		a.undo.add("registration", func(ctx context.Context) error {
			err := a.o.Controller.RemoveHost(ctx, a.o.Name, true, func(api.Progress) error { return nil })
			if errors.Is(err, api.ErrNotFound) {
				return nil
			}
			return err
		})
	}
	labels := a.o.Labels
	if len(labels) == 0 && a.known != nil {
		labels = a.known.Labels
	}
	cred, err := a.o.Controller.RegisterHost(ctx, api.HostRequest{
		Name: a.o.Name, Endpoint: a.o.Endpoint, Address: a.address, Labels: labels,
		Routes: a.machine.facts.Routes, CSR: string(csr), EngineID: a.machine.info.ID,
	})
	if err != nil {
		return nil, fmt.Errorf("register host %s: %w", a.o.Name, err)
	}
	if !sameCA([]byte(cred.CA), a.o.CA) {
		return nil, fmt.Errorf("register host %s: the controller shows another CA than this machine knows", a.o.Name)
	}
	a.say(StepRegister, Done, "host %s registered as %s", a.o.Name, cred.ID)
	id, err := a.writeFiles(ctx, cred, key)
	if err != nil {
		return nil, err
	}
	a.say(StepFiles, Done, "certificate and configuration written")
	return id, nil
}

// awaitReady waits until the controller reports the host ready.
func (a *adoption) awaitReady(ctx context.Context) (api.Host, error) {
	a.say(StepReady, Doing, "waiting for host %s to report", a.o.Name)
	ctx, cancel := context.WithTimeout(ctx, a.o.Wait)
	defer cancel()
	t := time.NewTicker(100 * time.Millisecond)
	defer t.Stop()
	status := "not there"
	for n := 0; ; n++ {
		hosts, err := a.o.Controller.Hosts(ctx)
		if err != nil && ctx.Err() == nil {
			return api.Host{}, fmt.Errorf("wait for host %s: %w", a.o.Name, err)
		}
		if i := slices.IndexFunc(hosts, func(h api.Host) bool { return h.Name == a.o.Name }); i >= 0 {
			status = hosts[i].Status
			if status == "ready" || status == "cordoned" {
				a.say(StepReady, Done, "host %s is %s at %s", a.o.Name, status, hosts[i].Address)
				return hosts[i], nil
			}
		}
		if n%10 == 9 {
			if ended := ending(ctx, a.e, AgentContainer); ended != nil {
				return api.Host{}, fmt.Errorf("wait for host %s: %w", a.o.Name, ended)
			}
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return api.Host{}, ctx.Err()
			}
			// Its own words say whether it reaches the controller.
			words := lastWords(context.WithoutCancel(ctx), a.e, AgentContainer)
			return api.Host{}, fmt.Errorf("wait for host %s: it is %s after %s; its agent says: %s", a.o.Name, status, a.o.Wait, words)
		case <-t.C:
		}
	}
}

// member is the machine's record of its adoption; never nil.
func (a *adoption) member() preflight.Member {
	if m := a.machine.facts.Member; m != nil {
		return *m
	}
	return preflight.Member{}
}
