package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
)

// alive fails unless every replica of an application answers with the
// container it had.
func (f *fleet) alive(t *testing.T, app string, port int, containers map[string]string) {
	t.Helper()
	for name, task := range f.tasks(t, app) {
		if want := containers[name]; want != "" && task.Container != want {
			t.Errorf("%s was made anew", name)
		}
		if task.State != "running" {
			t.Errorf("%s is %s: %s", name, task.State, task.Error)
		}
		if task.Service == "front" {
			// Names come from the agent: while it starts again, for a
			// moment, it has no answer.
			took := await(t, 3*time.Second, "front reaches back", func() error {
				_, _, err := get(t.Context(), fmt.Sprintf("http://%s:%d/dial?addr=back:80", task.HostAddress, port))
				return err
			})
			if took > 100*time.Millisecond {
				t.Logf("front reached back after %s", took.Round(time.Millisecond))
			}
		}
	}
}

func (f *fleet) containers(t *testing.T, app string) map[string]string {
	out := map[string]string{}
	for name, task := range f.tasks(t, app) {
		out[name] = task.Container
	}
	return out
}

// kill ends every process of a program on a host without warning.
func kill(t *testing.T, h *testbed.Host, program string, match string) {
	t.Helper()
	killed := 0
	for _, pid := range h.Pids(program) {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(cmdline), match) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed++
	}
	if killed == 0 {
		t.Fatalf("no %s %s on %s", program, match, h.Name)
	}
}

// When controller, agent or network plugin are killed, what runs must go on
// untouched, and the next deploy must work.
func TestKilledPartsMustComeBack(t *testing.T) {
	f := shared
	f.deploy(t, "faults", "compose.yaml", fmt.Sprintf(stack, 18090))
	containers := f.containers(t, "faults")
	next := 0
	deploys := func() error {
		next++
		file := strings.Replace(fmt.Sprintf(stack, 18090), "replicas: 3", fmt.Sprintf("replicas: %d", 3+next%2), 1)
		r := f.command(t.Context(), "clocker", "deploy", writeFile(t, "compose.yaml", file), "--app", "faults")
		return r.err()
	}
	for _, part := range []struct{ program, match string }{{"docker-clocker", "serve"}, {"docker-clocker", "agent"}, {"clocker-net", ""}} {
		t.Run(part.program+part.match, func(t *testing.T) {
			for _, h := range f.bed.Hosts() {
				if part.match == "serve" && h.Name != "h1" {
					continue
				}
				kill(t, h, part.program, part.match)
			}
			took := await(t, 30*time.Second, "a deploy works again", deploys)
			t.Logf("next deploy worked after %s", took.Round(time.Millisecond))
			f.alive(t, "faults", 18090, containers)
		})
	}
}

// A host that dies must be reported within 10 s, and everything must run when it
// has come back.
func TestKilledHostMustBeReportedWithin10s(t *testing.T) {
	f := shared
	f.deploy(t, "lost", "compose.yaml", strings.ReplaceAll(fmt.Sprintf(stack, 18091), "image: clocker.io/test/web:1", "image: clocker.io/test/web:1\n    restart: always"))
	h3 := f.bed.Host("h3")
	f.forgive(t, "h3")
	if err := h3.Kill(); err != nil {
		t.Fatal(err)
	}
	took := await(t, 10*time.Second, "host h3 is reported", func() error {
		r := f.command(t.Context(), "clocker", "host", "ls", "--format", "{{.Name}} {{.Status}}")
		if r.code != 0 || !strings.Contains(r.stdout, "h3 suspect") && !strings.Contains(r.stdout, "h3 lost") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	t.Logf("reported after %s", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("reported after %s", took)
	}
	// A moment later its work is elsewhere: heal_test.go.
	for name, task := range f.tasks(t, "lost") {
		if task.Host == "h3" && task.State != "lost" {
			t.Errorf("%s is %s, want lost", name, task.State)
		}
	}
	if out := f.clocker(t, "events", "--since", "1m", "--until", "0s"); !strings.Contains(out, "h3") || !strings.Contains(out, "down") {
		t.Errorf("events say nothing of it:\n%s", out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h3.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	await(t, time.Minute, "everything runs again", func() error {
		r := f.command(t.Context(), "clocker", "ls", "--format", "{{.Name}} {{.Status}}")
		if !strings.Contains(r.stdout, "lost running") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	await(t, 20*time.Second, "front reaches back", func() error {
		front := f.tasks(t, "lost")["lost-front-1"]
		_, _, err := get(t.Context(), fmt.Sprintf("http://%s:18091/dial?addr=lost-back-1:80", front.HostAddress))
		return err
	})
	f.alive(t, "lost", 18091, nil)
}

// A deploy that the user interrupts must leave nothing, and the next must
// work.
func TestInterruptedDeployMustLeaveNothing(t *testing.T) {
	f := shared
	before := f.inventories(t)
	etcd := f.etcd(t)
	keys := f.keys(t, etcd)
	// Waits for ever: back never becomes healthy.
	file := writeFile(t, "compose.yaml", `
services:
  front:
    image: clocker.io/test/web:1
    depends_on: {back: {condition: service_healthy}}
  back:
    image: clocker.io/test/web:1
    healthcheck: {test: [CMD, /web, exit, "1"], interval: 1s, start_period: 1h}
`)
	f.removeAfter(t, "endless")
	c := f.prepare(t.Context(), "clocker", "deploy", file, "--app", "endless")
	done := make(chan result, 1)
	go func() { done <- runCommand(c) }()
	await(t, 30*time.Second, "back runs", func() error {
		r := f.command(t.Context(), "clocker", "ps", "endless")
		if r.code != 0 || !strings.Contains(r.stdout, "Up") {
			return r.err()
		}
		return nil
	})
	for _, pid := range interruptible(c.Process.Pid) {
		syscall.Kill(pid, syscall.SIGINT) //nolint:errcheck // one that is gone needs none
	}
	select {
	case r := <-done:
		if r.code != 130 {
			t.Errorf("exit %d, want 130\n%s%s", r.code, r.stdout, r.stderr)
		}
	case <-time.After(40 * time.Second):
		t.Fatal("the interrupted deploy does not end")
	}
	f.unchanged(t, before, keys, etcd)
}

// interruptible is a command and its children: a terminal's ^C reaches all of
// them.
func interruptible(pid int) []int {
	pids := []int{pid}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, field := range strings.Fields(string(b)) {
		var child int
		if _, err := fmt.Sscan(field, &child); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// A controller killed in the middle of a deploy must go on with it.
func TestControllerKilledInTheMiddleMustGoOn(t *testing.T) {
	f := shared
	f.removeAfter(t, "middle")
	c := f.prepare(t.Context(), "clocker", "deploy", thirty, "--app", "middle")
	done := make(chan result, 1)
	go func() { done <- runCommand(c) }()
	await(t, 20*time.Second, "the deploy is under way", func() error {
		r := f.command(t.Context(), "clocker", "ps", "middle", "-q")
		if r.code != 0 || r.stdout == "" {
			return fmt.Errorf("%s", r.stderr)
		}
		return nil
	})
	kill(t, f.bed.Host("h1"), "docker-clocker", "serve")
	r := <-done
	t.Logf("the command ended with %d:\n%s%s", r.code, r.stdout, r.stderr)
	await(t, 40*time.Second, "all replicas run", func() error {
		r := f.command(t.Context(), "clocker", "ls", "--format", "{{.Name}} {{.Status}}")
		if !strings.Contains(r.stdout, "middle running") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	f.clocker(t, "deploy", thirty, "--app", "middle")
}
