package driver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/volume"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/volplugin/backend"
	"clocker.io/clocker/volplugin/backend/local"
)

// plugin is a driver behind a unix socket, spoken to as an engine does.
type plugin struct {
	*Driver
	t      *testing.T
	client *http.Client
	now    time.Time
}

func logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start opens a driver with a local backend in dir and serves it.
func start(t *testing.T, dir, boot string, more ...backend.Backend) *plugin {
	t.Helper()
	b, err := local.Open(dir, logger())
	assert.NilError(t, err)
	t.Cleanup(b.Close)
	p := &plugin{t: t, now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	d, err := Open(Config{Dir: dir, Backends: append([]backend.Backend{b}, more...), Boot: boot, Log: logger(), Now: func() time.Time { return p.now }})
	assert.NilError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() { _ = volume.NewHandler(d).Serve(l) }()
	p.Driver = d
	p.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	return p
}

// post calls a method and returns the answer, or the engine's view of the
// error.
func (p *plugin) post(method, body string) (map[string]any, error) {
	p.t.Helper()
	r, err := p.client.Post("http://plugin/"+method, "application/json", bytes.NewBufferString(body))
	assert.NilError(p.t, err)
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	assert.NilError(p.t, err)
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%d: %s", r.StatusCode, b)
	}
	if text, _ := m["Err"].(string); text != "" || r.StatusCode != http.StatusOK {
		return m, errors.New(text)
	}
	return m, nil
}

func (p *plugin) ok(method, format string, args ...any) map[string]any {
	p.t.Helper()
	m, err := p.post("VolumeDriver."+method, fmt.Sprintf(format, args...))
	assert.NilError(p.t, err)
	return m
}

func (p *plugin) fails(text, method, body string) {
	p.t.Helper()
	_, err := p.post("VolumeDriver."+method, body)
	assert.ErrorContains(p.t, err, text)
}

func (p *plugin) names() []string {
	p.t.Helper()
	var names []string
	for _, v := range p.ok("List", "{}")["Volumes"].([]any) {
		names = append(names, v.(map[string]any)["Name"].(string))
	}
	return names
}

func TestLifeOfAVolume(t *testing.T) {
	p := start(t, t.TempDir(), "b1")
	m, err := p.post("Plugin.Activate", "")
	assert.NilError(t, err)
	assert.DeepEqual(t, m["Implements"], []any{"VolumeDriver"})
	assert.DeepEqual(t, p.ok("Capabilities", ""), map[string]any{"Capabilities": map[string]any{"Scope": "local"}})
	assert.Equal(t, p.ok("Get", `{"Name":"data"}`)["Volume"], nil)
	assert.Equal(t, len(p.names()), 0)

	p.ok("Create", `{"Name":"data"}`)
	v := p.ok("Get", `{"Name":"data"}`)["Volume"].(map[string]any)
	assert.Equal(t, v["CreatedAt"], "2026-11-22T10:00:00Z")
	assert.DeepEqual(t, v["Status"], map[string]any{"backend": "local", "mounts": 0.0})
	path := p.ok("Mount", `{"Name":"data","ID":"a"}`)["Mountpoint"].(string)
	assert.Equal(t, path, v["Mountpoint"])
	assert.Equal(t, p.ok("Path", `{"Name":"data"}`)["Mountpoint"], path)
	assert.NilError(t, os.WriteFile(filepath.Join(path, "f"), nil, 0o600))
	p.ok("Create", `{"Name":"other","Opts":{"backend":"local"}}`)
	assert.DeepEqual(t, p.names(), []string{"data", "other"})

	p.fails(`remove volume "data": it is in use: mounted 1 times`, "Remove", `{"Name":"data"}`)
	p.ok("Unmount", `{"Name":"data","ID":"a"}`)
	p.ok("Remove", `{"Name":"data"}`)
	_, err = os.Stat(path)
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.DeepEqual(t, p.names(), []string{"other"})
	p.fails("no such volume", "Remove", `{"Name":"data"}`)
	p.fails("no such volume", "Mount", `{"Name":"data","ID":"a"}`)
	p.fails("no such volume", "Path", `{"Name":"data"}`)
	p.ok("Unmount", `{"Name":"data","ID":"a"}`)
	p.ok("Create", `{"Name":"data"}`)
	again := p.ok("Mount", `{"Name":"data","ID":"a"}`)["Mountpoint"].(string)
	assert.Assert(t, again != path, "the old content's place was used again")
}

