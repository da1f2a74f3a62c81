package e2e

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/e2e/testbed"
)

const outliving = `
services:
  front:
    image: clocker.io/test/web:1
    ports: ["18340:80"]
    deploy: {placement: {constraints: ["node.hostname == h4"]}}
  back:
    image: clocker.io/test/web:1
    restart: always
    deploy: {replicas: 8}
`

// controlled is a fleet of h1 to h4 with controllers on the first three, an
// application on all four, and h5 beside it, an engine in no fleet.
func controlled(t *testing.T) *fleet {
	t.Helper()
	f := ownFleet(t, "outliving", testbed.Options{Name: bed("gone"), Hosts: 5, Engine: "28"})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	succeeds(t, f.init(ctx))
	for _, name := range []string{"h2", "h3", "h4"} {
		succeeds(t, f.addHost(ctx, f.bed.Host(name), name == "h2").err())
	}
	f.clocker(t, "controller", "add", "h2")
	f.clocker(t, "controller", "add", "h3")
	succeeds(t, voting(f, t, 3))
	f.awaitKnownBy(t, "h1", "h2", "h3", "h4")
	f.deploy(t, "app", "compose.yaml", outliving)
	return f
}

// One fleet loses the host of its leading controller, then the majority of its
// controllers with their hosts, then all controllers. What runs on hosts that
// are left must go on, and each time one command must bring control back.
func TestFleetMustOutliveItsControllers(t *testing.T) {
	f := controlled(t)
	for _, s := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the leader's host dies", f.leadersHostDies},
		{"the majority is lost", f.majorityDies},
		{"all controllers are lost", f.allControllersDie},
	} {
		began := time.Now()
		if !t.Run(s.name, s.run) {
			return
		}
		t.Logf("%s: %s", s.name, time.Since(began).Round(100*time.Millisecond))
	}
}

