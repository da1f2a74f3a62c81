package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
)

// controllers are the fleet's, by name.
func (f *fleet) controllers(t *testing.T) map[string]api.Controller {
	t.Helper()
	out := map[string]api.Controller{}
	for _, line := range strings.Fields(f.clocker(t, "controller", "ls", "--quiet")) {
		var got []api.Controller
		if err := json.Unmarshal([]byte(f.clocker(t, "controller", "inspect", line)), &got); err != nil {
			t.Fatal(err)
		}
		out[line] = got[0]
	}
	return out
}

// leader is the host of the controller that leads.
func (f *fleet) leader(t *testing.T) *testbed.Host {
	t.Helper()
	var found *testbed.Host
	await(t, 30*time.Second, "a controller leads", func() error {
		for _, c := range f.controllers(t) {
			if c.Status == api.ControllerLeader {
				found = f.bed.Host(c.Host)
				return nil
			}
		}
		return fmt.Errorf("%v", f.controllers(t))
	})
	return found
}

// docker runs a command of a host's own engine.
func dockerOn(t *testing.T, h *testbed.Host, args ...string) string {
	t.Helper()
	out, err := h.Exec(t.Context(), append([]string{"docker"}, args...)...)
	if err != nil {
		t.Fatalf("docker %s on %s: %v\n%s", strings.Join(args, " "), h.Name, err, out)
	}
	return out
}

// wipe takes a controller away with all it knows, as a lost disk does.
func wipe(t *testing.T, h *testbed.Host) {
	t.Helper()
	dockerOn(t, h, "rm", "--force", "clocker-controller")
	dockerOn(t, h, "volume", "rm", "clocker-controller", "clocker-controller-config")
}

func voting(f *fleet, t *testing.T, n int) error {
	cs := f.controllers(t)
	good := 0
	for _, c := range cs {
		if c.Etcd != nil && c.Etcd.State == api.MemberVoter && c.Etcd.Healthy && c.Status != api.ControllerDown {
			good++
		}
	}
	if good != n || len(cs) != n {
		return fmt.Errorf("%d of %d controllers are well, want %d: %+v", good, len(cs), n, cs)
	}
	return nil
}