// keeper is a backend that takes an option and can be made to fail.
type keeper struct {
	fail    error
	mounted map[string]int
	known   map[string]bool
	held    int   // what Holders answers, with
	blind   error // this error
}

func (k *keeper) Name() string      { return "keeper" }
func (k *keeper) Options() []string { return []string{"size"} }

func (k *keeper) Check(o map[string]string) error {
	if o["size"] == "0" {
		return errors.New("size 0 holds nothing")
	}
	return nil
}

func (k *keeper) Create(_ context.Context, v backend.Volume) error {
	if k.fail == nil {
		k.known[v.ID] = true
	}
	return k.fail
}

func (k *keeper) Mount(_ context.Context, v backend.Volume) (string, error) {
	if k.fail != nil {
		return "", k.fail
	}
	k.mounted[v.ID] = 1
	return "/keeper/" + v.ID, nil
}

func (k *keeper) Unmount(_ context.Context, v backend.Volume) error {
	if k.fail == nil {
		delete(k.mounted, v.ID)
	}
	return k.fail
}
func (k *keeper) Path(v backend.Volume) string { return "" }

func (k *keeper) Holders(context.Context, backend.Volume) (int, error) { return k.held, k.blind }

func (k *keeper) Remove(_ context.Context, v backend.Volume) error {
	if k.fail == nil {
		delete(k.known, v.ID)
	}
	return k.fail
}

func newKeeper() *keeper { return &keeper{mounted: map[string]int{}, known: map[string]bool{}} }

// Several engines may ask for one volume at once.
func TestCreateIsIdempotentForEqualOptions(t *testing.T) {
	p := start(t, t.TempDir(), "b1", newKeeper())
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := p.Create(&volume.CreateRequest{Name: "data", Options: map[string]string{"backend": "keeper", "size": "1"}}); err != nil {
				t.Errorf("create: %v", err)
			}
		})
	}
	wg.Wait()
	assert.DeepEqual(t, p.names(), []string{"data"})
	p.fails("it exists with other options: size=1", "Create", `{"Name":"data","Opts":{"backend":"keeper","size":"2"}}`)
	p.fails("it exists with other options: size=1", "Create", `{"Name":"data","Opts":{"backend":"keeper"}}`)
	p.fails("it exists with backend keeper", "Create", `{"Name":"data"}`)
}

func TestCreateRefuses(t *testing.T) {
	p := start(t, t.TempDir(), "b1", newKeeper())
	p.fails(`unknown option "a", "b": backend local knows backend`, "Create", `{"Name":"data","Opts":{"b":"1","a":"2"}}`)
	p.fails(`unknown option "x": backend keeper knows backend, size`, "Create", `{"Name":"data","Opts":{"x":"1","size":"1","backend":"keeper"}}`)
	p.fails(`unknown backend "tape" (there are: local, keeper)`, "Create", `{"Name":"data","Opts":{"backend":"tape"}}`)
	p.fails("size 0 holds nothing", "Create", `{"Name":"data","Opts":{"backend":"keeper","size":"0"}}`)
	for _, name := range []string{"", "a/b", "..", "-x", strings.Repeat("x", 256)} {
		body, err := json.Marshal(map[string]string{"Name": name})
		assert.NilError(t, err)
		p.fails("a name has up to 255", "Create", string(body))
	}
	_, err := p.post("VolumeDriver.Create", "{")
	assert.ErrorContains(t, err, "400")
	assert.Equal(t, len(p.names()), 0)
}

