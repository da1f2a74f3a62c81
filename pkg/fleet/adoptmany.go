package fleet

import (
	"context"
	"errors"
	"sync"

	"clocker.io/clocker/pkg/api"
)

// AddHosts adds several hosts at the same time. All are looked at first: when
// something speaks against one, nothing is done to any, and the errors of all
// are joined. Later each goes its own way: AddHosts returns those that are
// ready, in the order of the options, and the errors of all others joined.
// Calls of progress come one at a time.
func AddHosts(ctx context.Context, os []AddOptions, progress func(Progress)) ([]api.Host, error) {
	as, err := lookAtAll(ctx, os, progress)
	if err != nil {
		undoAll(ctx, as)
		return nil, err
	}
	hosts, errs := make([]api.Host, len(os)), make([]error, len(os))
	var wg sync.WaitGroup
	for i, a := range as {
		wg.Go(func() {
			var err error
			if hosts[i], err = a.carryOut(ctx); err != nil {
				errs[i] = a.undo.run(ctx, err, a.report, a.subject())
			}
		})
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

// Preflight looks at several machines as [AddHosts] does before it begins, and
// does nothing to any: the image it looks with is taken away again where it
// was not. The error means that a machine could not be looked at.
func Preflight(ctx context.Context, os []AddOptions, progress func(Progress)) ([]Report, error) {
	as, err := lookAtAll(ctx, os, progress)
	var out []Report
	for _, a := range as {
		if a != nil && len(a.checks) > 0 {
			out = append(out, Report{Endpoint: a.o.Endpoint, Name: a.o.Name, Checks: a.checks})
		}
	}
	undoAll(ctx, as)
	var p *Problems
	if err != nil && !errors.As(err, &p) {
		return out, err
	}
	return out, nil
}

// lookAtAll checks all machines at the same time. The error joins what speaks
// against each.
func lookAtAll(ctx context.Context, os []AddOptions, progress func(Progress)) ([]*adoption, error) {
	one := oneAtATime(progress)
	as, errs := make([]*adoption, len(os)), make([]error, len(os))
	var wg sync.WaitGroup
	for i, o := range os {
		wg.Go(func() {
			if as[i], errs[i] = newAdoption(o, one); errs[i] != nil {
				as[i] = &adoption{o: o, e: o.Engine, report: one}
				return
			}
			errs[i] = as[i].look(ctx)
		})
	}
	wg.Wait()
	for i, problems := range across(as) {
		if len(problems) == 0 {
			continue
		}
		as[i].checks.add("name", "", problems...)
		var p *Problems
		if errors.As(errs[i], &p) {
			problems = append(p.List, problems...)
		}
		if errs[i] == nil || p != nil {
			errs[i] = &Problems{Subject: as[i].subject(), List: problems}
		}
	}
	return as, errors.Join(errs...)
}

func undoAll(ctx context.Context, as []*adoption) {
	var wg sync.WaitGroup
	for _, a := range as {
		wg.Go(func() {
			// What stays behind is an image that the next run uses.
			_ = a.undo.run(ctx, nil, func(Progress) {}, a.subject())
		})
	}
	wg.Wait()
}
