package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
)

// adopters is a fleet of h1 alone, with h2 (an engine, in no fleet) and bare
// machines beside it.
func adopters(t *testing.T, name string, bare int) *fleet {
	t.Helper()
	f := ownFleet(t, "adopters", testbed.Options{Name: bed(name), Hosts: 2, Bare: bare, Engine: "28"})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	succeeds(t, f.init(ctx))
	return f
}

// sshTo is how a machine is named, with the flags that let us in.
func sshTo(h *testbed.Host) []string {
	addr, key, known := h.SSH()
	return []string{"--ssh-identity", key, "--ssh-known-hosts", known, "ssh://root@" + addr}
}

func (f *fleet) hosts(t *testing.T) map[string]api.Host {
	t.Helper()
	out := map[string]api.Host{}
	for name := range strings.Lines(f.clocker(t, "host", "ls", "-q")) {
		name = strings.TrimSpace(name)
		var hs []api.Host
		if err := json.Unmarshal([]byte(f.clocker(t, "host", "inspect", name)), &hs); err != nil {
			t.Fatal(err)
		}
		out[name] = hs[0]
	}
	return out
}

// A machine with nothing but Debian and sshd must become a host in one command,
// also when that command is interrupted, and what runs on it must work.
func TestBareMachineMustBecomeAHost(t *testing.T) {
	f := adopters(t, "bare", 2)
	h3, h4 := f.bed.Host("h3"), f.bed.Host("h4")
	f.refused(t, 3, []string{"no /var/run/docker.sock", "--install-engine"}, append([]string{"host", "add"}, sshTo(h3)...)...)
	table := f.clocker(t, append([]string{"host", "add", "--preflight", "--install-engine"}, sshTo(h3)...)...)
	if !strings.Contains(table, "would be installed on Debian") {
		t.Errorf("preflight says:\n%s", table)
	}
	if _, err := h3.Exec(t.Context(), "sh", "-c", "command -v dockerd"); err == nil {
		t.Error("preflight installed an engine")
	}

	// The first try is cut off while packages are unpacked.
	cut := f.prepare(t.Context(), append([]string{"clocker", "host", "add", "--install-engine", "--label", "kind=bare"}, sshTo(h3)...)...)
	words := &watcher{want: []byte("unpacking containerd"), seen: make(chan struct{})}
	cut.Stderr = words
	succeeds(t, cut.Start())
	select {
	case <-words.seen:
	case <-time.After(2 * time.Minute):
		t.Error("no package was unpacked within two minutes")
	}
	succeeds(t, cut.Process.Kill())
	_ = cut.Wait() // it was killed
	list := writeFile(t, "hosts.yaml", fmt.Sprintf("hosts:\n- endpoint: ssh://root@%s\n  labels: {kind: bare}\n- endpoint: ssh://root@%s\n  name: second\n", h3.Address, h4.Address))
	_, key, known := h3.SSH()
	f.clocker(t, "host", "add", "--install-engine", "--ssh-identity", key, "--ssh-known-hosts", known, list)
	hosts := f.hosts(t)
	if h := hosts["h3"]; h.Status != "ready" || h.Labels["kind"] != "bare" || h.Facts == nil || h.Facts.DiskBytes == 0 || h.Facts.CertificateUntil.IsZero() {
		t.Errorf("h3 is %+v", h)
	}
	if hosts["second"].Status != "ready" {
		t.Errorf("second is %+v", hosts["second"])
	}
	if out, err := h3.Exec(t.Context(), "ls", "/var/lib/clocker-engine"); err == nil {
		t.Errorf("what installing needed is left: %s", out)
	}
	await(t, 30*time.Second, "usage is known", func() error {
		if u := f.hosts(t)["h3"].Usage; u == nil || u.MemoryUsed == 0 || u.DiskFree == 0 || u.Containers == 0 {
			return fmt.Errorf("it is %+v", u)
		}
		return nil
	})
	f.deploy(t, "web", "compose.yaml", "services:\n  web:\n    image: nginx:1\n    deploy: {replicas: 3}\n", "--wait")
	places := map[string]bool{}
	for _, task := range f.tasks(t, "web") {
		places[task.Host] = true
	}
	if !places["h3"] || !places["second"] {
		t.Errorf("replicas are on %v", places)
	}

	// Added again it is kept, and its engine goes on.
	pid := fmt.Sprint(h3.Pids("dockerd"))
	f.clocker(t, append([]string{"host", "add", "--install-engine"}, sshTo(h3)...)...)
	if now := fmt.Sprint(h3.Pids("dockerd")); now != pid {
		t.Errorf("the engine was restarted: %s, then %s", pid, now)
	}
}

