package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet/sshhost"
)

// AdoptOptions say which machine becomes a host of a fleet, and how it is
// reached.
type AdoptOptions struct {
	// AddOptions are as for [AddHost]. Where Engine is nil, Endpoint must be
	// an SSH one, which is dialled.
	AddOptions
	// SSH says by which keys.
	SSH sshhost.Options
	// Install, when not nil, has a Docker Engine installed where there is
	// none.
	Install *EngineSource
}

// Adopt reaches a machine over SSH, installs a Docker Engine on it when asked
// to and there is none, and makes it a host as [AddHost] does. It needs no ssh
// program and no files of a user's, so a controller can call it. It can be
// repeated after an interruption at any step. An engine that it installed
// stays when what follows fails: the next run finds it.
//
// Errors of the way there are a [*connect.Error], what speaks against the
// machine is [*Problems].
func Adopt(ctx context.Context, o AdoptOptions, progress func(Progress)) (api.Host, error) {
	hosts, err := AdoptAll(ctx, []AdoptOptions{o}, progress)
	if err != nil {
		return api.Host{}, err
	}
	return hosts[0], nil
}

// AdoptAll is [Adopt] for several machines at the same time. All are reached
// and looked at first: when something speaks against one, nothing is done to
// any, and the errors of all are joined. Later each goes its own way, as with
// [AddHosts].
func AdoptAll(ctx context.Context, os []AdoptOptions, progress func(Progress)) ([]api.Host, error) {
	ms, err := reachAll(ctx, os, progress)
	defer closeAll(ms)
	if err != nil {
		return nil, err
	}
	as, err := lookAtReached(ctx, ms)
	if err != nil {
		undoAll(ctx, as)
		return nil, err
	}
	hosts, errs := make([]api.Host, len(ms)), make([]error, len(ms))
	var wg sync.WaitGroup
	for i, m := range ms {
		wg.Go(func() { hosts[i], errs[i] = m.adopt(ctx) })
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

// PreflightAll looks at machines as [AdoptAll] does before it begins, and does
// nothing to any but that the image is there for as long as it looks. The
// error joins those of machines that cannot be reached or looked at.
func PreflightAll(ctx context.Context, os []AdoptOptions, progress func(Progress)) ([]Report, error) {
	ms, err := reachAll(ctx, os, progress)
	defer closeAll(ms)
	as, lerr := lookAtReached(ctx, ms)
	undoAll(ctx, as)
	var out []Report
	for _, m := range ms {
		if len(m.checks()) > 0 {
			out = append(out, Report{Endpoint: m.o.Endpoint, Name: m.name(), Checks: m.checks()})
		}
	}
	var failed []error
	for _, e := range append(unjoin(err), unjoin(lerr)...) {
		var p *Problems
		if !errors.As(e, &p) { // those are in the reports
			failed = append(failed, e)
		}
	}
	return out, errors.Join(failed...)
}

func unjoin(err error) []error {
	var j interface{ Unwrap() []error }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &j):
		return j.Unwrap()
	}
	return []error{err}
}

// reached is a machine on its way to becoming a host.
type reached struct {
	o      AdoptOptions
	report func(Progress)
	// ssh is nil for an engine that the caller reached.
	ssh *sshhost.Machine
	// install is what must be done first; nil where an engine answers.
	install *installation
	// bad are the problems of a machine without an engine.
	bad []string
	// adoption is nil until the engine was looked at.
	adoption *adoption
}

// reachAll connects to all machines at the same time and finds out which have
// an engine. The error joins those of all.
func reachAll(ctx context.Context, os []AdoptOptions, progress func(Progress)) ([]*reached, error) {
	one := oneAtATime(progress)
	ms, errs := make([]*reached, len(os)), make([]error, len(os))
	var wg sync.WaitGroup
	for i, o := range os {
		ms[i] = &reached{o: o, report: one}
		wg.Go(func() { errs[i] = ms[i].reach(ctx) })
	}
	wg.Wait()
	for i, m := range ms {
		for _, b := range ms[:i] {
			if m.install != nil && b.install != nil && m.install.bare.identity != "" && m.install.bare.identity == b.install.bare.identity {
				m.bad = append(m.bad, fmt.Sprintf("it is the same machine as %s: name it once", b.o.Endpoint))
				errs[i] = &Problems{Subject: m.subject(), List: m.bad}
			}
		}
	}
	return ms, errors.Join(errs...)
}

