package scale

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

// Row is one step of the scenario as measured.
type Row struct {
	Step string
	// Took is until the step was over, by what etcd says.
	Took time.Duration
	// Leader, Etcd and Agents are CPU time that the leading controller, etcd,
	// and this process with all agents have used in it.
	Leader, Etcd, Agents time.Duration
	// Writes is by how much etcd's revision rose: transactions that wrote.
	Writes int64
	// LeaderMemory is the leader's resident memory after the step, LeaderPeak the
	// most so far, in bytes; EtcdSize etcd's database, in use.
	LeaderMemory, LeaderPeak, EtcdSize int64
	// Note says more.
	Note string
}

// scenario is a run under way.
type scenario struct {
	*fleet
	leading *member
	rows    []Row
	say     func(Row)
}

// Run plays the scenario: applications are deployed, looked at, a tenth of the
// hosts dies, a host is drained, the leader dies, and everything is removed. It tells each step as
// it is over.
func Run(ctx context.Context, o Options, say func(Row)) ([]Row, error) {
	began := time.Now()
	f, err := up(ctx, o)
	if err != nil {
		return nil, err
	}
	defer f.down()
	s := &scenario{fleet: f, say: say}
	if s.leading, err = f.leader(ctx); err != nil {
		return nil, err
	}
	s.tell(Row{Step: fmt.Sprintf("start: %d agents", o.Hosts), Took: time.Since(began)})
	for _, step := range []func(context.Context) error{s.deploy, s.look, s.lose, s.rebalance, s.drain, s.takeOver, s.remove} {
		if err := step(ctx); err != nil {
			return s.rows, err
		}
	}
	return s.rows, nil
}

func (s *scenario) tell(r Row) {
	s.rows = append(s.rows, r)
	if s.say != nil {
		s.say(r)
	}
}

// measure does something and tells what it took.
func (s *scenario) measure(ctx context.Context, step string, do func(ctx context.Context) (note string, err error)) error {
	began, leader, etcd, self := time.Now(), cpu(s.leading.cmd.Process.Pid), cpu(s.etcd.cmd.Process.Pid), cpu(os.Getpid())
	revision, _, err := s.size(ctx)
	if err != nil {
		return err
	}
	was := s.leading
	note, err := do(ctx)
	r := Row{Step: step, Took: time.Since(began), Note: note}
	if err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	r.Leader = cpu(s.leading.cmd.Process.Pid)
	if s.leading == was { // else it is another one's since it started
		r.Leader -= leader
	}
	r.Etcd, r.Agents = cpu(s.etcd.cmd.Process.Pid)-etcd, cpu(os.Getpid())-self
	after, size, err := s.size(ctx)
	if err != nil {
		return err
	}
	r.Writes, r.EtcdSize = after-revision, size
	r.LeaderMemory, r.LeaderPeak = memory(s.leading.cmd.Process.Pid)
	s.tell(r)
	return nil
}

// size is etcd's revision and the size of its database in use.
func (s *scenario) size(ctx context.Context) (revision, bytes int64, err error) {
	r, err := s.client.Status(ctx, s.client.Endpoints()[0])
	if err != nil {
		return 0, 0, fmt.Errorf("ask etcd: %w", err)
	}
	return r.Header.Revision, r.DbSizeInUse, nil
}

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
		var all sync.WaitGroup
		errs := make(chan error, s.o.Applications+1)
		gone := func(name string) {
			errs <- s.api.Remove(ctx, name, func(api.Progress) error { return nil })
		}
		for i := range s.o.Applications {
			all.Go(func() { gone(appName(i)) })
		}
		all.Go(func() { gone("after") })
		all.Wait()
		for range s.o.Applications + 1 {
			if err := <-errs; err != nil {
				return "", err
			}
		}
		return "", s.tally.await(ctx, "nothing left", func(t *tally) bool { return len(t.assigned) == 0 })
	})
}

func short(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// Print writes rows as a table.
func Print(w io.Writer, rows []Row) error {
	t := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	fmt.Fprintln(t, "STEP\tTIME\tCPU LEADER\tCPU ETCD\tCPU AGENTS\tWRITES\tLEADER RSS\tPEAK\tETCD DB\tNOTE") //nolint:errcheck // Flush tells
	mib := func(n int64) string {
		if n == 0 {
			return "-"
		}
		return fmt.Sprintf("%d MiB", n>>20)
	}
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%.2fs\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", r.Step, r.Took.Seconds(), short(r.Leader), short(r.Etcd), //nolint:errcheck // Flush tells
			short(r.Agents), r.Writes, mib(r.LeaderMemory), mib(r.LeaderPeak), mib(r.EtcdSize), r.Note)
	}
	return t.Flush()
}
