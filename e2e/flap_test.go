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

// agentsOf are the processes of a host's agent.
func agentsOf(t *testing.T, h *testbed.Host) []int {
	t.Helper()
	var out []int
	for _, pid := range h.Pids("docker-clocker") {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(cmdline), "agent") {
			out = append(out, pid)
		}
	}
	if len(out) == 0 {
		t.Fatalf("no agent on %s", h.Name)
	}
	return out
}

// enableAfter lets a host take work again when the test ends.
func (f *fleet) enableAfter(t *testing.T, host string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if r := f.command(ctx, "clocker", "host", "enable", host); r.code != 0 {
			t.Error(r.err())
		}
	})
}

// A host whose agent stops and goes on while its containers run must never have
// a replica that another host has too once it is back, and must be quarantined
// when that goes on.
func TestHostThatComesAndGoesMustBeQuarantined(t *testing.T) {
	f := shared
	f.deploy(t, "flap", "compose.yaml", fmt.Sprintf(healing, 18320))
	h3 := f.bed.Host("h3")
	names := fmt.Sprintf("http://%s:18320/lookup?name=tasks.back", f.bed.Host("h1").Address)
	// The agent may be started anew while it is stopped; then nothing is there
	// to go on.
	goOn := func(pids []int) {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	f.enableAfter(t, "h3")
	// Earlier scenarios may have lost it already.
	for lost := 1; ; lost++ {
		if lost > 3 {
			t.Fatal("lost three times, and still not quarantined")
		}
		pids := agentsOf(t, h3)
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { goOn(pids) })
		f.is(t, 30*time.Second, "h3", "lost")
		f.spread(t, 30*time.Second, "flap", 7, "h1", "h2")
		goOn(pids)
		await(t, 30*time.Second, "nothing of the application is left on h3", func() error {
			out, err := replicasOn(t.Context(), h3, "flap")
			if err == nil && strings.TrimSpace(out) != "" {
				err = fmt.Errorf("still there: %s", out)
			}
			return err
		})
		await(t, 10*time.Second, "six names", func() error {
			n, err := inService(t.Context(), names)
			if err == nil && n != 6 {
				err = fmt.Errorf("%d", n)
			}
			return err
		})
		status := ""
		await(t, 10*time.Second, "h3 answers", func() error {
			status = strings.TrimSpace(f.clocker(t, "host", "ls", "--filter", "name=h3", "--format", "{{.Status}}"))
			if status != "ready" && status != "quarantined" {
				return fmt.Errorf("h3 is %s", status)
			}
			return nil
		})
		if status == "quarantined" {
			t.Logf("quarantined after it was lost %d times here", lost)
			break
		}
	}
	// It is up, but gets nothing.
	f.deploy(t, "flap-new", "compose.yaml", "services: {web: {image: clocker.io/test/web:1, deploy: {replicas: 3}}}")
	f.spread(t, 20*time.Second, "flap-new", 3, "h1", "h2")
	f.clocker(t, "host", "enable", "h3")
	f.is(t, 5*time.Second, "h3", "ready")
}

// A controller that dies in the middle of a drain must be followed by one that
// goes on with it.
func TestDrainMustGoOnWithTheNextController(t *testing.T) {
	f := shared
	f.deploy(t, "onward", "compose.yaml", fmt.Sprintf(healing, 18330))
	if on := f.spread(t, 20*time.Second, "onward", 7, "h1", "h2", "h3"); on["h2"] == 0 {
		t.Fatalf("nothing to move from h2: %v", on)
	}
	f.enableAfter(t, "h2")
	f.clocker(t, "host", "drain", "--detach", "h2")
	kill(t, f.bed.Host("h1"), "docker-clocker", "serve")
	f.spread(t, 60*time.Second, "onward", 7, "h1", "h3")
	f.is(t, 10*time.Second, "h2", "draining")
	f.clocker(t, "host", "enable", "h2")
	f.is(t, 10*time.Second, "h2", "ready")
}
