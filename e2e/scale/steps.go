package scale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// application is a number of replicas of one service on a network of its own.
func application(name string, replicas int) *model.Application {
	return &model.Application{
		Name: name, Dialect: "compose", Networks: []*model.Network{{Name: model.DefaultNetwork}},
		Entities: []*model.Entity{{ID: "web", Kind: model.KindService, Service: &model.Service{
			Image: "docker.io/library/web:1", Replicas: replicas, Restart: model.Restart{Policy: "always"},
			Env:      []model.EnvVar{{Name: "GREETING", Value: model.Text("hello")}},
			Networks: []model.Attachment{{Network: model.DefaultNetwork}},
		}}},
	}
}

func appName(i int) string { return fmt.Sprintf("app%03d", i+1) }

// told is what a deploy's stream came to.
type told struct {
	lines int
	// lost says that the stream broke: the release goes on without it.
	lost bool
	// again is how often no controller could be reached.
	again int
	err   error
}

// deployOne deploys an application and reads what is told of it. A controller
// that could not be reached has done nothing, and is asked again: its callers
// share this machine with a thousand agents.
func (s *scenario) deployOne(ctx context.Context, name string, replicas int) told {
	t := s.tryDeploy(ctx, name, replicas)
	for again := 0; errors.Is(t.err, api.ErrUnreachable) && again < 10; {
		again++
		t = s.tryDeploy(ctx, name, replicas)
		t.again = again
	}
	return t
}

func (s *scenario) tryDeploy(ctx context.Context, name string, replicas int) told {
	t, done, problem := told{}, "", ""
	err := s.api.Deploy(ctx, api.DeployRequest{Application: application(name, replicas)}, func(p api.Progress) error {
		t.lines++
		if problem == "" {
			problem = p.Problem
		}
		if p.Done != "" {
			done = p.Done
		}
		return nil
	})
	switch {
	case err != nil && t.lines > 0 && done == "" && ctx.Err() == nil:
		t.lost = true
	case err != nil:
		t.err = fmt.Errorf("deploy %s: %w", name, err)
	case done != "ok":
		t.err = fmt.Errorf("deploy %s: it ended with %q: %s", name, done, problem)
	}
	return t
}

// deploy deploys every application and waits until all replicas run.
func (s *scenario) deploy(ctx context.Context) error {
	each := s.o.Containers / s.o.Applications
	step := fmt.Sprintf("deploy %d x %d", s.o.Applications, each)
	return s.measure(ctx, step, func(ctx context.Context) (string, error) {
		began := time.Now()
		s.tally.mark()
		results := make(chan told, s.o.Applications)
		turns := make(chan struct{}, cmp.Or(s.o.AtOnce, s.o.Applications))
		for i := range s.o.Applications {
			go func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				results <- s.deployOne(ctx, appName(i), each)
			}()
		}
		lines, lost, again := 0, 0, 0
		for range s.o.Applications {
			t := <-results
			if t.err != nil {
				return "", t.err
			}
			lines, again = lines+t.lines, again+t.again
			if t.lost {
				lost++
			}
		}
		err := s.tally.await(ctx, "every replica to run", func(t *tally) bool { return t.good == each*s.o.Applications })
		note := fmt.Sprintf("first assignment after %s; %d lines of progress; %.0f containers/s", short(s.tally.since(began, "assigned")),
			lines, float64(each*s.o.Applications)/time.Since(began).Seconds())
		if again > 0 {
			note += fmt.Sprintf("; %d times no controller was reached in time", again)
		}
		if lost > 0 {
			note += fmt.Sprintf("; %d streams of progress broke", lost)
		}
		return note, err
	})
}