// docker cp mounts under the id of the running container, and unmounts.
func TestMountsAreCountedByID(t *testing.T) {
	k := newKeeper()
	p := start(t, t.TempDir(), "b1", k)
	p.ok("Create", `{"Name":"data","Opts":{"backend":"keeper"}}`)
	for _, id := range []string{"a", "a", "b"} {
		p.ok("Mount", `{"Name":"data","ID":%q}`, id)
	}
	for _, id := range []string{"a", "b", "nobody", "b"} {
		p.ok("Unmount", `{"Name":"data","ID":%q}`, id)
	}
	assert.Equal(t, len(k.mounted), 1)
	p.fails("in use", "Remove", `{"Name":"data"}`)
	p.ok("Unmount", `{"Name":"data","ID":"a"}`)
	assert.Equal(t, len(k.mounted), 0)
	p.ok("Unmount", `{"Name":"data","ID":"a"}`)
	p.ok("Remove", `{"Name":"data"}`)
}

// An engine that is killed never unmounts, and mounts again under an id that
// it had: what it left must not keep the volume for ever.
func TestCountsOfAnEngineThatIsGone(t *testing.T) {
	for name, c := range map[string]struct {
		held    int
		blind   error
		later   time.Duration
		refused string
	}{
		"a container has it":          {held: 1, later: time.Hour, refused: "mounted 3 times, and seen mounted in 1 places"},
		"a container may be starting": {later: time.Minute, refused: "try again in 1m0s"},
		"nobody can tell":             {blind: errors.New("no /proc"), later: time.Hour, refused: "mounted 3 times"},
		"the clock was put back":      {later: -time.Minute, refused: "try again in 1m0s"},
		"nobody has it":               {later: 2 * time.Minute},
		"the clock was put far back":  {later: -time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeper()
			p := start(t, t.TempDir(), "b1", k)
			p.ok("Create", `{"Name":"data","Opts":{"backend":"keeper"}}`)
			for _, id := range []string{"a", "a", "b"} {
				p.ok("Mount", `{"Name":"data","ID":%q}`, id)
			}
			k.held, k.blind, p.now = c.held, c.blind, p.now.Add(c.later)
			if c.refused != "" {
				p.fails(c.refused, "Remove", `{"Name":"data"}`)
				return
			}
			p.ok("Remove", `{"Name":"data"}`)
		})
	}
}

// A mount that nobody counted keeps the volume.
func TestUncountedMount(t *testing.T) {
	k := newKeeper()
	p := start(t, t.TempDir(), "b1", k)
	p.ok("Create", `{"Name":"data","Opts":{"backend":"keeper"}}`)
	k.held = 2
	p.fails("mounted 0 times, and seen mounted in 2 places", "Remove", `{"Name":"data"}`)
}

func TestRestartKeepsVolumesAndMounts(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "b1")
	p.ok("Create", `{"Name":"data"}`)
	path := p.ok("Mount", `{"Name":"data","ID":"a"}`)["Mountpoint"].(string)
	p.ok("Mount", `{"Name":"data","ID":"a"}`)
	_, err := Open(Config{Dir: dir, Boot: "b1", Log: logger()})
	assert.ErrorContains(t, err, "another process has it open")
	assert.NilError(t, p.Close())

	p = start(t, dir, "b1")
	p.ok("Unmount", `{"Name":"data","ID":"a"}`)
	p.fails("in use", "Remove", `{"Name":"data"}`)
	assert.Equal(t, p.ok("Path", `{"Name":"data"}`)["Mountpoint"], path)
	assert.NilError(t, p.Close())

	// After a boot nothing is mounted.
	p = start(t, dir, "b2")
	p.ok("Remove", `{"Name":"data"}`)
}

