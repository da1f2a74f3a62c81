package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
)

// onDisk is an application that wants a label which no host has, but a machine
// of a provider.
const onDisk = `services:
  web:
    image: clocker.io/test/web:1
    deploy:
      placement:
        constraints: [node.labels.disk == ssd]
`

// A fleet of one host must get a machine for a replica that no host takes, and
// others when room lacks, from a list of machines over SSH and from an engine
// that waits; the controller's death in the middle must neither leak a machine
// nor take one twice; and what is empty must go back when it is not needed.
func TestFleetMustGrowAndShrinkWithHeadroom(t *testing.T) {
	f := ownFleet(t, "elastic", testbed.Options{Name: bed("headroom"), Hosts: 3, Engine: "28"})
	h1, h2, h3 := f.bed.Host("h1"), f.bed.Host("h2"), f.bed.Host("h3")
	if err := f.init(t.Context()); err != nil {
		t.Fatal(err)
	}

	// Without a provider the deploy fails at once and with its reason.
	file := writeFile(t, "compose.yaml", onDisk)
	f.refused(t, 5, []string{"disk"}, "deploy", file, "--app", "disk")

	addr, key, known := h3.SSH()
	list := writeFile(t, "machines.yaml", fmt.Sprintf("hosts:\n- endpoint: ssh://root@%s\n  name: h3\n  labels: {disk: ssd}\n", addr))
	f.refused(t, 2, []string{"its SSH host key is not", "machines.yaml:2"}, "provider", "add", "--ssh-identity", key, "--ssh-known-hosts", "/dev/null", "rack", "byon", list)
	f.clocker(t, "provider", "add", "--ssh-identity", key, "--ssh-known-hosts", known, "rack", "byon", list)
	f.clocker(t, "provider", "add", "--tls-cert-dir", h1.CertPath(), "spare", "standby", h2.DockerHost())
	f.noSecret(t, key)

	// A blocked deploy gets its host, over SSH.
	f.removeAfter(t, "disk")
	start := time.Now()
	r := f.command(t.Context(), "clocker", "deploy", file, "--app", "disk")
	if r.code != 0 {
		t.Fatal(r.err())
	}
	if !strings.Contains(r.stderr, "waiting for a host") {
		t.Errorf("deploy does not say that it waits for a host:\n%s", r.stderr)
	}
	for name, task := range f.tasks(t, "disk") {
		if task.Host != "h3" {
			t.Errorf("%s is on %s, not on h3", name, task.Host)
		}
	}
	t.Logf("blocked deploy, its host included: %s", time.Since(start).Round(10*time.Millisecond))

	// What no machine could take is told, and no machine is asked for.
	tape := writeFile(t, "tape.yaml", strings.ReplaceAll(onDisk, "ssd", "tape"))
	f.refused(t, 5, []string{"no host is asked for, as none could take it"}, "deploy", tape, "--app", "tape")

	// Room for 16 more containers at 8 a host takes a third host. The
	// controller dies while it adopts.
	start = time.Now()
	f.clocker(t, "headroom", "set", "--count", "16", "--up-delay", "1s", "--max", "3")
	await(t, 30*time.Second, "a machine is being adopted", func() error { return f.machinesAre(t, "adopting", "host") })
	kill(t, h1, "docker-clocker", "serve")
	await(t, 90*time.Second, "all three are hosts", func() error { return f.machinesAre(t, "host", "host") })
	t.Logf("grown by headroom, over the controller's death: %s", time.Since(start).Round(10*time.Millisecond))
	f.hostsAre(t, "h1", "h2", "h3")
	if out := f.clocker(t, "headroom"); !strings.Contains(out, "Kept free:  16 containers") || !strings.Contains(out, "count") {
		t.Errorf("headroom shows:\n%s", out)
	}

	// The application goes, and with it the need for its host and the other.
	f.clocker(t, "rm", "disk")
	start = time.Now()
	f.clocker(t, "headroom", "set", "--count", "0", "--remove-empty", "--down-delay", "2s")
	await(t, 90*time.Second, "both machines are given back", func() error { return f.machinesAre(t) })
	t.Logf("shrunk to one host: %s", time.Since(start).Round(10*time.Millisecond))
	f.hostsAre(t, "h1")
	if got := f.clocker(t, "provider", "ls", "--format", "{{.Name}} {{.Free}}"); got != "rack 1\nspare 1\n" {
		t.Errorf("providers have free machines: %s", got)
	}
	for _, h := range []*testbed.Host{h2, h3} {
		leftContainers(t, h)
	}
	f.clocker(t, "provider", "rm", "rack", "spare")
}