func closeAll(ms []*reached) {
	for _, m := range ms {
		if m.ssh != nil {
			_ = m.ssh.Close() // all was said over it
		}
	}
}

// lookAtReached looks at those machines that have an engine.
func lookAtReached(ctx context.Context, ms []*reached) ([]*adoption, error) {
	var with []*reached
	var os []AddOptions
	for _, m := range ms {
		if m.o.Engine != nil {
			with, os = append(with, m), append(os, m.o.AddOptions)
		}
	}
	if len(with) == 0 {
		return nil, nil
	}
	as, err := lookAtAll(ctx, os, with[0].report)
	for i, a := range as {
		with[i].adoption = a
	}
	return as, err
}

func (m *reached) subject() string {
	if m.o.Name != "" {
		return m.o.Name
	}
	return m.o.Endpoint
}

func (m *reached) name() string {
	if m.adoption != nil {
		return m.adoption.o.Name
	}
	return m.o.Name
}

// checks are what was looked at; none for a machine that was not reached.
func (m *reached) checks() []Check {
	if m.adoption != nil {
		return m.adoption.checks
	}
	var c checks
	if m.install != nil {
		c.add("engine", "none yet; one would be installed on "+m.install.bare.name(), m.bad...)
	}
	return c
}

// reach connects to the machine and sees whether it has an engine.
func (m *reached) reach(ctx context.Context) error {
	if m.o.Engine != nil {
		return nil
	}
	t, err := sshhost.Parse(m.o.Endpoint)
	if err != nil {
		return err
	}
	if m.ssh, err = sshhost.Dial(ctx, t, m.o.SSH); err != nil {
		return err
	}
	// Asked first and whatever is wished: an engine that answers is not
	// touched.
	engine, err := m.ssh.Engine(ctx)
	switch {
	case err == nil:
		m.o.Engine = engine
		return nil
	case m.o.Install == nil || !installable(err):
		return withInstallHint(err, m.o.Install)
	}
	m.install = &installation{m: m.ssh, source: *m.o.Install, report: m.report, subject: m.subject()}
	denied := err
	err = m.install.look(ctx)
	if connect.IsKind(denied, connect.Permission) && !m.install.bare.ours {
		m.install = nil // an engine that is there is the user's affair
		return denied
	}
	var p *Problems
	if errors.As(err, &p) {
		m.bad = p.List
	}
	return err
}

// adopt installs an engine where there is none, and makes the machine a host.
func (m *reached) adopt(ctx context.Context) (api.Host, error) {
	if a := m.adoption; a != nil {
		h, err := a.carryOut(ctx)
		if err != nil {
			return h, a.undo.run(ctx, err, a.report, a.subject())
		}
		return h, nil
	}
	again, err := m.install.run(ctx)
	if err != nil {
		return api.Host{}, err
	}
	if again { // rights that were given hold for those who come after
		_ = m.ssh.Close()
		if m.ssh, err = sshhost.Dial(ctx, m.ssh.Target, m.o.SSH); err != nil {
			return api.Host{}, err
		}
	}
	if m.o.Engine, err = m.ssh.Engine(ctx); err != nil {
		return api.Host{}, err
	}
	return AddHost(ctx, m.o.AddOptions, m.report)
}

// installable reports whether a machine lets us in and only lacks an engine,
// or the right to use one that an interrupted run installed.
func installable(err error) bool {
	return connect.IsKind(err, connect.NoEngine) || connect.IsKind(err, connect.Permission)
}

// withInstallHint tells who has a bare machine what there is for it.
func withInstallHint(err error, asked *EngineSource) error {
	var e *connect.Error
	if asked != nil || !errors.As(err, &e) || e.Kind != connect.NoEngine || !strings.Contains(e.Text, "there is no ") {
		return err
	}
	with := *e
	with.Remedy += ", or let it be done with --install-engine (Debian and Ubuntu)"
	return &with
}
