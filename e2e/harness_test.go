package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
)

// fleet is a fleet on a testbed, as a user with the docker command has it.
type fleet struct {
	name   string
	bed    *testbed.Testbed
	config string // DOCKER_CONFIG
	docker string
}

// shared is the fleet of most scenarios, made by TestMain.
var shared *fleet

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	f, err := newFleet(ctx, "my-docker-cloud", testbed.Options{Name: bed(""), Hosts: 3, Engine: "28", Log: logf})
	if f != nil {
		defer f.close()
	}
	if err == nil {
		err = f.init(ctx)
	}
	if err == nil {
		err = f.addHosts(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make fleet:", err)
		return 1
	}
	shared = f
	return m.Run()
}

func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// bed is the name of a testbed: they all begin with CLOCKER_E2E_BED, or "e2e",
// so that two runs on one machine keep out of each other's way.
func bed(name string) string {
	first := "e2e"
	if v := os.Getenv("CLOCKER_E2E_BED"); v != "" {
		first = v
	}
	if name == "" {
		return first
	}
	return first + "-" + name
}

// bin is the folder of the programs under test.
func bin() string {
	if dir := os.Getenv("CLOCKER_BIN"); dir != "" {
		return dir
	}
	dir, err := filepath.Abs("../bin")
	if err != nil {
		panic(err)
	}
	return dir
}

// newFleet starts a testbed and installs the plugin for one user.
func newFleet(ctx context.Context, name string, o testbed.Options) (*fleet, error) {
	bed, err := testbed.Up(ctx, o)
	if err != nil {
		return nil, err
	}
	f := &fleet{name: name, bed: bed, docker: filepath.Join(bin(), "docker")}
	if path, err := exec.LookPath("docker"); err == nil {
		f.docker = path
	}
	f.config, err = os.MkdirTemp("", "clocker-e2e-*")
	if err != nil {
		return f, err
	}
	plugins := filepath.Join(f.config, "cli-plugins")
	if err := os.MkdirAll(plugins, 0o700); err != nil {
		return f, err
	}
	return f, os.Symlink(filepath.Join(bin(), "docker-clocker"), filepath.Join(plugins, "docker-clocker"))
}

func (f *fleet) close() {
	if err := f.bed.Down(context.Background()); err != nil {
		logf("take testbed down: %v", err)
	}
	os.RemoveAll(f.config)
}

// init makes the fleet on h1, as on any engine the docker command points to.
func (f *fleet) init(ctx context.Context, args ...string) error {
	r := f.command(ctx, append([]string{"clocker", "init", "--fleet", f.name, "--host-name", "h1"}, args...)...)
	return r.err()
}

// addHosts adds h2 over SSH and every other over TCP with TLS.
func (f *fleet) addHosts(ctx context.Context) error {
	for i, h := range f.bed.Hosts()[1:] {
		if err := f.addHost(ctx, h, i == 0).err(); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) addHost(ctx context.Context, h *testbed.Host, ssh bool) result {
	if !ssh {
		return f.command(ctx, "clocker", "host", "add", "--name", h.Name, h.DockerHost())
	}
	addr, key, known := h.SSH()
	return f.command(ctx, "clocker", "host", "add", "--name", h.Name, "--ssh-identity", key, "--ssh-known-hosts", known, "ssh://root@"+addr)
}

// env is the environment of the user: the docker command points to h1.
func (f *fleet) env(extra ...string) []string {
	h1 := f.bed.Hosts()[0]
	env := []string{}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DOCKER_") && !strings.HasPrefix(v, "CLOCKER_") || strings.HasPrefix(v, "CLOCKER_TESTBED") {
			env = append(env, v)
		}
	}
	env = append(env, "DOCKER_CONFIG="+f.config, "CLOCKER_LIB="+bin(), "DOCKER_HOST="+h1.DockerHost(),
		"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH="+h1.CertPath(), "NO_COLOR=1")
	return append(env, extra...)
}

// result is what a command did.
type result struct {
	args           []string
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r result) err() error {
	if r.code == 0 {
		return nil
	}
	return fmt.Errorf("docker %s: exit %d\n%s%s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// prepare returns a docker command that is not started yet.
func (f *fleet) prepare(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, f.docker, args...)
	c.Env = f.env()
	c.WaitDelay = 5 * time.Second
	return c
}

func (f *fleet) command(ctx context.Context, args ...string) result {
	return runCommand(f.prepare(ctx, args...))
}

func runCommand(c *exec.Cmd) result {
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	start := time.Now()
	err := c.Run()
	r := result{args: c.Args[1:], stdout: out.String(), stderr: errOut.String(), took: time.Since(start)}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		r.code, r.stderr = -1, r.stderr+err.Error()
	}
	return r
}

