package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// rival is one way to get thirty containers running on three hosts.
type rival struct {
	name string
	// start returns when all run; clean takes them away, unmeasured.
	start func(ctx context.Context) error
	clean func(ctx context.Context) error
}

// BenchmarkThirtyReplicas measures the time from the command to thirty running
// replicas of ten services on three hosts, images present: docker clocker
// deploy, docker stack deploy, and thirty docker run --network none at once,
// in turns on the same testbed, and prints medians and ratios.
func BenchmarkThirtyReplicas(b *testing.B) {
	f := shared
	ctx := b.Context()
	const image = "clocker.io/test/web:1"
	for _, h := range f.bed.Hosts() {
		if _, err := h.Exec(ctx, "docker", "pull", "-q", image); err != nil {
			b.Fatal(err)
		}
	}
	leave, err := f.swarm(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer leave()
	stackFile := filepath.Join(b.TempDir(), "stack.yaml")
	if err := os.WriteFile(stackFile, []byte(swarmStack(image)), 0o600); err != nil {
		b.Fatal(err)
	}
	rivals := []rival{
		{"clocker", func(ctx context.Context) error {
			return f.command(ctx, "clocker", "deploy", thirty, "--app", "bench").err()
		}, func(ctx context.Context) error { return f.command(ctx, "clocker", "rm", "bench").err() }},
		{"stack", func(ctx context.Context) error {
			if err := f.command(ctx, "stack", "deploy", "--detach=true", "--resolve-image", "never", "-c", stackFile, "bench").err(); err != nil {
				return err
			}
			return f.stackRuns(ctx, 30)
		}, func(ctx context.Context) error {
			if err := f.command(ctx, "stack", "rm", "--detach=false", "bench").err(); err != nil {
				return err
			}
			return f.containersGone(ctx, "label=com.docker.stack.namespace=bench")
		}},
		{"run", func(ctx context.Context) error { return f.plainRuns(ctx, image, 30) }, func(ctx context.Context) error {
			g, ctx := errgroup.WithContext(ctx)
			for _, h := range f.bed.Hosts() {
				g.Go(func() error {
					_, err := h.Exec(ctx, "sh", "-c", "docker rm -f $(docker ps -aq --filter label=bench=run)")
					return err
				})
			}
			return g.Wait()
		}},
	}
	took := map[string][]time.Duration{}
	for b.Loop() {
		for _, r := range rivals {
			start := time.Now()
			if err := r.start(ctx); err != nil {
				b.Fatal(r.name, err)
			}
			took[r.name] = append(took[r.name], time.Since(start))
			if err := r.clean(ctx); err != nil {
				b.Fatal(r.name, err)
			}
		}
	}
	median := func(name string) float64 {
		ds := slices.Clone(took[name])
		slices.Sort(ds)
		b.Logf("%s: %v", name, ds)
		return ds[len(ds)/2].Seconds()
	}
	ours, stack, run := median("clocker"), median("stack"), median("run")
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ours, "clocker-s")
	b.ReportMetric(stack, "stack-s")
	b.ReportMetric(run, "run-s")
	b.ReportMetric(ours/stack, "clocker/stack")
	b.ReportMetric(ours/run, "clocker/run")
}

// swarmStack is the thirty-replica application in the words of docker stack.
// The kernel of a testbed may lack IPVS, so services use DNS round robin.
func swarmStack(image string) string {
	var s strings.Builder
	s.WriteString("version: '3.9'\nservices:\n")
	for i := range 10 {
		fmt.Fprintf(&s, "  s%d:\n    image: %s\n    deploy: {replicas: 3, endpoint_mode: dnsrr}\n", i, image)
	}
	return s.String()
}

// swarm makes a swarm of the testbed's hosts and returns how to end it.
func (f *fleet) swarm(ctx context.Context) (leave func(), err error) {
	hosts := f.bed.Hosts()
	leave = func() {
		for _, h := range hosts {
			h.Exec(context.Background(), "docker", "swarm", "leave", "--force") //nolint:errcheck // the testbed goes anyway
		}
	}
	if _, err := hosts[0].Exec(ctx, "docker", "swarm", "init", "--advertise-addr", hosts[0].Address); err != nil {
		return leave, err
	}
	token, err := hosts[0].Exec(ctx, "docker", "swarm", "join-token", "-q", "worker")
	if err != nil {
		return leave, err
	}
	for _, h := range hosts[1:] {
		if _, err := h.Exec(ctx, "docker", "swarm", "join", "--token", strings.TrimSpace(token), hosts[0].Address+":2377"); err != nil {
			return leave, err
		}
	}
	return leave, nil
}

// stackRuns waits until the stack has n running tasks, by what the manager
// itself reports.
func (f *fleet) stackRuns(ctx context.Context, n int) error {
	for {
		out, err := f.bed.Hosts()[0].Exec(ctx, "docker", "stack", "ps", "bench", "--filter", "desired-state=running", "--format", "{{.CurrentState}}")
		if err == nil && strings.Count(out, "Running") >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (f *fleet) containersGone(ctx context.Context, filter string) error {
	for _, h := range f.bed.Hosts() {
		for {
			out, err := h.Exec(ctx, "docker", "ps", "-aq", "--filter", filter)
			if err == nil && strings.TrimSpace(out) == "" {
				break
			}
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), err)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

// plainRuns starts n containers with as many docker commands at once.
func (f *fleet) plainRuns(ctx context.Context, image string, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	hosts := f.bed.Hosts()
	for i := range n {
		g.Go(func() error {
			h := hosts[i%len(hosts)]
			return runCommand(withEnv(f.prepare(ctx, "run", "-d", "--label", "bench=run", "--network", "none", image), "DOCKER_HOST="+h.DockerHost())).err()
		})
	}
	return g.Wait()
}
