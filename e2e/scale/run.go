package scale

import (
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
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
