package e2e

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
)

// What a user can get wrong must be answered with one clear message, an exit
// code other than 0, nothing half made, and the next command must work.
func TestBadFilesMustBeRefusedWhole(t *testing.T) {
	f := shared
	etcd := f.etcd(t)
	before, keys := f.inventories(t), f.keys(t, etcd)
	for _, c := range []struct {
		name, file, content string
		code                int
		want                []string
	}{
		{"not YAML", "compose.yaml", "services: [\n", 2, []string{"compose.yaml"}},
		{"a tab", "compose.yaml", "services:\n\tweb:\n", 2, []string{"compose.yaml:2", "tab"}},
		{"unknown key", "compose.yaml", "services:\n  web:\n    image: nginx\n    imgae: x\n", 2, []string{"compose.yaml:4", "services.web.imgae"}},
		{"key not done yet", "compose.yaml", "services:\n  web:\n    image: nginx\n    privileged: true\n", 2, []string{"compose.yaml:4", "services.web.privileged"}},
		{"unknown type", "app.yaml", "id: a\nservices:\n- type: dokcer:redis\n", 2, []string{"app.yaml:3", "dokcer:redis"}},
		{"same id twice", "app.yaml", "id: a\nservices:\n- {type: 'docker:redis:3', id: x}\n- {type: 'docker:redis:3', id: x}\n", 2, []string{"app.yaml:4", `"x"`}},
		{"link to nothing", "app.yaml", "id: a\nservices:\n- type: docker:redis:3\n  id: x\n  links: ['$brooklyn:component(\"y\")']\n", 2, []string{"app.yaml:5", `"y"`}},
		{"cycle of links", "app.yaml", "id: a\nservices:\n- type: docker:redis:3\n  id: x\n  links: ['$brooklyn:component(\"y\")']\n- type: docker:redis:3\n  id: y\n  links: ['$brooklyn:component(\"x\")']\n", 2, []string{"cycle", "x", "y"}},
		{"all problems at once", "compose.yaml", "services:\n  web:\n    image: nginx\n    privileged: true\n    pid: host\n  db:\n    image: redis:3\n    ipc: host\n", 2, []string{":4", ":5", ":8"}},
		{"location is no fleet", "app.yaml", "id: a\nlocation: my-other-cloud\nservices:\n- {type: 'docker:redis:3', id: x}\n", 2, []string{"my-other-cloud", "my-docker-cloud"}},
		{"image does not exist", "compose.yaml", "services:\n  ok: {image: 'redis:3'}\n  web: {image: 'no/such-image:1'}\n", 1, []string{"no/such-image:1"}},
		{"port taken by the host", "compose.yaml", "services:\n  web: {image: 'nginx:1', ports: ['22:80']}\n", 5, []string{"port tcp/22", "h1", "h2", "h3"}},
		{"host that is not there", "app.yaml", "id: a\nlocation: docker:my-docker-cloud:h9\nservices:\n- {type: 'docker:redis:3', id: x}\n", 2, []string{"h9"}},
		{"bind source is not there", "compose.yaml", "services:\n  web:\n    image: nginx:1\n    volumes: [{type: bind, source: /no/such/dir, target: /x, bind: {create_host_path: false}}]\n", 1, []string{"/no/such/dir"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.refused(t, c.code, c.want, "deploy", writeFile(t, c.file, c.content), "--app", "bad")
		})
	}
	for n := 2; n <= 9; n++ {
		if n == 5 {
			continue
		}
		name, err := filepath.Glob(fmt.Sprintf("../examples/blueprints/%02d-*.yaml", n))
		if err != nil || len(name) != 1 {
			t.Fatal(name, err)
		}
		f.refused(t, 2, []string{filepath.Base(name[0]) + ":"}, "deploy", name[0])
	}
	f.unchanged(t, before, keys, etcd)
}