// What ran on the host must run elsewhere within seconds, though a controller
// must be elected first; what runs elsewhere must not be touched.
func (f *fleet) leadersHostDies(t *testing.T) {
	f.clocker(t, "rebalance")
	on := f.spread(t, 20*time.Second, "app", 9, "h1", "h2", "h3", "h4")
	before := f.containers(t, "app")
	victim := f.leader(t)
	if on[victim.Name] == 0 {
		t.Fatalf("nothing to lose on %s: %v", victim.Name, on)
	}
	was := f.tasks(t, "app")
	left := slices.DeleteFunc([]string{"h1", "h2", "h3", "h4"}, func(n string) bool { return n == victim.Name })
	began := time.Now()
	succeeds(t, victim.Kill())
	f.is(t, 30*time.Second, victim.Name, "lost")
	lost := time.Since(began)
	f.spread(t, 30*time.Second, "app", 9, left...)
	t.Logf("the host of the leader, %s: lost after %s, replaced after %s", victim.Name, lost.Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond))
	now := f.containers(t, "app")
	for name, task := range was {
		if task.Host != victim.Name && now[name] != before[name] {
			t.Errorf("%s on %s was replaced", name, task.Host)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	succeeds(t, victim.Restart(ctx))
	f.is(t, time.Minute, victim.Name, "ready")
	await(t, 30*time.Second, "three controllers are well", func() error { return voting(f, t, 3) })
	f.clocker(t, "rebalance")
	f.spread(t, 30*time.Second, "app", 9, "h1", "h2", "h3", "h4")
}

// ping sends packets from a container on one host to one on another, until the
// test ends. The result tells whether all of them came back.
func (f *fleet) ping(t *testing.T, name, from, to string) (arrived func(t *testing.T)) {
	t.Helper()
	f.clocker(t, "network", "create", name)
	f.container(t, to, name+"-to", name)
	address := f.addressOf(t, name, name+"-to")
	h := f.bed.Host(from)
	dockerOn(t, h, "run", "-d", "--name", name+"-from", "--network", name, "busybox", "ping", "-i", "0.2", address)
	await(t, 20*time.Second, "packets pass", func() error {
		if out := dockerOn(t, h, "logs", "--tail", "1", name+"-from"); !strings.Contains(out, "bytes from") {
			return fmt.Errorf("the last line is %q", out)
		}
		return nil
	})
	return func(t *testing.T) {
		t.Helper()
		dockerOn(t, h, "stop", "-t", "3", "-s", "INT", name+"-from")
		out := dockerOn(t, h, "logs", name+"-from")
		if !strings.Contains(out, " 0% packet loss") {
			t.Errorf("packets were lost: %s", out[max(0, len(out)-300):])
		}
	}
}

// serves holds that names resolve on h4 to every replica on the hosts, and that
// each answers.
func (f *fleet) serves(t *testing.T, addresses []string) {
	t.Helper()
	front := "http://" + f.bed.Host("h4").Address + ":18340"
	await(t, 15*time.Second, "names of what runs", func() error {
		body, _, err := get(t.Context(), front+"/lookup?name=tasks.back")
		if err != nil {
			return err
		}
		for _, a := range addresses {
			if !slices.Contains(strings.Fields(body), a) {
				return fmt.Errorf("%s lacks %s", body, a)
			}
		}
		return nil
	})
	for _, a := range addresses {
		_, _, err := get(t.Context(), front+"/get?timeout=2s&url="+url.QueryEscape("http://"+a+"/"))
		assert.NilError(t, err, a)
	}
}

// runOn is what runs on hosts: containers, and addresses of back, by name.
func (f *fleet) runOn(t *testing.T, hosts ...string) (containers map[string]string, addresses []string) {
	t.Helper()
	containers = map[string]string{}
	for name, task := range f.tasks(t, "app") {
		if !slices.Contains(hosts, task.Host) {
			continue
		}
		containers[name] = task.Container
		if task.Service == "back" {
			for _, a := range task.Addresses {
				a, _, _ = strings.Cut(a, "/")
				addresses = append(addresses, a)
			}
		}
	}
	return containers, addresses
}

// stillRun holds that engines run these containers, and started none of them
// again.
func (f *fleet) stillRun(t *testing.T, containers map[string]string, hosts ...string) {
	t.Helper()
	var all string
	for _, h := range hosts {
		all += dockerOn(t, f.bed.Host(h), "ps", "--no-trunc", "--quiet")
	}
	for name, id := range containers {
		if !strings.Contains(all, id) {
			t.Errorf("%s does not run any more", name)
		}
	}
}

// Two of three controllers go with their hosts: traffic and names on the other
// hosts go on, one command recovers, two controllers are added. The old ones
// that come back must not make a second fleet of one.
func (f *fleet) majorityDies(t *testing.T) {
	containers, addresses := f.runOn(t, "h3", "h4")
	if len(addresses) < 3 {
		t.Fatalf("too little runs on h3 and h4: %v", containers)
	}
	arrived := f.ping(t, "talk", "h3", "h4")
	for _, name := range []string{"h1", "h2"} {
		succeeds(t, f.bed.Host(name).Kill())
	}
	await(t, 30*time.Second, "nothing can be changed", func() error {
		short, stop := context.WithTimeout(t.Context(), 5*time.Second)
		defer stop()
		if r := f.command(short, "clocker", "host", "label", "h4", "a=b"); r.code == 0 {
			return fmt.Errorf("a label was set")
		}
		return nil
	})
	f.serves(t, addresses)
	h3 := f.bed.Host("h3")
	f.clocker(t, "controller", "recover", "--force", "--tls-cert-dir", h3.CertPath(), h3.DockerHost())
	succeeds(t, voting(f, t, 1))
	await(t, time.Minute, "hosts are back", func() error { return f.hostsReady(t.Context(), 2) })
	f.serves(t, addresses)
	f.stillRun(t, containers, "h3", "h4")
	f.clocker(t, "controller", "add", "h4")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, name := range []string{"h1", "h2"} {
		succeeds(t, f.bed.Host(name).Restart(ctx))
	}
	await(t, time.Minute, "hosts are back", func() error { return f.hostsReady(t.Context(), 4) })
	succeeds(t, voting(f, t, 2))
	f.clocker(t, "controller", "add", "h1")
	succeeds(t, voting(f, t, 3))
	f.stillRun(t, containers, "h3", "h4")
	arrived(t)
}

// Every controller is lost, and the fleet is restored on a machine with an
// address that no host has ever heard of.
func (f *fleet) allControllersDie(t *testing.T) {
	hosts := []string{"h1", "h2", "h3", "h4"}
	f.spread(t, 30*time.Second, "app", 9, hosts...)
	containers, addresses := f.runOn(t, hosts...)
	arrived := f.ping(t, "speak", "h1", "h4")
	secret := writeFile(t, "passphrase", "correct horse battery staple\n")
	file := filepath.Join(t.TempDir(), "fleet.backup")
	f.clocker(t, "backup", "-o", file, "--passphrase-file", secret)
	for _, name := range []string{"h1", "h2", "h3", "h4"} {
		if out := dockerOn(t, f.bed.Host(name), "ps", "--all", "--format", "{{.Names}}"); strings.Contains(out, "clocker-controller") {
			wipe(t, f.bed.Host(name))
		}
	}
	h5 := f.bed.Host("h5")
	began := time.Now()
	f.clocker(t, "restore", "--tls-cert-dir", h5.CertPath(), "--passphrase-file", secret, file, h5.DockerHost())
	await(t, time.Minute, "hosts are back", func() error { return f.hostsReady(t.Context(), 4) })
	t.Logf("restored at another address, hosts there after %s", time.Since(began).Round(100*time.Millisecond))
	f.awaitKnownBy(t, hosts...)
	f.serves(t, addresses)
	f.stillRun(t, containers, hosts...)
	arrived(t)
	f.clocker(t, "restore", "--settle")
	f.clocker(t, "host", "label", "h4", "restored=yes")
	if out := f.clocker(t, "fleet", "inspect", "--format", "{{.Controllers}}"); !strings.Contains(out, h5.Address) {
		t.Errorf("the user's controllers are %s", out)
	}
}
