package fleet

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/preflight"
	"clocker.io/clocker/pkg/record"
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
	a, err := newAdoption(o, progress)
	if err != nil {
		return api.Host{}, err
	}
	h, err := a.run(ctx)
	if err != nil {
		return api.Host{}, a.undo.run(ctx, err, a.report, a.subject())
	}
	return h, nil
}

func newAdoption(o AddOptions, progress func(Progress)) (*adoption, error) {
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
			return nil, err
		}
		o.Kit = k
	}
	if o.Kit.pluginErr != nil {
		return nil, o.Kit.pluginErr
	}
	if o.Name != "" {
		if err := CheckName("host", o.Name); err != nil {
			return nil, err
		}
	}
	return &adoption{o: o, e: o.Engine, report: progress}, nil
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
	// fresh says that nothing of Clocker was on the machine before, over that
	// what was there must go first.
	fresh, over bool
	// behind says that the machine knows another authority than the fleet's.
	behind bool
	// upgrade replaces the plugin although networks use it, and takes nothing
	// back: what is there is in use.
	upgrade bool
	// anew says that this run made the agent that was there anew.
	anew bool
	// keyed, when not nil, is told the host's new key.
	keyed func(key []byte)
	// checks are all that was looked at.
	checks checks
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
	if err := a.look(ctx); err != nil {
		return api.Host{}, err
	}
	return a.carryOut(ctx)
}

// carryOut makes the machine, which was looked at, a host.
func (a *adoption) carryOut(ctx context.Context) (api.Host, error) {
	var none api.Host
	if a.over {
		if err := a.takeOver(ctx); err != nil {
			return none, err
		}
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

// look looks at engine, machine and fleet and finds every problem at once.
// Nothing is changed but that the image may be loaded.
func (a *adoption) look(ctx context.Context) error {
	if err := sweep(ctx, a.e, a.o.Now(), false); err != nil {
		return err
	}
	m, err := ask(ctx, a.e)
	if err != nil {
		return err
	}
	a.machine = m
	named := a.o.Name != ""
	if !named {
		a.o.Name = HostName(m.info.Name)
	}
	a.checks.add("engine", "Docker Engine "+m.version.Version, checkEngine(m.version.Version, m.version.Os, m.info)...)
	if err := a.o.Kit.Image.CheckArchitecture(m.version.Os, m.version.Arch); err != nil {
		a.checks.add("platform", "", err.Error())
	} else {
		a.checks.add("platform", m.version.Os+"/"+m.version.Arch)
	}
	if p := a.checks.problems(); len(p) > 0 {
		// Nothing of ours runs there, so no more can be found out.
		return &Problems{Subject: a.subject(), List: p}
	}
	if err := loadImage(ctx, a.e, a.o.Kit, m, &a.undo, a.report, a.subject()); err != nil {
		return err
	}
	if err := m.look(ctx, a.e, a.o.Now); err != nil {
		return err
	}
	if err := a.compare(ctx, named); err != nil {
		return err
	}
	if p := a.checks.problems(); len(p) > 0 {
		return &Problems{Subject: a.subject(), List: p}
	}
	for _, c := range a.checks {
		if c.Result == Warning {
			a.say(StepPreflight, Note, "%s", c.Text)
		}
	}
	a.say(StepPreflight, Done, "machine %s, Docker Engine %s, looked at", m.facts.Hostname, m.version.Version)
	return nil
}

// compare holds the machine against the fleet.
func (a *adoption) compare(ctx context.Context, named bool) error {
	m := a.machine
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
	fingerprint := a.o.pin
	if fingerprint == "" {
		if fingerprint, err = ca.Fingerprint(a.o.CA); err != nil {
			return err
		}
	}
	if !named {
		a.settleName(hosts)
	}
	if err := CheckName("host", a.o.Name); err != nil {
		a.checks.add("name", "", err.Error()+": give one with --name")
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
	ours := m.facts.Member != nil && (!foreign(m.facts.Member, a.o.Fleet, fingerprint) || c.listed(m.facts.Member))
	a.behind = foreign(m.facts.Member, a.o.Fleet, fingerprint)
	a.checks = append(a.checks, judge(c)...)
	a.checks.add("membership", "", why...)
	a.checks = append(a.checks, checkMeans(m.facts, m.info.MemTotal, ours || over)...)
	a.fresh, a.over = over || m.facts.Member == nil, over
	asked := a.o.Address
	if asked == "" && a.known != nil {
		asked = a.known.Address
	}
	if a.address, err = ChooseAddress(ctx, asked, a.o.Endpoint, m.facts, false, net.DefaultResolver); err != nil {
		a.checks.add("address", "", err.Error())
	} else {
		a.checks.add("address", "other hosts reach it at "+a.address)
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
	for _, h := range hosts {
		if h.EngineID != "" && h.EngineID == a.machine.info.ID {
			a.o.Name = h.Name
		}
	}
}

// current says that the host's credentials are as they would be made.
func (a *adoption) current() bool {
	m := a.machine.facts.Member
	return m != nil && !a.behind && a.known != nil && m.HostID == a.known.ID && m.CA != "" &&
		m.CertificateUntil.Sub(a.o.Now()) > renewBefore &&
		m.Address == a.address && a.known.Address == a.address && a.known.Name == m.Name &&
		(a.o.Endpoint == "" || a.known.Endpoint == a.o.Endpoint) &&
		(len(a.o.Labels) == 0 || maps.Equal(a.o.Labels, a.known.Labels)) &&
		a.known.State != record.HostRemoving
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
	if a.keyed != nil {
		a.keyed(key)
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
		Name: a.o.Name, Endpoint: a.reachable(), Address: a.address, Labels: labels,
		Routes: a.machine.facts.Routes, CSR: string(csr), EngineID: a.machine.info.ID,
	})
	if err != nil {
		return nil, fmt.Errorf("register host %s: %w", a.o.Name, err)
	}
	if a.o.pin == "" && !shareCA([]byte(cred.CA), a.o.CA) {
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

// reachable is how the fleet's users reach the engine: not at all, as far as a
// machine that joins by itself knows.
func (a *adoption) reachable() string {
	if a.o.pin != "" {
		return ""
	}
	return a.o.Endpoint
}

// shareCA reports whether two bundles of PEM have a certificate in common:
// while an authority is being rotated there are two.
func shareCA(a, b []byte) bool {
	seen := map[string]bool{}
	for block, rest := pem.Decode(a); block != nil; block, rest = pem.Decode(rest) {
		seen[string(block.Bytes)] = true
	}
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if seen[string(block.Bytes)] {
			return true
		}
	}
	return false
}

// member is the machine's record of its adoption; never nil.
func (a *adoption) member() preflight.Member {
	if m := a.machine.facts.Member; m != nil {
		return *m
	}
	return preflight.Member{}
}
