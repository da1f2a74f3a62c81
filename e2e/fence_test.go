package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
)

const fencedWriter = `
services:
  writer:
    image: clocker.io/test/writer:1
    restart: always
    stop_grace_period: 1s
    x-clocker: {on-host-lost: replace, fence: %s}
    volumes: [{type: bind, source: %s/fence, target: /data, x-clocker: {shared: true}}]
    deploy: {placement: {constraints: ["node.hostname != h1"]}}
`

// writers reads who wrote, in order, and fails when two wrote at the same time.
func writers(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, " ")
		if len(order) > 0 && order[len(order)-1] == name {
			continue
		}
		if seen[name] {
			t.Fatalf("%s wrote while another one did, or after it", name)
		}
		seen[name] = true
		order = append(order, name)
	}
	return order
}

// pushWriter puts the writer into the registry.
func pushWriter(t *testing.T, bed *testbed.Testbed) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "writer")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/writer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build writer: %v: %s", err, out)
	}
	if err := bed.PushProgram(t.Context(), "test/writer:1", program); err != nil {
		t.Fatal(err)
	}
}

// A writer of shared data must be replaced when its host is lost, and must never
// be there twice: not when its host was only cut off, not when it is back.
func TestFencedWriterMustBeReplacedAndNeverRunTwice(t *testing.T) {
	f := shared
	pushWriter(t, f.bed)
	lines := filepath.Join(f.bed.Shared(), "fence", "lines")
	with := func(fence string) {
		f.deploy(t, "fence", "compose.yaml", fmt.Sprintf(fencedWriter, fence, testbed.SharedPath))
	}
	with("10s") // longer than etcd may be away below
	now := func() api.Task { return f.tasks(t, "fence")["fence-writer-1"] }
	was := now()
	count := len(writers(t, lines))
	writes := func(n int) func() error {
		return func() error {
			if got := len(writers(t, lines)); got < n {
				return fmt.Errorf("%d writers until now", got)
			}
			return nil
		}
	}
	f.forgive(t, "h2")
	f.forgive(t, "h3")

	// Whatever of Clocker is started anew, the writer does not notice.
	for _, part := range []struct{ host, match string }{{was.Host, "agent"}, {"h1", "serve"}} {
		kill(t, f.bed.Host(part.host), "docker-clocker", part.match)
	}
	dockerOn(t, f.bed.Host(was.Host), "restart", agentContainer(t, f.bed.Host(was.Host)))
	await(t, 30*time.Second, "the fleet answers again", func() error {
		return f.command(t.Context(), "clocker", "ls").err()
	})
	f.is(t, 30*time.Second, was.Host, "ready")
	<-time.After(12 * time.Second) // longer than its fence
	if got := now(); got.Container != was.Container || !got.StartedAt.Equal(was.StartedAt) {
		t.Fatalf("it was %s, started at %s, is %s, started at %s", was.Container, was.StartedAt, got.Container, got.StartedAt)
	}
	if got := len(writers(t, lines)); got != count {
		t.Fatalf("%d writers, want %d", got, count)
	}

	with("5s")
	for _, how := range []string{"killed", "cut off", "frozen agent"} {
		t.Run(how, func(t *testing.T) {
			was := now()
			host := f.bed.Host(was.Host)
			before := len(writers(t, lines))
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var goOn func() error
			switch how {
			case "killed":
				if err := host.Kill(); err != nil {
					t.Fatal(err)
				}
				goOn = func() error { return host.Restart(ctx) }
			case "cut off":
				if err := f.bed.Partition(host.Name, ""); err != nil {
					t.Fatal(err)
				}
				goOn = f.bed.Heal
			default:
				pids := agentsOf(t, host)
				goOn = func() error { return signalAll(pids, syscall.SIGCONT) }
				if err := signalAll(pids, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			back := sync.OnceValue(goOn)
			t.Cleanup(func() { _ = back() }) // said already
			if how != "killed" {
				await(t, 20*time.Second, "it is stopped where it was", func() error {
					out, err := host.Exec(ctx, "docker", "ps", "--quiet", "--filter", "label=io.clocker.app=fence")
					if err == nil && strings.TrimSpace(out) != "" {
						err = fmt.Errorf("%s runs", out)
					}
					return err
				})
				t.Logf("stopped where it was after %s", time.Since(began).Round(100*time.Millisecond))
				if got := len(writers(t, lines)); got != before {
					t.Fatalf("%d writers, want %d: it was started elsewhere before", got, before)
				}
			}
			await(t, 40*time.Second, "another one writes", writes(before+1))
			t.Logf("replaced after %s", time.Since(began).Round(100*time.Millisecond))
			if got := now(); got.Host == was.Host {
				t.Fatalf("it is on %s", got.Host)
			}
			if err := back(); err != nil {
				t.Fatal(err)
			}
			f.is(t, time.Minute, host.Name, "ready")
			await(t, 30*time.Second, "nothing of the application is left on "+host.Name, func() error {
				out, err := replicasOn(ctx, host, "fence")
				if err == nil && strings.TrimSpace(out) != "" {
					err = fmt.Errorf("still there: %s", out)
				}
				return err
			})
			if got := len(writers(t, lines)); got != before+1 {
				t.Fatalf("%d writers, want %d", got, before+1)
			}
		})
	}
}

func signalAll(pids []int, s syscall.Signal) error {
	for _, pid := range pids {
		if err := syscall.Kill(pid, s); err != nil {
			return err
		}
	}
	return nil
}

// agentContainer is the container of a host's agent.
func agentContainer(t *testing.T, h *testbed.Host) string {
	t.Helper()
	return strings.TrimSpace(dockerOn(t, h, "ps", "--quiet", "--filter", "label=io.clocker.system=agent"))
}