// newKey is a private key that no machine lets in.
func newKey(t *testing.T) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	succeeds(t, err)
	block, err := ssh.MarshalPrivateKey(private, "stranger")
	succeeds(t, err)
	return string(pem.EncodeToMemory(block))
}

// watcher tells when something was written.
type watcher struct {
	want []byte
	all  bytes.Buffer
	seen chan struct{}
	told bool
}

func (w *watcher) Write(b []byte) (int, error) {
	w.all.Write(b)
	if !w.told && bytes.Contains(w.all.Bytes(), w.want) {
		w.told = true
		close(w.seen)
	}
	return len(b), nil
}

// Every way in which a machine cannot be added must be one clear message, and
// nothing may be half adopted.
func TestMachinesThatCannotBeAddedMustBeRefusedWhole(t *testing.T) {
	f := adopters(t, "refused", 0)
	h1, h2 := f.bed.Host("h1"), f.bed.Host("h2")
	addr, key, known := h2.SSH()
	other, err := os.ReadFile(filepath.Join(filepath.Dir(known), "host", "h1.pub"))
	succeeds(t, err)
	changed := writeFile(t, "known_hosts", h2.Address+" "+string(other))
	nobody := writeFile(t, "known_hosts", "")
	stranger := writeFile(t, "id", newKey(t))
	clash := writeFile(t, "hosts.yaml", "- endpoint: ssh://root@a\n  name: Not_A_Name\n- ssh://root@a\n- {name: x}\n- endpoint: b\n  labels: 3\n  colour: red\n")
	for _, c := range []struct {
		name string
		code int
		want []string
		args []string
	}{
		{"unreachable", 3, []string{"2299", "refuses"}, []string{"--ssh-identity", key, "--ssh-known-hosts", known, "ssh://root@" + h2.Address + ":2299"}},
		{"unknown host key", 3, []string{"not in", "ssh-keyscan"}, []string{"--ssh-identity", key, "--ssh-known-hosts", nobody, "ssh://root@" + addr}},
		{"changed host key", 3, []string{"somebody is in between", "ssh-keygen -R"}, []string{"--ssh-identity", key, "--ssh-known-hosts", changed, "ssh://root@" + addr}},
		{"wrong key", 3, []string{"lets root in with none of these keys"}, []string{"--ssh-identity", stranger, "--ssh-known-hosts", known, "ssh://root@" + addr}},
		{"wrong user", 3, []string{"lets nobody-there in"}, []string{"--ssh-identity", key, "--ssh-known-hosts", known, "ssh://nobody-there@" + addr}},
		{"a list with problems", 2, []string{"hosts.yaml:1", "hosts.yaml:3", "hosts.yaml:4", "hosts.yaml:6", "hosts.yaml:7"}, []string{clash}},
		{"one machine under two names", 1, []string{"it is the same machine as"}, []string{"--ssh-identity", key, "--ssh-known-hosts", known, "ssh://root@" + addr, h2.DockerHost()}},
		{"a host under another name", 1, []string{"already, as host h1"}, []string{"--name", "again", "--ssh-identity", key, "--ssh-known-hosts", known, "ssh://root@" + h1.Address}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.refused(t, c.code, c.want, append([]string{"host", "add"}, c.args...)...)
		})
	}
	t.Run("clashing routes", func(t *testing.T) {
		pool := f.clocker(t, "pool", "ls", "--format", "{{.CIDR}}")
		pool, _, _ = strings.Cut(strings.TrimSpace(pool), "\n")
		_, err := h2.Exec(t.Context(), "ip", "route", "add", "blackhole", pool)
		succeeds(t, err)
		defer func() { _, _ = h2.Exec(context.WithoutCancel(t.Context()), "ip", "route", "del", "blackhole", pool) }()
		f.refused(t, 1, []string{"meets the fleet's address pool"}, append([]string{"host", "add"}, sshTo(h2)...)...)
	})
	t.Run("a firewall that lets nothing through", func(t *testing.T) {
		_, err := h2.Exec(t.Context(), "nft", "add table inet strict; add chain inet strict forwarded { type filter hook forward priority 0; policy drop; }")
		succeeds(t, err)
		defer func() { _, _ = h2.Exec(context.WithoutCancel(t.Context()), "nft", "delete table inet strict") }()
		f.refused(t, 1, []string{"drops every packet that containers send or get"}, append([]string{"host", "add"}, sshTo(h2)...)...)
	})
	t.Run("the last host", func(t *testing.T) { f.refused(t, 5, []string{"it is the last one"}, "host", "rm", "h1") })
	if n := len(f.hosts(t)); n != 1 {
		t.Errorf("the fleet has %d hosts", n)
	}
	if out, err := h2.Exec(t.Context(), "sh", "-c", "docker ps -aq; docker images -q; docker plugin ls -q; ls -A /etc/clocker 2>/dev/null || true"); err != nil || out != "" {
		t.Errorf("h2 is not as it was: %s %v", out, err)
	}
	f.clocker(t, append([]string{"host", "add"}, sshTo(h2)...)...)
}