func TestFailuresLeaveNothingHalfMade(t *testing.T) {
	k := newKeeper()
	p := start(t, t.TempDir(), "b1", k)
	k.fail = errors.New("disk on fire")
	p.fails("disk on fire", "Create", `{"Name":"data","Opts":{"backend":"keeper"}}`)
	assert.Equal(t, len(p.names()), 0)
	k.fail = nil
	p = start(t, t.TempDir(), "b1", k)
	p.ok("Create", `{"Name":"data","Opts":{"backend":"keeper"}}`)
	k.fail = errors.New("disk on fire")
	p.fails("disk on fire", "Mount", `{"Name":"data","ID":"a"}`)
	p.fails("disk on fire", "Remove", `{"Name":"data"}`)
	assert.DeepEqual(t, p.names(), []string{"data"})
	k.fail = nil
	p.ok("Mount", `{"Name":"data","ID":"a"}`)
	k.fail = errors.New("busy")
	p.fails("busy", "Unmount", `{"Name":"data","ID":"a"}`)
	p.fails("in use", "Remove", `{"Name":"data"}`)
	k.fail = nil
	p.ok("Unmount", `{"Name":"data","ID":"a"}`)
	p.ok("Remove", `{"Name":"data"}`)
	assert.Equal(t, len(k.known), 0)
}

// A crash in the middle of a change: the next start finishes it.
func TestInterruptedChangesAreFinished(t *testing.T) {
	dir := t.TempDir()
	s := state{Version: stateVersion, Boot: "b1", Volumes: map[string]*entry{
		"half": {ID: "1", Backend: "local", Creating: true}, "gone": {ID: "2", Backend: "local", Removing: true},
	}}
	assert.NilError(t, s.save(dir))
	assert.NilError(t, os.MkdirAll(filepath.Join(dir, "volumes", "2", "content"), 0o700))
	p := start(t, dir, "b1")
	assert.DeepEqual(t, p.names(), []string{"half"})
	p.ok("Mount", `{"Name":"half","ID":"a"}`)
	_, err := os.Stat(filepath.Join(dir, "volumes", "2"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestStateThatCannotBeRead(t *testing.T) {
	for text, content := range map[string]string{
		"unexpected end":          `{"version":1,`,
		"it has layout 2":         `{"version":2}`,
		`unknown backend "tape"`:  `{"version":1,"volumes":{"a":{"id":"1","backend":"tape"}}}`,
		`volume "a" has no valid`: `{"version":1,"volumes":{"a":{"id":"../../etc","backend":"local"}}}`,
		`volume "b" has no valid`: `{"version":1,"volumes":{"b":null}}`,
	} {
		dir := t.TempDir()
		assert.NilError(t, os.WriteFile(file(dir), []byte(content), 0o600))
		_, err := Open(Config{Dir: dir, Backends: []backend.Backend{newKeeper()}, Log: logger()})
		assert.ErrorContains(t, err, text)
		kept, err := os.ReadFile(file(dir))
		assert.NilError(t, err)
		assert.Equal(t, string(kept), content)
	}
}

// A state that cannot be written is an error of the call, and the call can be
// made again.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	p := start(t, dir, "b1")
	p.ok("Create", `{"Name":"data"}`)
	state := file(dir)
	assert.NilError(t, os.Rename(state, state+".away"))
	assert.NilError(t, os.Mkdir(state, 0o700)) // cannot be replaced by a file
	p.fails("write volume state", "Mount", `{"Name":"data","ID":"a"}`)
	p.fails("write volume state", "Create", `{"Name":"other"}`)
	p.fails("write volume state", "Remove", `{"Name":"data"}`)
	assert.NilError(t, os.Remove(state))
	assert.DeepEqual(t, p.names(), []string{"data"})
	p.ok("Create", `{"Name":"other"}`)
	p.ok("Remove", `{"Name":"data"}`)
	assert.NilError(t, p.Close())
	assert.DeepEqual(t, start(t, dir, "b1").names(), []string{"other"})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"version":1,"boot":"b","volumes":{"a":{"id":"1","backend":"local","mounts":{"x":2}}}}`))
	f.Add([]byte(`{"version":1,"volumes":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(file(dir), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := load(dir)
		if err != nil {
			return
		}
		for _, v := range s.Volumes {
			v.count("x", 1)
		}
		s.Volumes["new"] = &entry{ID: "1"}
		if err := s.save(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := load(dir); err != nil {
			t.Fatal(err)
		}
	})
}