// One controller grows to three, one of them is killed in the middle of a
// deploy, one is removed, the majority is lost and recovered, all are lost and
// restored. No container of an application is made anew meanwhile.
func TestControllersMustComeAndGoAndComeBack(t *testing.T) {
	f := ownFleet(t, "many", testbed.Options{Name: bed("many"), Hosts: 3, Engine: "28"})
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	if err := f.init(ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.addHosts(ctx); err != nil {
		t.Fatal(err)
	}
	f.deploy(t, "app", "compose.yaml", fmt.Sprintf(stack, 18096))
	containers := f.containers(t, "app")
	secret := writeFile(t, "passphrase", "correct horse battery staple\n")
	began := time.Now()
	step := func(what string) {
		t.Logf("%s: after %s", what, time.Since(began).Round(100*time.Millisecond))
	}

	f.refused(t, 5, []string{"last controller"}, "controller", "rm", "h1")
	warned := f.command(ctx, "clocker", "controller", "add", "h2")
	if warned.code != 0 || !strings.Contains(warned.stderr, "2 controllers bear the loss of 0") {
		t.Fatalf("second controller: %v\n%s", warned.err(), warned.stderr)
	}
	f.clocker(t, "controller", "add", "h3")
	if err := voting(f, t, 3); err != nil {
		t.Fatal(err)
	}
	f.clocker(t, "controller", "add", "h3") // again: kept
	f.awaitKnown(t)
	step("three controllers")

	// The leader dies while a deploy goes on.
	victim := f.leader(t)
	f.removeAfter(t, "second")
	slow := strings.ReplaceAll(fmt.Sprintf(stack, 18097), "image: clocker.io/test/web:1",
		"image: clocker.io/test/web:1\n    healthcheck: {test: [CMD, /web, exit, \"0\"], interval: 2s}")
	c := f.prepare(ctx, "clocker", "deploy", "--wait", writeFile(t, "compose.yaml", slow), "--app", "second")
	done := make(chan result, 1)
	go func() { done <- runCommand(c) }()
	await(t, 30*time.Second, "the deploy goes on", func() error {
		if r := f.command(ctx, "clocker", "ls", "--quiet"); !strings.Contains(r.stdout, "second") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	kill(t, victim, "docker-clocker", "serve")
	if r := <-done; r.code != 0 {
		t.Errorf("deploy over a dying leader: %v", r.err())
	}
	f.alive(t, "app", 18096, containers)
	await(t, 30*time.Second, "the killed one is back", func() error { return voting(f, t, 3) })
	step("leader killed in a deploy")

	// One leaves, the leader itself.
	gone := f.leader(t).Name
	f.clocker(t, "controller", "rm", gone)
	if err := voting(f, t, 2); err != nil {
		t.Fatal(err)
	}
	if out := dockerOn(t, f.bed.Host(gone), "ps", "--all", "--format", "{{.Names}}"); strings.Contains(out, "clocker-controller") {
		t.Errorf("the removed controller is still on %s:\n%s", gone, out)
	}
	f.alive(t, "app", 18096, containers)
	step("leader removed")

	// Of two, one is lost for good: no majority.
	var left []string
	for name := range f.controllers(t) {
		left = append(left, name)
	}
	lost, survivor := f.bed.Host(left[0]), f.bed.Host(left[1])
	f.refused(t, 5, []string{"majority"}, "controller", "recover", survivor.DockerHost(), "--tls-cert-dir", survivor.CertPath())
	wipe(t, lost)
	await(t, 30*time.Second, "nothing can be changed", func() error {
		short, stop := context.WithTimeout(ctx, 15*time.Second)
		defer stop()
		if r := f.command(short, "clocker", "restart", "app", "front"); r.code == 0 {
			return fmt.Errorf("a restart worked")
		}
		return nil
	})
	f.clocker(t, "controller", "recover", "--tls-cert-dir", survivor.CertPath(), survivor.DockerHost())
	if err := voting(f, t, 1); err != nil {
		t.Fatal(err)
	}
	await(t, time.Minute, "hosts are back", func() error { return f.hostsReady(ctx, 3) })
	f.awaitKnown(t)
	f.alive(t, "app", 18096, containers)
	step("majority lost and recovered")

	// A backup, something after it, and then everything is lost.
	file := filepath.Join(t.TempDir(), "fleet.backup")
	f.clocker(t, "backup", "-o", file, "--passphrase-file", secret)
	if b, err := os.ReadFile(file); err != nil || strings.Contains(string(b), "AGE-SECRET-KEY") || strings.Contains(string(b), "PRIVATE KEY") {
		t.Errorf("backup holds a secret in clear (%v)", err)
	}
	f.removeAfter(t, "later")
	f.deploy(t, "later", "compose.yaml", "services:\n  web:\n    image: clocker.io/test/web:1\n")
	later := f.containers(t, "later")
	wipe(t, survivor)
	f.refused(t, 1, []string{"passphrase"}, "restore", file, survivor.DockerHost(), "--passphrase-file", writeFile(t, "wrong", "x\n"))
	f.clocker(t, "restore", "--tls-cert-dir", survivor.CertPath(), "--passphrase-file", secret, file, survivor.DockerHost())
	await(t, time.Minute, "hosts are back", func() error { return f.hostsReady(ctx, 3) })
	f.alive(t, "app", 18096, containers)
	await(t, 30*time.Second, "what came after the backup is told", func() error {
		r := f.command(ctx, "clocker", "restore", "--status")
		if !strings.Contains(r.stdout, "later-web-1") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	for name, id := range later {
		found := false
		for _, h := range f.bed.Hosts() {
			found = found || strings.Contains(dockerOn(t, h, "ps", "--no-trunc", "--quiet"), id)
		}
		if !found {
			t.Errorf("%s, deployed after the backup, does not run any more", name)
		}
	}
	step("all lost and restored")
	await(t, time.Minute, "a deploy works", func() error {
		return f.command(ctx, "clocker", "deploy", writeFile(t, "compose.yaml", "services:\n  web:\n    image: clocker.io/test/web:1\n"), "--app", "later").err()
	})
	f.alive(t, "app", 18096, containers)
	f.clocker(t, "restore", "--settle")
	step("a deploy after the restore")
}

// awaitKnown waits until every host knows every controller and no other.
func (f *fleet) awaitKnown(t *testing.T) {
	t.Helper()
	var names []string
	for _, h := range f.bed.Hosts() {
		names = append(names, h.Name)
	}
	f.awaitKnownBy(t, names...)
}

func (f *fleet) awaitKnownBy(t *testing.T, hosts ...string) {
	t.Helper()
	cs := f.controllers(t)
	await(t, 30*time.Second, "hosts know the controllers", func() error {
		for _, name := range hosts {
			h := f.bed.Host(name)
			b, err := os.ReadFile(filepath.Join(h.Root(), "etc/clocker/host.json"))
			if err != nil {
				return err
			}
			var known struct{ Etcd, Controllers []string }
			if err := json.Unmarshal(b, &known); err != nil {
				return err
			}
			for _, c := range cs {
				if !slices.Contains(known.Controllers, c.URL) || !slices.Contains(known.Etcd, c.EtcdURL) || len(known.Controllers) != len(cs) {
					return fmt.Errorf("%s knows %v and %v", h.Name, known.Controllers, known.Etcd)
				}
			}
		}
		return nil
	})
}

// hostsReady reports whether so many hosts are ready.
func (f *fleet) hostsReady(ctx context.Context, n int) error {
	r := f.command(ctx, "clocker", "host", "ls", "--format", "{{.Status}}")
	if r.code != 0 || strings.Count(r.stdout, "ready") != n {
		return fmt.Errorf("%s%s", r.stdout, r.stderr)
	}
	return nil
}
