package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
)

// ownFleet starts a testbed for one test, which takes it down when it ends.
// Its fleet is not made yet.
func ownFleet(t *testing.T, name string, o testbed.Options) *fleet {
	t.Helper()
	o.Log = t.Logf
	f, err := newFleet(t.Context(), name, o)
	if f != nil {
		t.Cleanup(f.close)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The talk's application must run on Engine 20.10 too.
func TestEngine20MustRunBlueprint05(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := ownFleet(t, "my-docker-cloud", testbed.Options{Name: bed("20"), Hosts: 3, Engine: "20"})
	err := f.init(ctx)
	if err == nil {
		err = f.addHosts(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.clocker(t, "deploy", "../examples/blueprints/05-application-1-docker.yaml", "--wait")
	web := f.tasks(t, "my-application")["my-application-identidock-1"]
	await(t, 5*time.Second, "the page and its picture are served", func() error {
		_, header, err := get(t.Context(), "http://"+web.HostAddress+"/monster/ada")
		if err == nil && header.Get("X-Cache") != "hit" {
			err = fmt.Errorf("X-Cache is %q", header.Get("X-Cache"))
		}
		return err
	})
	f.clocker(t, "rm", "my-application")
	for _, h := range f.bed.Hosts() {
		if out, err := h.Exec(t.Context(), "docker", "ps", "-aq", "--filter", "label=io.clocker.app=my-application"); err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("%s still has containers: %s %v", h.Name, out, err)
		}
	}
}

// A fleet must work on an etcd cluster that is there already, and go on when
// one of its three members dies.
func TestExternalEtcdMustCarryAFleet(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := ownFleet(t, "on-etcd", testbed.Options{Name: bed("etcd"), Hosts: 2, Engine: "28"})
	// An etcd that does not answer: refused, and nothing left of it.
	h1 := f.bed.Host("h1")
	before := inventoryOf(t, h1, hostLooks)
	r := f.command(ctx, "clocker", "init", "--fleet", f.name, "--etcd", "http://"+f.bed.Gateway()+":1")
	if r.code == 0 || !strings.Contains(r.stderr, "etcd") || !strings.Contains(r.stderr, f.bed.Gateway()+":1") {
		t.Errorf("init without etcd: exit %d\n%s", r.code, r.stderr)
	}
	if err := before.difference(inventoryOf(t, h1, hostLooks)); err != nil {
		t.Errorf("init without etcd leaves something: %v", err)
	}
	cluster, err := f.bed.Etcd(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.init(ctx, "--etcd", strings.Join(cluster.Endpoints(), ",")); err != nil {
		t.Fatal(err)
	}
	if err := f.addHosts(ctx); err != nil {
		t.Fatal(err)
	}
	f.deploy(t, "app", "compose.yaml", fmt.Sprintf(stack, 18095))
	containers := f.containers(t, "app")
	if err := cluster.Kill(0); err != nil {
		t.Fatal(err)
	}
	f.alive(t, "app", 18095, containers)
	file := strings.Replace(fmt.Sprintf(stack, 18095), "replicas: 3", "replicas: 4", 1)
	await(t, 20*time.Second, "a deploy works with two members", func() error {
		return f.command(t.Context(), "clocker", "deploy", writeFile(t, "compose.yaml", file), "--app", "app").err()
	})
	f.alive(t, "app", 18095, containers)
	// Without a majority nothing can be decided, and that is said; what runs
	// goes on.
	if err := cluster.Kill(1); err != nil {
		t.Fatal(err)
	}
	r = f.command(t.Context(), "clocker", "deploy", writeFile(t, "compose.yaml", fmt.Sprintf(stack, 18095)), "--app", "app")
	if r.code == 0 || r.stderr == "" {
		t.Errorf("deploy without a majority: exit %d %s", r.code, r.stderr)
	}
	for _, i := range []int{0, 1} {
		if err := cluster.Restart(ctx, i); err != nil {
			t.Fatal(err)
		}
	}
	await(t, 30*time.Second, "a deploy works again", func() error {
		return f.command(t.Context(), "clocker", "deploy", writeFile(t, "compose.yaml", file), "--app", "app").err()
	})
	f.alive(t, "app", 18095, containers)
}

// `docker clocker init` alone must make a fleet of one that deploys.
func TestFleetOfOneMustDeploy(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := ownFleet(t, "solo", testbed.Options{Name: bed("one"), Hosts: 1, Engine: "28"})
	if err := f.command(ctx, "clocker", "init", "--fleet", "solo").err(); err != nil {
		t.Fatal(err)
	}
	// Again: it converges.
	if err := f.command(ctx, "clocker", "init", "--fleet", "solo").err(); err != nil {
		t.Fatal(err)
	}
	f.deploy(t, "app", "compose.yaml", fmt.Sprintf(stack, 18096))
	f.alive(t, "app", 18096, nil)
	// The port answers on the host's loopback too, as every Docker user
	// expects.
	out, err := f.bed.Host("h1").Exec(ctx, "curl", "-sS", "-m", "3", "http://127.0.0.1:18096/lookup?name=tasks.back")
	if err != nil || len(strings.Fields(out)) != 3 {
		t.Errorf("on loopback: %q %v", out, err)
	}
	help := f.command(ctx, "--help")
	if !strings.Contains(help.stdout, "clocker*") {
		t.Errorf("docker --help does not show clocker:\n%s", help.stdout)
	}
	if info := f.command(ctx, "info"); !strings.Contains(info.stdout, "clocker:") {
		t.Errorf("docker info does not show clocker:\n%s", info.stdout)
	}
}

// When an engine with live-restore starts again, containers must run on and
// the next deploy must work: agent and plugin find the new engine by
// themselves.
func TestEngineRestartUnderLiveRestoreMustChangeNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := ownFleet(t, "live", testbed.Options{Name: bed("live"), Hosts: 1, Engine: "28"})
	h1 := f.bed.Host("h1")
	restart := func() {
		t.Helper()
		if err := h1.KillEngine(ctx); err != nil {
			t.Fatal(err)
		}
		if err := h1.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h1.Exec(ctx, "sh", "-c", `sed -i '0,/{/s//{"live-restore": true,/' /etc/docker/daemon.json`); err != nil {
		t.Fatal(err)
	}
	restart()
	if err := f.init(ctx); err != nil {
		t.Fatal(err)
	}
	file := fmt.Sprintf(stack, 18097)
	f.deploy(t, "app", "compose.yaml", file)
	containers := f.containers(t, "app")
	front := f.tasks(t, "app")["app-front-1"]
	restart()
	if _, _, err := get(ctx, "http://"+front.HostAddress+":18097/dial?addr=back:80"); err != nil {
		t.Errorf("right after the engine's restart: %v", err)
	}
	await(t, 30*time.Second, "a deploy works again", func() error {
		return f.command(ctx, "clocker", "deploy", writeFile(t, "compose.yaml", strings.Replace(file, "replicas: 3", "replicas: 4", 1)), "--app", "app").err()
	})
	f.alive(t, "app", 18097, containers)
}