// Labels, commands and logs must reach a host through its agent alone.
func TestHostMustBeReachedThroughItsAgent(t *testing.T) {
	f := shared
	defer f.clocker(t, "host", "label", "h2", "disk-", "zone-")
	if out := f.clocker(t, "host", "label", "h2", "disk=ssd", "zone=a"); !strings.Contains(out, "disk=ssd,zone=a") {
		t.Errorf("labels are %s", out)
	}
	if out := f.clocker(t, "host", "ls", "-q", "--filter", "label=disk=ssd"); strings.TrimSpace(out) != "h2" {
		t.Errorf("hosts with the label: %s", out)
	}
	f.refused(t, 2, []string{"both set and removed"}, "host", "label", "h2", "a=1", "a-")
	f.refused(t, 4, []string{"there is no host"}, "host", "label", "h9", "a=1")

	out := f.clocker(t, "host", "exec", "h2", "sh", "-c", "hostname; readlink /proc/1/ns/mnt /proc/self/ns/mnt | uniq | wc -l; cat /proc/1/comm")
	if want := "h2\n1\n"; !strings.HasPrefix(out, want) {
		t.Errorf("on the machine: %q", out)
	}
	f.refused(t, 7, nil, "host", "exec", "h2", "sh", "-c", "exit 7")
	cat := f.prepare(t.Context(), "clocker", "host", "exec", "-i", "h2", "cat")
	cat.Stdin = strings.NewReader("over\n")
	if r := runCommand(cat); r.stdout != "over\n" || r.code != 0 {
		t.Errorf("cat: %+v", r)
	}
	if out := f.clocker(t, "host", "exec", "-u", "nobody", "-w", "/tmp", "h2", "sh", "-c", "id -un; pwd"); out != "nobody\n/tmp\n" {
		t.Errorf("as nobody: %q", out)
	}
	await(t, 10*time.Second, "no container is left of commands", func() error {
		out, err := f.bed.Host("h2").Exec(t.Context(), "docker", "ps", "-aq", "--filter", "label=io.clocker.system=shell")
		if err == nil && out != "" {
			err = fmt.Errorf("there is %s", out)
		}
		return err
	})
	if r := f.command(t.Context(), "clocker", "host", "logs", "h2"); r.code != 0 || !strings.Contains(r.stderr, "agent starts") {
		t.Errorf("the agent's log: %+v", r)
	}
	if out := f.clocker(t, "host", "logs", "--component", "engine", "-n", "5", "h2"); strings.Count(out, "\n") != 5 {
		t.Errorf("the engine's log: %s", out)
	}
}

