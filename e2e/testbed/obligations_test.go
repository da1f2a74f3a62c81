package testbed

import (
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
	// Images' wget tells reached from not reached, with a timeout too.
	wget := []string{"docker", "run", "--rm", "--network", "demo", "busybox", "wget", "-T", "3", "-qO-"}
	if got := s.on("h1", append(wget, "http://dnmonster:8080/healthz")...); got != "ok" {
		s.t.Errorf("wget prints %q", got)
	}
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

func buildPlugin(s scene, at string) {
	s.t.Helper()
	build := exec.CommandContext(s.ctx, "go", "build", "-o", at, "./testdata/plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		s.t.Fatalf("build plugin: %v: %s", err, out)
	}
}

func pushedProgram(s scene) {
	program := filepath.Join(s.t.TempDir(), "plugin")
	buildPlugin(s, program)
	if err := s.bed.PushProgram(s.ctx, "team/prog:1", program); err != nil {
		s.t.Fatal(err)
	}
	for _, ref := range []string{"team/prog:1", "clocker.io/team/prog:1", s.bed.Registry() + "/team/prog:1"} {
		s.on("h2", "docker", "pull", ref)
	}
	if got := s.on("h2", "docker", "image", "inspect", "-f", "{{.Config.Entrypoint}}", "team/prog:1"); got != "[/plugin]" {
		s.t.Errorf("entrypoint is %s", got)
	}
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
	buildPlugin(s, filepath.Join(dir, "rootfs/plugin"))
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