// look asks what the commands ls, ps and host ls ask.
func (s *scenario) look(ctx context.Context) error {
	for _, q := range []struct {
		step string
		ask  func() (int, error)
	}{
		{"ls", func() (int, error) { l, err := s.api.Applications(ctx); return len(l), err }},
		{"ps " + appName(0), func() (int, error) { l, err := s.api.Tasks(ctx, appName(0)); return len(l), err }},
		{"ps (all)", func() (int, error) { l, err := s.api.Tasks(ctx, ""); return len(l), err }},
		{"host ls", func() (int, error) { l, err := s.api.Hosts(ctx); return len(l), err }},
	} {
		err := s.measure(ctx, q.step, func(context.Context) (string, error) {
			n, err := q.ask()
			return fmt.Sprintf("%d rows", n), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lose ends a tenth of the hosts at once, and waits until what they ran runs
// elsewhere.
func (s *scenario) lose(ctx context.Context) error {
	n := max(1, s.o.Hosts/10)
	return s.measure(ctx, fmt.Sprintf("lose %d hosts", n), func(ctx context.Context) (string, error) {
		s.tally.mark()
		began := time.Now()
		dead := map[string]bool{}
		s.tally.mu.Lock()
		moved := 0
		for _, h := range s.hosts[:n] {
			dead[h.id] = true
			moved += s.tally.onHost[h.id]
		}
		s.tally.mu.Unlock()
		for _, h := range s.hosts[:n] {
			h.stop()
		}
		for _, h := range s.hosts[:n] {
			<-h.done
		}
		s.hosts = s.hosts[n:]
		err := s.tally.await(ctx, "every lease of a dead host to end", func(t *tally) bool { return len(t.leases) == len(s.hosts) })
		if err != nil {
			return "", err
		}
		noticed := time.Since(began)
		want := s.o.Containers / s.o.Applications * s.o.Applications
		err = s.tally.await(ctx, "what dead hosts ran to run elsewhere", func(t *tally) bool { return t.good == want })
		return fmt.Sprintf("%d replicas; all leases gone after %s, first lost %s, first new assignment %s", moved, short(noticed),
			short(s.tally.since(began, record.HealthLost)), short(s.tally.since(began, "assigned"))), err
	})
}

// rebalance asks for a plan, which changes nothing: dead hosts count no more.
func (s *scenario) rebalance(ctx context.Context) error {
	return s.measure(ctx, "rebalance --plan", func(ctx context.Context) (string, error) {
		moves, err := s.api.PlanRebalance(ctx, 0)
		if errors.Is(err, api.ErrUnreachable) { // the client waits no longer than for any question
			return "no answer in time", nil
		}
		return fmt.Sprintf("%d moves", len(moves)), err
	})
}

// drain moves one host's work away.
func (s *scenario) drain(ctx context.Context) error {
	host := s.hosts[0].id
	return s.measure(ctx, "drain "+host, func(ctx context.Context) (string, error) {
		s.tally.mu.Lock()
		n := s.tally.onHost[host]
		s.tally.mu.Unlock()
		err := s.api.DrainHost(ctx, host, func(api.Progress) error { return nil })
		if err != nil {
			return "", err
		}
		err = s.tally.await(ctx, "the drained host to run nothing", func(t *tally) bool { return t.onHost[host] == 0 })
		return fmt.Sprintf("%d replicas moved, start-first", n), err
	})
}

// takeOver ends the leading controller and waits until the other one leads and
// has deployed something.
func (s *scenario) takeOver(ctx context.Context) error {
	return s.measure(ctx, "kill the leader", func(ctx context.Context) (string, error) {
		began := time.Now()
		s.leading.kill()
		var left []*member
		for _, m := range s.controllers {
			if m != s.leading {
				left = append(left, m)
			}
		}
		s.controllers = left
		m, err := s.leader(ctx)
		if err != nil {
			return "", err
		}
		s.leading = m
		leads := time.Since(began)
		done := ""
		err = m.api.Deploy(ctx, api.DeployRequest{Application: application("after", 1)}, func(p api.Progress) error {
			done = p.Done
			return nil
		})
		if err == nil && done != "ok" {
			err = fmt.Errorf("the deploy after it ended with %q", done)
		}
		return fmt.Sprintf("another leads after %s; then a deploy took %s", short(leads), short(time.Since(began)-leads)), err
	})
}

// remove takes every application away.
func (s *scenario) remove(ctx context.Context) error {
	return s.measure(ctx, "remove everything", func(ctx context.Context) (string, error) {
		names := []string{"after"}
		for i := range s.o.Applications {
			names = append(names, appName(i))
		}
		errs := make(chan error, len(names))
		for _, name := range names {
			go func() { errs <- s.removeOne(ctx, name) }()
		}
		lost := 0
		for range names {
			switch err := <-errs; {
			case errors.Is(err, api.ErrLost):
				lost++ // what was begun goes on: what is left is looked at below
			case err != nil:
				return "", err
			}
		}
		note := ""
		if lost > 0 {
			note = fmt.Sprintf("%d streams of progress broke", lost)
		}
		return note, s.tally.await(ctx, "nothing left", func(t *tally) bool { return len(t.assigned) == 0 })
	})
}

// removeOne removes an application; a controller that could not be reached is
// asked again, as in deployOne.
func (s *scenario) removeOne(ctx context.Context, name string) error {
	var err error
	for range 10 {
		err = s.api.Remove(ctx, name, func(api.Progress) error { return nil })
		if !errors.Is(err, api.ErrUnreachable) {
			break
		}
	}
	return err
}