// A fixed port must be given to one application only.
func TestPortTakenByAnotherApplicationMustBeRefused(t *testing.T) {
	f := shared
	file := "services:\n  web: {image: 'clocker.io/test/web:1', ports: ['18060:80'], deploy: {replicas: 3}}\n"
	f.deploy(t, "first", "compose.yaml", file)
	f.refused(t, 5, []string{"18060", "first/web"}, "deploy", writeFile(t, "compose.yaml", file), "--app", "second")
	if out := f.clocker(t, "ls", "-q"); strings.Contains(out, "second") {
		t.Errorf("second is there:\n%s", out)
	}
}

// A host that cannot be adopted must be refused with its reason, and leave
// neither a host in the fleet nor anything on the machine.
func TestHostsThatCannotJoinMustBeRefused(t *testing.T) {
	f := shared
	h3 := f.bed.Host("h3")
	hosts := f.clocker(t, "host", "ls", "--format", "{{.Name}} {{.Status}}")
	// Something answers there that is no engine.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("220 mail.example.org ESMTP\r\n")) //nolint:errcheck // it is nobody's mail
			c.Close()
		}
	}()
	_, key, known := h3.SSH()
	ssh := []string{"host", "add", "--name", "h9", "--ssh-identity", key, "--ssh-known-hosts"}
	for _, c := range []struct {
		name string
		want []string
		args []string
	}{
		{"refuses", []string{"refuse"}, []string{"host", "add", "--name", "h9", "tcp://" + h3.Address + ":1"}},
		{"is no engine", []string{l.Addr().String()}, []string{"host", "add", "--name", "h9", "tcp://" + l.Addr().String()}},
		{"is a member already", []string{"h3"}, []string{"host", "add", "--name", "h9", h3.DockerHost()}},
		{"has an unknown SSH key", []string{"known"}, append(ssh, writeFile(t, "known_hosts", ""), "ssh://root@"+h3.Address)},
		{"refuses the SSH user", []string{"nobody"}, append(ssh, known, "ssh://nobody@"+h3.Address)},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			r := f.command(t.Context(), append([]string{"clocker"}, c.args...)...)
			if r.code == 0 {
				t.Fatalf("exit 0\n%s", r.stdout)
			}
			for _, w := range c.want {
				if !strings.Contains(r.stderr, w) {
					t.Errorf("standard error lacks %q:\n%s", w, r.stderr)
				}
			}
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %s to say so", took)
			}
		})
	}
	t.Run("has the wrong certificate", func(t *testing.T) {
		other, err := testbed.Up(t.Context(), testbed.Options{Name: bed("other"), Hosts: 1, Engine: "28", Log: t.Logf})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { other.Down(context.Background()) }) //nolint:errcheck // the next Up of that name clears it
		f.refused(t, 3, []string{"certificate"}, "host", "add", "--name", "h9", other.Host("h1").DockerHost())
		h := other.Host("h1")
		if err := h.StopEngine(t.Context()); err != nil {
			t.Fatal(err)
		}
		addr, key, known := h.SSH()
		f.refused(t, 3, []string{"Docker Engine"}, "host", "add", "--name", "h9", "--ssh-identity", key, "--ssh-known-hosts", known, "ssh://root@"+addr)
	})
	if now := f.clocker(t, "host", "ls", "--format", "{{.Name}} {{.Status}}"); now != hosts {
		t.Errorf("hosts were\n%sand are\n%s", hosts, now)
	}
}

// Without a fleet, or with one whose controller is away, every command must
// say so at once.
func TestNoFleetMustBeSaid(t *testing.T) {
	f := shared
	r := runCommand(withEnv(f.prepare(t.Context(), "clocker", "ls"), "DOCKER_CONFIG="+emptyConfig(t, f)))
	if r.code != 3 || !strings.Contains(r.stderr, "docker clocker init") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	f.refused(t, 3, []string{"no-such-fleet"}, "--fleet", "no-such-fleet", "ls")
}
