package command

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/cli-plugin/progress"
	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// run is a command line carried out in this process.
type run struct {
	code     int
	out, err string
}

// machine is a user's machine, with a docker configuration directory of its
// own.
type machine struct {
	t     *testing.T
	in    string
	clock progress.Clock
}

// newMachine makes a user's machine that knows no fleet. Tests that use one
// cannot run in parallel: docker's configuration directory is one for the
// process.
func newMachine(t *testing.T) *machine {
	t.Helper()
	old := config.Dir()
	config.SetDir(t.TempDir())
	t.Cleanup(func() { config.SetDir(old) })
	t.Setenv("CLOCKER_FLEET", "")
	t.Setenv("NO_COLOR", "1")
	c := progress.SystemClock()
	c.Now = func() time.Time { return now }
	return &machine{t: t, clock: c}
}

// join gives the machine a fleet whose controllers are at the given URLs.
func (m *machine) join(name string, f *apitest.Fleet, controllers ...string) {
	m.t.Helper()
	p := &fleet.Profile{Name: name, Controllers: controllers, User: "tester", CA: f.CA, Cert: f.Cert, Key: f.Key}
	assert.NilError(m.t, p.Save(config.Dir()))
}

// serve gives the machine a fleet with one controller that answers with h.
func (m *machine) serve(h http.Handler) {
	m.t.Helper()
	f := apitest.NewFleet(m.t)
	m.join("test", f, f.Serve(h).URL)
}

// run carries out `docker clocker ARGS`.
func (m *machine) run(args ...string) run {
	m.t.Helper()
	var out, errOut bytes.Buffer
	docker, err := command.NewDockerCli(
		command.WithInputStream(io.NopCloser(strings.NewReader(m.in))),
		command.WithOutputStream(&out), command.WithErrorStream(&errOut),
	)
	assert.NilError(m.t, err)
	root := newRoot(&Env{cli: docker, clock: m.clock})
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errOut)
	code, text := Exit(root.ExecuteContext(m.t.Context()))
	if text != "" {
		errOut.WriteString(text + "\n")
	}
	return run{code: code, out: out.String(), err: errOut.String()}
}

// compose writes a compose file with one service per name, called after the
// image it runs, and returns its path. The application is called shop.
func (m *machine) compose(services ...string) string {
	m.t.Helper()
	text := "name: shop\nservices:\n"
	for _, s := range services {
		text += "  " + s + ":\n    image: " + s + ":1\n"
	}
	return m.file("compose.yaml", text)
}

func (m *machine) file(name, text string) string {
	m.t.Helper()
	path := filepath.Join(m.t.TempDir(), name)
	assert.NilError(m.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// answers is a controller that plays recorded answers, by method and path.
type answers map[string]any

func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v, ok := a[r.Method+" "+r.URL.RequestURI()]
	if !ok {
		v, ok = a[r.Method+" "+r.URL.Path]
	}
	switch v := v.(type) {
	case http.HandlerFunc:
		v(w, r)
	case []api.Progress:
		send(w, v...)
	case *api.CallError:
		w.WriteHeader(v.Status)
		_ = json.NewEncoder(w).Encode(v.Body)
	default:
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			v = api.Error{Message: "there is nothing at " + r.Method + " " + r.URL.RequestURI()}
		}
		_ = json.NewEncoder(w).Encode(v)
	}
}

func send(w http.ResponseWriter, ps ...api.Progress) {
	for _, p := range ps {
		_ = json.NewEncoder(w).Encode(p)
		_ = http.NewResponseController(w).Flush()
	}
}

func shopTask(service string, slot int, state string) api.Task {
	name := "shop-" + service + "-" + string(rune('0'+slot))
	t := api.Task{
		ID: "id-" + name, App: "shop", Service: service, Slot: slot, Name: name, Image: "docker.io/library/" + service + ":1",
		Host: "host1", HostAddress: "10.88.0.11", Desired: "run", State: state, Container: "c-" + name,
		Addresses: map[string]string{"n": "10.208.0.5"}, StartedAt: now.Add(-3 * time.Minute), CreatedAt: now.Add(-4 * time.Minute),
	}
	if service == "web" {
		t.Ports = []model.Port{{HostPort: 80, ContainerPort: 9090, Protocol: "tcp", Mode: "host"}}
	}
	return t
}

func progressOf(tasks ...api.Task) []api.Progress {
	var out []api.Progress
	for _, t := range tasks {
		out = append(out, api.Progress{Release: 3, Task: &t})
	}
	return out
}

func readyHost(name, address string) api.Host {
	return api.Host{
		Host:   record.Host{ID: "id-" + name, Name: name, Address: address, Endpoint: "ssh://root@" + address},
		Status: "ready", Tasks: 1, Facts: &record.HostFacts{CPUs: 2, MemoryBytes: 4 << 30, EngineVersion: "28.5.2", AgentVersion: "0.1.0"},
	}
}