// clocker runs `docker clocker ...` and fails the test unless it succeeds.
func (f *fleet) clocker(t *testing.T, args ...string) string {
	t.Helper()
	r := f.command(t.Context(), append([]string{"clocker"}, args...)...)
	if r.code != 0 {
		t.Fatal(r.err())
	}
	return r.stdout
}

// refused runs `docker clocker ...`, which must fail with an exit code and
// say everything in want.
func (f *fleet) refused(t *testing.T, code int, want []string, args ...string) result {
	t.Helper()
	r := f.command(t.Context(), append([]string{"clocker"}, args...)...)
	if r.code != code {
		t.Errorf("docker clocker %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.stdout, r.stderr)
	}
	for _, w := range want {
		if !strings.Contains(r.stderr, w) {
			t.Errorf("docker clocker %s: standard error lacks %q:\n%s", strings.Join(args, " "), w, r.stderr)
		}
	}
	return r
}

// deploy writes a file, deploys it as an application and removes that when
// the test ends.
func (f *fleet) deploy(t *testing.T, app, name, content string, args ...string) {
	t.Helper()
	f.removeAfter(t, app)
	f.clocker(t, append([]string{"deploy", writeFile(t, name, content), "--app", app}, args...)...)
}

func (f *fleet) removeAfter(t *testing.T, app string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if r := f.command(ctx, "clocker", "rm", app); r.code != 0 && !strings.Contains(r.stderr, "no application") {
			t.Error(r.err())
		}
	})
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// forgive lets a host that the test cuts off take work again when the test has
// ended: scenarios lose a host more often than life does, and one that is lost
// three times within ten minutes is quarantined.
func (f *fleet) forgive(t *testing.T, host string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		await(t, 30*time.Second, host+" takes work again", func() error {
			if r := f.command(ctx, "clocker", "host", "enable", host); r.code != 0 {
				return r.err()
			}
			r := f.command(ctx, "clocker", "host", "ls", "--format", "{{.Name}} {{.Status}}")
			if !strings.Contains(r.stdout, host+" ready") {
				return fmt.Errorf("%s%s", r.stdout, r.stderr)
			}
			return nil
		})
	})
}

// tasks are the application's replicas, by name.
func (f *fleet) tasks(t *testing.T, app string) map[string]api.Task {
	t.Helper()
	out := map[string]api.Task{}
	d := json.NewDecoder(strings.NewReader(f.clocker(t, "inspect", app)))
	var details []api.ApplicationDetail
	if err := d.Decode(&details); err != nil {
		t.Fatalf("inspect %s: %v", app, err)
	}
	for _, task := range details[0].Tasks {
		out[task.Name] = task
	}
	return out
}

// loaded is how long a machine with much else to do may take for anything.
const loaded = 90 * time.Second

// await calls f until it returns nil, and says when that took longer than
// expected. It fails the test only where a loaded machine is no excuse any more:
// what is awaited is a state. Where a speed is promised, the caller looks at the
// time that it returns.
func await(t *testing.T, expected time.Duration, what string, f func() error) time.Duration {
	t.Helper()
	start, within := time.Now(), max(expected, loaded)
	for {
		err := f()
		took := time.Since(start)
		if err == nil {
			if took > expected {
				t.Logf("%s: after %s, expected within %s", what, took.Round(time.Millisecond), expected)
			}
			return took
		}
		if took > within {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// get fetches a page; every call makes a connection of its own.
func get(ctx context.Context, url string) (body string, header http.Header, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", nil, err
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, res.Status, b)
	}
	return string(b), res.Header, err
}

// withEnv sets variables of a command that is not started yet.
func withEnv(c *exec.Cmd, env ...string) *exec.Cmd {
	c.Env = append(c.Env, env...)
	return c
}

// emptyConfig is the docker configuration of a user who has the plugin and no
// fleet.
func emptyConfig(t *testing.T, f *fleet) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(f.config, "cli-plugins"), filepath.Join(dir, "cli-plugins")); err != nil {
		t.Fatal(err)
	}
	return dir
}
