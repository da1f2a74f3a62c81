package testbed

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func unknownImage(s scene) {
	for _, ref := range []string{"nosuch/thing:1", "redis:99", "quay.io/some/thing"} {
		began := time.Now()
		_, err := s.bed.Host("h1").Exec(s.ctx, "docker", "pull", ref)
		if err == nil {
			s.t.Errorf("pulled %s, which is nowhere", ref)
			continue
		}
		if took := time.Since(began); took > 10*time.Second {
			s.t.Errorf("pull of %s took %v to fail", ref, took)
		}
		if !strings.Contains(err.Error(), "not found") && !strings.Contains(err.Error(), "no such host") {
			s.t.Errorf("pull of %s fails with: %v", ref, err)
		}
	}
}

func redisOnBoth(s scene) {
	err := s.bed.eachHost(func(h *Host) error {
		_, err := h.Exec(s.ctx, "docker", "run", "-d", "--name", "redis", "--restart", "always", "-p", "6379:6379", "redis:3")
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range s.bed.Hosts() {
		s.redisAnswers(h.Name)
		if got, err := s.redisSays(h.Name, "SET host "+h.Name); err != nil || got != "+OK" {
			s.t.Errorf("SET on %s: %q, %v", h.Name, got, err)
		}
		if n := len(h.Pids("redis-server")); n != 1 {
			s.t.Errorf("%s has %d processes redis-server, not 1", h.Name, n)
		}
	}
	if !s.pings("h1", "h2") || !s.pings("h2", "h1") {
		s.t.Error("hosts do not reach each other")
	}
}

func identidock(s scene) {
	s.on("h1", "docker", "network", "create", "demo")
	for name, image := range map[string]string{
		"dnmonster": "amouat/dnmonster:1.0", "identidock": "amouat/identidock:1.0", "cache": "redis:3",
	} {
		args := []string{"docker", "run", "-d", "--network", "demo", "--name", name}
		if name == "identidock" {
			args = append(args, "-p", "9090:9090")
		}
		if name == "cache" {
			args = append(args, "--network-alias", "redis")
		}
		s.on("h1", append(args, image)...)
	}
	url := "http://" + s.bed.Host("h1").Address + ":9090"
	get := func(path string) (status int, cache, body string, err error) {
		resp, err := http.Get(url + path)
		if err != nil {
			return 0, "", "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header.Get("X-Cache"), string(b), err
	}
	is := func(path string, status int, cache, contains string) {
		s.t.Helper()
		s.eventually("identidock", func() error {
			gotStatus, gotCache, body, err := get(path)
			if err == nil && (gotStatus != status || gotCache != cache || !strings.Contains(body, contains)) {
				err = fmt.Errorf("GET %s: status %d, X-Cache %q, %.100q", path, gotStatus, gotCache, body)
			}
			return err
		})
	}
	is("/", 200, "", `<img src="/monster/`)
	// Whatever a slow start of its friends led to is settled by a second name.
	is("/monster/warm", 200, "hit", "PNG")
	is("/monster/joe", 200, "hit", "PNG")
	s.on("h1", "docker", "rm", "-f", "cache")
	is("/monster/joe", 200, "miss", "PNG")
	s.on("h1", "docker", "rm", "-f", "dnmonster")
	is("/monster/ann", 502, "", "dnmonster does not answer")
	s.on("h1", "docker", "rm", "-f", "identidock")
	s.on("h1", "docker", "network", "rm", "demo")
}

func limits(s scene) {
	s.on("h1", "docker", "run", "-d", "--name", "small", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "50", "busybox", "sleep", "1000")
	pids := s.bed.Host("h1").Pids("sleep")
	if len(pids) != 1 {
		s.t.Fatalf("processes called sleep: %v", pids)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pids[0]))
	if err != nil || !strings.Contains(string(b), "/"+cgroupPath(s.bed.Name(), "h1")+"/") {
		s.t.Errorf("container is in cgroups %s (%v)", b, err)
	}
	s.on("h1", "docker", "rm", "-f", "small")
}

func managedPlugin(s scene) {
	h := s.bed.Host("h1")
	dir := filepath.Join(h.Root(), "tmp/plugin")
	if err := os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	config, err := os.ReadFile("testdata/plugin/config.json")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	build := exec.CommandContext(s.ctx, "go", "build", "-o", filepath.Join(dir, "rootfs/plugin"), "./testdata/plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.t.Fatalf("build plugin: %v: %s", err, out)
	}
	s.on("h1", "docker", "plugin", "create", "testbed/tb:1", "/tmp/plugin")
	s.on("h1", "docker", "plugin", "enable", "testbed/tb:1")
	s.on("h1", "docker", "volume", "create", "-d", "testbed/tb:1", "managed")
	got := s.on("h1", "docker", "run", "--rm", "-v", "managed:/v", "busybox", "cat", "/v/links")
	if !slices.Contains(strings.Fields(got), "eth0") {
		s.t.Errorf("the volume does not hold the host's links but %q", got)
	}
	s.on("h1", "docker", "volume", "rm", "managed")
	// The same plugin by its plain name, through the host's directory. Its
	// volumes are not run with: only for a managed plugin does the engine
	// translate mount points.
	s.on("h1", "docker", "volume", "create", "-d", "tbplain", "plain")
	s.on("h1", "docker", "volume", "rm", "plain")
	s.on("h1", "docker", "plugin", "disable", "-f", "testbed/tb:1")
	s.on("h1", "docker", "plugin", "rm", "-f", "testbed/tb:1")
}

func partitionOfTwo(s scene) {
	if err := s.bed.Partition("h1", "h2"); err != nil {
		s.t.Fatal(err)
	}
	if s.pings("h1", "h2") || s.pings("h2", "h1") {
		s.t.Error("traffic passes a partition")
	}
	s.redisAnswers("h1") // from here: only the two are apart
	if err := s.bed.Heal(); err != nil {
		s.t.Fatal(err)
	}
	if !s.pings("h1", "h2") || !s.pings("h2", "h1") {
		s.t.Error("no traffic after heal")
	}
}

func pulledCable(s scene) {
	if err := s.bed.Partition("h1", ""); err != nil {
		s.t.Fatal(err)
	}
	if got := s.on("h1", "cat", "/sys/class/net/eth0/carrier"); got != "0" {
		s.t.Errorf("carrier is %q", got)
	}
	if s.pings("h2", "h1") {
		s.t.Error("a host with its cable pulled answers")
	}
	// Over a restart too.
	if err := s.bed.Host("h1").Restart(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	if s.pings("h2", "h1") {
		s.t.Error("a host with its cable pulled answers after a restart")
	}
	if err := s.bed.Heal(); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("h1 to answer", func() error {
		if !s.pings("h2", "h1") {
			return fmt.Errorf("no ping")
		}
		return nil
	})
}

func hostRestarts(s scene) {
	h := s.bed.Host("h2")
	s.on("h2", "sh", "-c", "echo kept > /var/lib/clocker/file; echo kept > /etc/file; echo lost > /run/file; docker run -d --name gone busybox sleep 10000")
	if err := h.Kill(); err != nil {
		s.t.Fatal(err)
	}
	if h.Running() || s.pings("h1", "h2") {
		s.t.Error("a killed host is still there")
	}
	s.eventually("h2's processes to be reaped", func() error {
		if left := leftProcesses(s.bed.Name(), "h2"); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
	if _, err := h.Exec(s.ctx, "true"); err == nil {
		s.t.Error("a killed host runs commands")
	}
	if err := h.Restart(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	s.redisAnswers("h2")
	got := s.on("h2", "sh", "-c", "cat /var/lib/clocker/file /etc/file; ls /run/file 2>&1 | tail -c 10; docker inspect -f '{{.State.Running}}' gone")
	if want := "kept\nkept\ndirectory\nfalse"; got != want && got != strings.Replace(want, "directory", "irectory", 1) {
		s.t.Errorf("after the restart: %q", got)
	}
	if got := s.on("h2", "docker", "inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "redis"); !strings.HasSuffix(got, "true") {
		s.t.Errorf("redis: %q", got)
	}
}

func leftProcesses(bed, host string) []string {
	return slices.DeleteFunc(leftovers(bed), func(l string) bool {
		b, _ := os.ReadFile(strings.TrimPrefix(l, "process "))
		return !strings.Contains(string(b), cgroupPath(bed, host)+"/")
	})
}

func engineSupervised(s scene) {
	h := s.bed.Host("h1")
	before := h.Pids("dockerd")
	if len(before) != 1 {
		s.t.Fatalf("dockerd runs as %v", before)
	}
	if err := h.KillEngine(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	if err := h.WaitReady(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	after := h.Pids("dockerd")
	if len(after) != 1 || after[0] == before[0] {
		s.t.Errorf("dockerd ran as %v, now as %v", before, after)
	}
	if err := h.StopEngine(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	if left := h.Pids("dockerd"); len(left) != 0 {
		s.t.Errorf("stopped dockerd runs as %v", left)
	}
	if err := h.StartEngine(s.ctx); err != nil {
		s.t.Fatal(err)
	}
	s.redisAnswers("h1")
}

func etcdCluster(s scene) {
	e, err := s.bed.Etcd(s.ctx, 3)
	if err != nil {
		s.t.Fatal(err)
	}
	ctl := func(member int, args ...string) string {
		s.t.Helper()
		cmd, err := toolCommand(toolsTree.path(), "usr/bin/etcdctl", append([]string{"--endpoints", e.Endpoints()[member]}, args...)...)
		if err != nil {
			s.t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
		out, err := cmd.CombinedOutput()
		if err != nil {
			s.t.Fatalf("etcdctl %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	ctl(0, "put", "key", "one")
	if err := e.Kill(0); err != nil {
		s.t.Fatal(err)
	}
	s.eventually("two of three to go on", func() error {
		return e.waitMember(s.ctx, 1)
	})
	ctl(1, "put", "key", "two")
	if err := e.Restart(s.ctx, 0); err != nil {
		s.t.Fatal(err)
	}
	if got := ctl(0, "get", "key", "--print-value-only"); got != "two" {
		s.t.Errorf("the member that came back has %q", got)
	}
	if _, err := s.bed.Etcd(s.ctx, 1); err == nil {
		s.t.Error("a second cluster started beside the first")
	}
	if err := e.Stop(); err != nil {
		s.t.Fatal(err)
	}
}

func upConverges(s scene) {
	h1, h2 := s.bed.Host("h1"), s.bed.Host("h2")
	if err := h2.Kill(); err != nil {
		s.t.Fatal(err)
	}
	before := h1.PID()
	o := s.options
	o.Hosts = 3
	bed, err := Up(s.ctx, o)
	if err != nil {
		s.t.Fatal(err)
	}
	if h1.PID() != before || !h2.Running() || bed.Host("h3") == nil {
		s.t.Error("up did not keep h1, start h2 and add h3")
	}
	if _, err := bed.Host("h1").Exec(s.ctx, "ping", "-c1", "-W1", "h3"); err != nil {
		s.t.Error(err)
	}
	if bed, err = Up(s.ctx, s.options); err != nil || bed.Host("h3") != nil {
		s.t.Errorf("up with fewer hosts: %v", err)
	}
	if got, err := Open(s.bed.Name()); err != nil || len(got.Hosts()) != 2 {
		s.t.Errorf("open: %v", err)
	}
}

func downLeavesNothing(s scene) {
	name := s.bed.Name()
	if len(leftovers(name)) < 3 {
		s.t.Errorf("cannot see a running testbed: %v", leftovers(name))
	}
	for range 2 { // the second finds nothing, which is no error
		if err := Down(context.Background(), name); err != nil {
			s.t.Fatal(err)
		}
	}
	if left := leftovers(name); len(left) > 0 {
		s.t.Errorf("left over: %v", left)
	}
}