// A machine without an engine must become a host by itself when a list says
// that it may get one.
func TestBareMachineMustBecomeAHostByItself(t *testing.T) {
	f := ownFleet(t, "bare", testbed.Options{Name: bed("bare"), Hosts: 1, Bare: 1, Engine: "28"})
	if err := f.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	addr, key, known := f.bed.Host("h2").SSH()
	start := time.Now()
	f.clocker(t, "provider", "add", "--install-engine", "--ssh-identity", key, "--ssh-known-hosts", known, "metal", "byon", "ssh://root@"+addr)
	f.clocker(t, "headroom", "set", "--min", "2")
	await(t, 3*time.Minute, "the machine is a host", func() error { return f.machinesAre(t, "host") })
	t.Logf("bare machine to host: %s", time.Since(start).Round(10*time.Millisecond))
	f.hostsAre(t, "h1", "h2")
}

// machinesAre compares the states of all machines with those wanted.
func (f *fleet) machinesAre(t *testing.T, states ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r := f.command(ctx, "clocker", "provider", "machines", "--no-trunc", "--format", "{{.State}}\t{{.Machine}}\t{{.Text}}")
	if r.code != 0 {
		return r.err()
	}
	var have []string
	for line := range strings.Lines(r.stdout) {
		state, _, _ := strings.Cut(line, "\t")
		have = append(have, state)
	}
	slices.Sort(have)
	slices.Sort(states)
	if !slices.Equal(have, states) {
		return fmt.Errorf("machines are\n%s, wanted %v", r.stdout, states)
	}
	return nil
}

// hostsAre compares the fleet's hosts, each ready, with those wanted.
func (f *fleet) hostsAre(t *testing.T, names ...string) {
	t.Helper()
	await(t, 20*time.Second, "hosts are ready", func() error {
		var have []string
		for line := range strings.Lines(f.clocker(t, "host", "ls", "--format", "{{.Name}} {{.Status}}")) {
			have = append(have, strings.TrimSpace(line))
		}
		want := make([]string, len(names))
		for i, n := range names {
			want[i] = n + " ready"
		}
		if !slices.Equal(have, want) {
			return fmt.Errorf("hosts are %q, wanted %q", have, want)
		}
		return nil
	})
}

// noSecret makes sure that a private key is shown nowhere.
func (f *fleet) noSecret(t *testing.T, keyFile string) {
	t.Helper()
	out := f.clocker(t, "provider", "inspect", "rack", "spare")
	var ps []api.Provider
	if err := json.Unmarshal([]byte(out), &ps); err != nil || len(ps) != 2 || !ps[0].Sealed || !ps[1].Sealed {
		t.Errorf("providers are %s (%v)", out, err)
	}
	if strings.Contains(out, "PRIVATE KEY") || strings.Contains(out, keyFile) {
		t.Errorf("inspect shows a secret: %s", out)
	}
}

// leftContainers finds what is left of Clocker on a machine that was given
// back.
func leftContainers(t *testing.T, h *testbed.Host) {
	t.Helper()
	e, err := h.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	l, err := e.ContainerList(t.Context(), client.ContainerListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range l.Items {
		t.Errorf("%s still has container %v", h.Name, c.Names)
	}
	p, err := e.PluginList(t.Context(), client.PluginListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range p.Items {
		t.Errorf("%s still has plugin %s", h.Name, x.Name)
	}
}
