package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/engine/connect"
	"clocker.io/clocker/pkg/fleet"
)

// programs is where the real programs were built.
var programs string

// actEnv makes the test program a user who makes a fleet and is killed; see
// TestAnInitThatWasKilledIsFinishedByTheNext.
const actEnv = "CLOCKER_E2E_ACT"

func TestMain(m *testing.M) {
	if os.Getenv(actEnv) != "" {
		os.Exit(act())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "clocker-e2e-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for name, pkg := range map[string]string{"docker-clocker": "cli-plugin", "clocker-net": "netplugin"} {
		cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), "clocker.io/clocker/"+pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", name, err, out)
			return 1
		}
	}
	programs = dir
	return m.Run()
}

func kit(t *testing.T, version string) *fleet.Kit {
	t.Helper()
	k, err := fleet.NewKit(build(version))
	assert.NilError(t, err)
	return k
}

func build(version string) fleet.Build {
	return fleet.Build{
		Version: version, Executable: filepath.Join(programs, "docker-clocker"), Plugin: filepath.Join(programs, "clocker-net"),
	}
}

// patience is how long one testbed may be in use: all of it takes well under
// half of that.
const patience = 3 * time.Minute

// world is a testbed and a user who reaches its hosts.
type world struct {
	t *testing.T
	// ctx ends when the test has taken too long.
	ctx context.Context //nolint:containedctx // it lives as long as the test
	bed *testbed.Testbed
	// dir is the user's docker configuration directory.
	dir string
	kit *fleet.Kit
	// start is when the testbed was up.
	start time.Time

	// mu guards log.
	mu  sync.Mutex
	log []fleet.Progress
}

// up starts a testbed of its own, which goes with the test.
func up(t *testing.T, name, engine string, hosts int) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	bed, err := testbed.Up(ctx, testbed.Options{Name: "flt-" + name, Hosts: hosts, Engine: engine, Log: t.Logf})
	assert.NilError(t, err)
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("CLOCKER_KEEP") != "" {
			t.Logf("testbed %s is kept", bed.Name())
			return
		}
		assert.NilError(t, bed.Down(context.Background()))
	})
	return &world{t: t, ctx: ctx, bed: bed, dir: t.TempDir(), kit: kit(t, "1.0.0-test"), start: time.Now()}
}

// say keeps the progress of the last action.
func (w *world) say(p fleet.Progress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, p)
	w.t.Logf("%6.2f %-10s %-12s %-6s %s", time.Since(w.start).Seconds(), p.Subject, p.Step, p.State, p.Text)
}

// states returns how the steps of the last action ended, per subject and
// step, and forgets them.
func (w *world) states() map[string]fleet.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]fleet.State{}
	for _, p := range w.log {
		out[p.Subject+"/"+string(p.Step)] = p.State
	}
	w.log = nil
	return out
}

func (w *world) tcp(host string) string { return w.bed.Host(host).DockerHost() }

func (w *world) ssh(host string) string {
	addr, _, _ := w.bed.Host(host).SSH()
	return "ssh://root@" + strings.TrimSuffix(addr, ":22")
}

func (w *world) options() connect.Options {
	h := w.bed.Hosts()[0]
	_, key, known := h.SSH()
	return connect.Options{CertDir: h.CertPath(), Identity: key, KnownHosts: known, Home: w.dir, Getenv: func(string) string { return "" }}
}

func (w *world) connect(endpoint string) *client.Client {
	w.t.Helper()
	c, err := connect.Open(w.ctx, endpoint, w.options())
	assert.NilError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() }) // the machine may be gone
	return c.Client
}

func (w *world) initOptions(endpoint string) fleet.InitOptions {
	w.t.Helper()
	return fleet.InitOptions{Dir: w.dir, Name: "demo", Engine: w.connect(endpoint), Endpoint: endpoint, Kit: w.kit}
}

// init makes a fleet on a host's engine.
func (w *world) init(endpoint string) (*fleet.Profile, *api.Client) {
	w.t.Helper()
	p, err := fleet.Init(w.ctx, w.initOptions(endpoint), w.say)
	assert.NilError(w.t, err)
	c, err := p.Client()
	assert.NilError(w.t, err)
	w.t.Cleanup(c.Close)
	return p, c
}

func (w *world) addOptions(p *fleet.Profile, c *api.Client, endpoint string) fleet.AddOptions {
	w.t.Helper()
	return fleet.AddOptions{Controller: c, Fleet: p.Name, CA: p.CA, Engine: w.connect(endpoint), Endpoint: endpoint, Kit: w.kit}
}

func (w *world) removeOptions(p *fleet.Profile, c *api.Client, name, endpoint string) fleet.RemoveOptions {
	w.t.Helper()
	return fleet.RemoveOptions{Controller: c, Fleet: p.Name, Name: name, Engine: w.connect(endpoint), Kit: w.kit}
}

func (w *world) destroy(p *fleet.Profile, c *api.Client, endpoint string) {
	w.t.Helper()
	err := fleet.Destroy(w.ctx, fleet.DestroyOptions{
		Dir: w.dir, Profile: p, Controller: c, Engine: w.connect(endpoint), Kit: w.kit,
		Engines: func(_, endpoint string) (*client.Client, error) {
			conn, err := connect.Open(context.Background(), endpoint, w.options())
			if err != nil {
				return nil, err
			}
			return conn.Client, nil
		},
	}, w.say)
	assert.NilError(w.t, err)
}

// exec runs a command on a host.
func (w *world) exec(host string, args ...string) string {
	w.t.Helper()
	out, err := w.bed.Host(host).Exec(w.ctx, args...)
	assert.NilError(w.t, err, out)
	return strings.TrimSpace(out)
}

// look is everything on a host that Clocker could leave behind. What engines
// keep for themselves (empty stores of plugins, counters) is left out.
const look = `cd /
docker ps -a --no-trunc --format 'container {{.Names}} {{.Image}}' | sort
docker images -a --no-trunc --format 'image {{.Repository}}:{{.Tag}} {{.ID}}' | sort
docker volume ls --format 'volume {{.Name}}' | sort
docker network ls --format 'network {{.Name}} {{.Driver}}' | sort
docker plugin ls --format 'plugin {{.Name}}'
for d in /etc/clocker /var/lib/clocker /run/clocker /run/docker/plugins; do find $d -mindepth 1 2>/dev/null; done
test -e /etc/clocker && echo /etc/clocker; test -e /run/clocker && echo /run/clocker
nft list ruleset 2>/dev/null | sed 's/counter packets [0-9]* bytes [0-9]*/counter/'
ip -o link | sed 's/^[0-9]*: //;s/[ @:].*//;s/^/link /' | sort
ip -o -4 addr | awk '{print "address", $2, $4}' | sort
ip -4 route show table all | sort
ip rule
pgrep -a clocker
true`

// engineTable is what Engine 28 leaves of its own when a container with a
// bridge has been there.
const engineTable = `table ip raw {
	chain PREROUTING {
		type filter hook prerouting priority raw; policy accept;
	}
}
`

func (w *world) look(host string) string {
	w.t.Helper()
	return strings.Replace(w.exec(host, "sh", "-c", look), engineTable, "", 1)
}