// An upgrade must bring image, plugin and agent to the new build, one host
// after the other, while traffic goes on; one that is newer than the
// controllers must be refused.
func TestHostsMustBeUpgradedUnderTraffic(t *testing.T) {
	f := adopters(t, "upgrade", 0)
	h1, h2 := f.bed.Host("h1"), f.bed.Host("h2")
	f.clocker(t, append([]string{"host", "add"}, sshTo(h2)...)...)
	f.clocker(t, "network", "create", "talk")
	peer, err := h2.Exec(t.Context(), "sh", "-c", "docker run -d --network talk busybox sleep 1000 && docker inspect -f '{{.NetworkSettings.Networks.talk.IPAddress}}' $(docker ps -lq)")
	succeeds(t, err)
	address := strings.Fields(peer)[1]
	_, err = h1.Exec(t.Context(), "docker", "run", "-d", "--name", "pinger", "--network", "talk", "busybox", "ping", "-i", "0.2", address)
	succeeds(t, err)
	await(t, 20*time.Second, "packets pass", func() error {
		out, err := h1.Exec(t.Context(), "docker", "logs", "--tail", "1", "pinger")
		if err == nil && !strings.Contains(out, "bytes from") {
			err = fmt.Errorf("the last line is %q", out)
		}
		return err
	})
	before, err := h2.Exec(t.Context(), "docker", "plugin", "inspect", "-f", "{{.ID}}", pluginName)
	succeeds(t, err)
	dir := otherBuild(t)
	up := withEnv(f.prepare(t.Context(), "clocker", "host", "upgrade", "--all"), "CLOCKER_LIB="+dir)
	up.Env = swapConfig(t, f, up.Env, dir)
	if r := runCommand(up); r.code != 0 {
		t.Fatal(r.err())
	}
	after, err := h2.Exec(t.Context(), "docker", "plugin", "inspect", "-f", "{{.ID}}", pluginName)
	succeeds(t, err)
	if before == after {
		t.Error("the plugin is the old one")
	}
	_, err = h1.Exec(t.Context(), "docker", "stop", "-t", "3", "-s", "INT", "pinger")
	succeeds(t, err)
	out, err := h1.Exec(t.Context(), "docker", "logs", "pinger")
	succeeds(t, err)
	if !strings.Contains(out, " 0% packet loss") {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Errorf("packets were lost: %s", strings.Join(lines[max(0, len(lines)-3):], "\n"))
	}
	out, err = h2.Exec(t.Context(), "docker", "images", "-q", "--filter", "label=io.clocker.version")
	succeeds(t, err)
	if n := len(strings.Fields(out)); n > 1 {
		t.Errorf("%d images are left", n)
	}
	again := f.prepare(t.Context(), "clocker", "host", "upgrade", "h2")
	again.Env = swapConfig(t, f, append(again.Env, "CLOCKER_LIB="+dir), dir)
	if r := runCommand(again); r.code != 0 || !strings.Contains(r.stderr, "agent runs") {
		t.Errorf("upgraded again: %+v", r)
	}
}

// otherBuild is the programs under test with other bytes at their ends, which
// makes another image and another plugin of them.
func otherBuild(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"docker-clocker", "clocker-net"} {
		in, err := os.Open(filepath.Join(bin(), name))
		succeeds(t, err)
		defer in.Close()
		out, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY, 0o755)
		succeeds(t, err)
		_, err = io.Copy(out, io.MultiReader(in, strings.NewReader("another build")))
		succeeds(t, err)
		succeeds(t, out.Close())
	}
	return dir
}

// swapConfig gives a command the programs of dir and the user's own fleets.
func swapConfig(t *testing.T, f *fleet, env []string, dir string) []string {
	t.Helper()
	config := filepath.Join(dir, "config")
	plugins := filepath.Join(config, "cli-plugins")
	if _, err := os.Stat(plugins); err != nil {
		succeeds(t, os.MkdirAll(plugins, 0o700))
		succeeds(t, os.Symlink(filepath.Join(dir, "docker-clocker"), filepath.Join(plugins, "docker-clocker")))
		succeeds(t, os.Symlink(filepath.Join(f.config, "clocker"), filepath.Join(config, "clocker")))
	}
	return append(env, "DOCKER_CONFIG="+config)
}

// succeeds ends the test when something that is not its subject fails.
func succeeds(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
