package compose_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/compose"
	"clocker.io/clocker/pkg/model"
)

// file reads a file of testdata under its base name.
func file(t *testing.T, name string) compose.File {
	t.Helper()
	content, err := os.ReadFile(name)
	assert.NilError(t, err)
	return compose.File{Name: filepath.Base(name), Content: content}
}

func absolute(t *testing.T, dir string) string {
	t.Helper()
	abs, err := filepath.Abs(dir)
	assert.NilError(t, err)
	return abs
}

func load(t *testing.T, text string, opts compose.Options) (*model.Application, []string) {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	if opts.Name == "" && opts.DefaultName == "" {
		opts.DefaultName = "app"
	}
	app, warnings, err := compose.Load(t.Context(), []compose.File{{Name: "compose.yaml", Content: []byte(text)}}, opts)
	assert.NilError(t, err)
	return app, warnings
}

// problems renders an error, which must be model.Problems.
func problems(t *testing.T, err error) string {
	t.Helper()
	var ps model.Problems
	assert.Assert(t, errors.As(err, &ps), "error %v", err)
	assert.Assert(t, len(ps) > 0)
	return ps.Error() + "\n"
}

// TestBad holds the messages for what is wrong, each problem of a file in one
// pass.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	assert.NilError(t, err)
	assert.Assert(t, len(files) > 10)
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			dir := absolute(t, "testdata/bad")
			app, _, err := compose.Load(t.Context(), []compose.File{file(t, f)}, compose.Options{Dir: dir})
			assert.Assert(t, app == nil)
			golden.Assert(t, strings.ReplaceAll(problems(t, err), dir, "DIR"), "bad/"+name+".golden")
		})
	}
}

// TestForeign finds what the files named by include and extends say.
func TestForeign(t *testing.T) {
	_, _, err := compose.Load(t.Context(), []compose.File{file(t, "testdata/foreign/compose.yaml")}, compose.Options{Dir: absolute(t, "testdata/foreign")})
	golden.Assert(t, problems(t, err), "foreign/compose.golden")
}

// TestGood reads a file with every key that is done.
func TestGood(t *testing.T) {
	app, warnings, err := compose.Load(t.Context(), []compose.File{file(t, "testdata/good/compose.yaml")}, compose.Options{Dir: absolute(t, "testdata/good")})
	assert.NilError(t, err)
	assert.DeepEqual(t, warnings, []string{`compose.yaml:6: variable "UNDEF" is not set and stands for an empty text`})
	out, err := json.MarshalIndent(app, "", "  ")
	assert.NilError(t, err)
	golden.Assert(t, string(out)+"\n", "good/compose.golden")
}

// TestNetworkKeys reads what can be said of networks.
func TestNetworkKeys(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "compose.yaml")
	write := func(text string) []compose.File {
		assert.NilError(t, os.WriteFile(path, []byte(text), 0o600))
		return []compose.File{file(t, path)}
	}
	app, _, err := compose.Load(t.Context(), write(`
name: app
services:
  a:
    image: z
    networks:
      late: {ipv6_address: "fd12::20"}
      first: {priority: 10, gw_priority: 3, ipv4_address: 10.1.0.20, mac_address: "02:42:00:00:00:01", aliases: [x]}
networks:
  first:
    attachable: true
    internal: true
    labels: {a: b}
    driver_opts: {com.docker.network.driver.mtu: 1400, clocker.segment: bridged, clocker.carrier: vxlan}
    ipam: {config: [{subnet: 10.1.0.0/16, ip_range: 10.1.8.0/24, gateway: 10.1.0.9, aux_addresses: {r: 10.1.0.5}}]}
    x-clocker: {dns: [192.0.2.53], dns_search: example.com, addIptablesRules: false}
  late: {enable_ipv4: false, enable_ipv6: true, ipam: {config: [{subnet: "fd12::/64", gateway: "fd12::1"}]}}
`), compose.Options{Dir: dir})
	assert.NilError(t, err)
	joins := app.Entity("a").Service.Networks
	joins[0].Position, joins[1].Position = model.Position{}, model.Position{}
	assert.DeepEqual(t, joins, []model.Attachment{
		{Network: "first", Aliases: []string{"x"}, Address: "10.1.0.20", MAC: "02:42:00:00:00:01", GatewayPriority: 3},
		{Network: "late", Address6: "fd12::20"},
	})
	first, late := app.Network("first"), app.Network("late")
	first.Position, late.Position = model.Position{}, model.Position{}
	assert.DeepEqual(t, *first, model.Network{
		Name: "first", Internal: true, Attachable: true, Subnet: "10.1.0.0/16", Gateway: "10.1.0.9", Range: "10.1.8.0/24", Reserved: []string{"10.1.0.5"},
		Segment: "bridged", Carrier: "vxlan", MTU: 1400, Labels: map[string]string{"a": "b"},
		DNSServers: []model.Value{model.Text("192.0.2.53")}, DNSSearch: []string{"example.com"}, Unfiltered: true,
	})
	assert.DeepEqual(t, *late, model.Network{Name: "late", NoIPv4: true, IPv6: true, Subnet6: "fd12::/64", Gateway6: "fd12::1"})

	_, _, err = compose.Load(t.Context(), write(`
name: app
services: {a: {image: z, networks: [n, m]}}
networks:
  n: {x-clocker: {dsn: 1, mtu: many, addIptablesRules: perhaps}}
  m: {driver: macvlan, driver_opts: {parent: eth1, clocker.wibble: x}}
`), compose.Options{Dir: dir})
	for _, want := range []string{"compose.yaml:5:19: networks.n.x-clocker.dsn", `"many" is no MTU`, `"perhaps" is neither`, `unknown driver option "clocker.wibble"`} {
		assert.Assert(t, strings.Contains(problems(t, err), want), "%s\n%s", want, problems(t, err))
	}
}

func TestExamples(t *testing.T) {
	dir := absolute(t, "../../examples/compose")
	app, warnings, err := compose.Load(t.Context(), []compose.File{file(t, filepath.Join(dir, "thirty.yaml"))}, compose.Options{Dir: dir})
	assert.NilError(t, err)
	assert.Equal(t, len(warnings), 0)
	assert.Equal(t, len(app.Services()), 10)
	total := 0
	for _, e := range app.Services() {
		total += e.Service.Replicas
		assert.Equal(t, e.Service.Image, "clocker.io/test/web:1")
	}
	assert.Equal(t, total, 30)

	app, warnings, err = compose.Load(t.Context(), []compose.File{file(t, filepath.Join(dir, "web.yaml"))}, compose.Options{Dir: dir})
	assert.NilError(t, err)
	assert.Equal(t, len(warnings), 0)
	assert.Equal(t, app.Name, "counter")
	assert.Equal(t, app.Entity("redis").Service.Healthcheck.Retries, 10)
	assert.Equal(t, app.Entity("web").Service.DependsOn[0].Condition, model.ConditionHealthy)
}

func TestName(t *testing.T) {
	const service = "services: {a: {image: x}}\n"
	for _, c := range []struct {
		text string
		opts compose.Options
		want string
	}{
		{"name: in-file\n", compose.Options{DefaultName: "other"}, "in-file"},
		{"name: ${N}-x\n", compose.Options{Env: map[string]string{"N": "n"}}, "n-x"},
		{"name: in-file\n", compose.Options{Name: "option", Env: map[string]string{"COMPOSE_PROJECT_NAME": "env"}}, "option"},
		{"name: in-file\n", compose.Options{Env: map[string]string{"COMPOSE_PROJECT_NAME": "env"}}, "env"},
		{"", compose.Options{DefaultName: "other"}, "other"},
		{"", compose.Options{Dir: "/srv/My.App"}, "myapp"},
	} {
		app, _, err := compose.Load(t.Context(), []compose.File{{Name: "f", Content: []byte(c.text + service)}}, c.opts)
		assert.NilError(t, err)
		assert.Equal(t, app.Name, c.want)
	}
	_, _, err := compose.Load(t.Context(), []compose.File{{Name: "f", Content: []byte(service)}}, compose.Options{Name: "Not Valid"})
	assert.ErrorContains(t, err, `"Not Valid" cannot be the name of an application`)
	_, _, err = compose.Load(t.Context(), []compose.File{{Name: "f", Content: []byte(service)}}, compose.Options{})
	assert.ErrorContains(t, err, "name")
}

func TestProfiles(t *testing.T) {
	const text = "services: {a: {image: x}, b: {image: x, profiles: [p]}, c: {image: x, profiles: [q]}}"
	ids := func(opts compose.Options) (out []string) {
		app, _ := load(t, text, opts)
		for _, e := range app.Entities {
			out = append(out, e.ID)
		}
		return out
	}
	assert.DeepEqual(t, ids(compose.Options{}), []string{"a"})
	assert.DeepEqual(t, ids(compose.Options{Profiles: []string{"p"}}), []string{"a", "b"})
	assert.DeepEqual(t, ids(compose.Options{Env: map[string]string{"COMPOSE_PROFILES": "p, q"}}), []string{"a", "b", "c"})
}

// TestVariables holds where variables come from: the caller, then .env.
func TestVariables(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, ".env"), []byte("TAG=dot\nOTHER=dot\n"), 0o600))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "own.env"), []byte("TAG=own\n"), 0o600))
	const text = `services: {a: {image: "x:${TAG}-${OTHER:-none}"}}`
	for _, c := range []struct {
		opts compose.Options
		want string
	}{
		{compose.Options{Dir: dir}, "docker.io/library/x:dot-dot"},
		{compose.Options{Dir: dir, Env: map[string]string{"TAG": "env"}}, "docker.io/library/x:env-dot"},
		{compose.Options{Dir: dir, EnvFiles: []string{filepath.Join(dir, "own.env")}}, "docker.io/library/x:own-none"},
	} {
		app, warnings := load(t, text, c.opts)
		assert.Equal(t, app.Entities[0].Service.Image, c.want)
		assert.Equal(t, len(warnings), 0)
	}
	_, _, err := compose.Load(t.Context(), []compose.File{{Name: "f", Content: []byte(text)}}, compose.Options{Dir: dir, DefaultName: "x", EnvFiles: []string{filepath.Join(dir, "gone.env")}})
	assert.ErrorContains(t, err, "gone.env")
}

// TestWarnings holds that what compose warns of reaches the caller, once, and
// not the process's own log.
func TestWarnings(t *testing.T) {
	var log strings.Builder
	old := logrus.StandardLogger().Out
	logrus.SetOutput(&log)
	defer logrus.SetOutput(old)
	app, warnings := load(t, `version: "3"
name: My App
services:
  a:
    image: x
    command: echo ${ONE} ${ONE} ${TWO:-${THREE}}
`, compose.Options{})
	assert.Equal(t, app.Name, "myapp")
	slices.Sort(warnings)
	assert.DeepEqual(t, warnings, []string{
		"compose.yaml:1:1: version is obsolete and ignored",
		`compose.yaml:2:7: the name "My App" is read as "myapp"`,
		`compose.yaml:6: variable "ONE" is not set and stands for an empty text`,
		`compose.yaml:6: variable "THREE" is not set and stands for an empty text`,
	})
	assert.Equal(t, log.String(), "")
	logrus.Warn("works again")
	assert.Assert(t, strings.Contains(log.String(), "works again"))
}

// TestPortsAreOfTheHost holds what a port without a mode means: what it does
// in docker compose, not in a swarm.
func TestPortsAreOfTheHost(t *testing.T) {
	app, _ := load(t, "services: {a: {image: x, ports: [80, '81:81', {target: 82}, {target: 83, mode: host}]}, b: {image: x, ports: ['81:81']}}", compose.Options{})
	for _, e := range app.Entities {
		for _, p := range e.Service.Ports {
			assert.Equal(t, p.Mode, "host")
		}
	}
}

// TestOverride merges a second file, which may take back what the first says.
func TestOverride(t *testing.T) {
	app, _, err := compose.Load(t.Context(), []compose.File{
		{Name: "compose.yaml", Content: []byte("services: {a: {image: x, ports: ['80:80'], environment: {A: '1', B: '1'}}, b: {image: y}}")},
		{Name: "compose.override.yaml", Content: []byte("services: {a: {ports: !reset [], environment: {B: '2'}}, c: {image: z}}")},
	}, compose.Options{DefaultName: "app"})
	assert.NilError(t, err)
	a := app.Entity("a").Service
	assert.Equal(t, len(a.Ports), 0)
	assert.DeepEqual(t, a.Env, []model.EnvVar{{Name: "A", Value: model.Text("1")}, {Name: "B", Value: model.Text("2")}})
	assert.Equal(t, app.Entities[0].ID, "b", "a service that the override changes is placed by it")
	assert.Equal(t, app.Entity("c").Position.File, "compose.override.yaml")

	_, _, err = compose.Load(t.Context(), []compose.File{
		{Name: "compose.yaml", Content: []byte("services: {a: {image: x}}")},
		{Name: "compose.override.yaml", Content: []byte("services:\n  a:\n    privileged: true\n")},
	}, compose.Options{DefaultName: "app"})
	assert.ErrorContains(t, err, `compose.override.yaml:3:5: services.a.privileged: "privileged" is not supported yet`)
}

// TestRemote keeps a file of another machine from naming files of this one.
func TestRemote(t *testing.T) {
	dir := t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, ".env"), []byte("TAG=secret\n"), 0o600))
	load := func(text string) (*model.Application, error) {
		app, _, err := compose.Load(t.Context(), []compose.File{{Name: "https://x/f", Remote: true, Content: []byte(text)}}, compose.Options{Dir: dir, DefaultName: "x"})
		return app, err
	}
	for _, text := range []string{
		"services: {a: {image: x, env_file: .env}}",
		"services: {a: {extends: {file: x.yaml, service: a}, image: x}}",
		"include: [x.yaml]\nservices: {a: {image: x}}",
	} {
		_, err := load(text)
		assert.ErrorContains(t, err, "cannot name files of this one")
	}
	app, err := load(`services: {a: {image: "x:${TAG:-none}"}}`)
	assert.NilError(t, err)
	assert.Equal(t, app.Entities[0].Service.Image, "docker.io/library/x:none")
}

func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := compose.Load(ctx, nil, compose.Options{})
	assert.ErrorIs(t, err, context.Canceled)
}

// FuzzLoad holds that any text gives a valid model, which survives JSON, or
// problems, and that nothing refused gets through.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.yaml", "../../examples/compose/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			content, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, content []byte) {
		app, _, err := compose.Load(t.Context(), []compose.File{{Name: "f.yaml", Content: content, Remote: true}}, compose.Options{Dir: dir, DefaultName: "f"})
		if err != nil {
			problems(t, err)
			return
		}
		assert.Equal(t, len(model.Validate(app)), 0)
		stored, err := json.Marshal(app)
		assert.NilError(t, err)
		var again *model.Application
		assert.NilError(t, json.Unmarshal(stored, &again))
		assert.DeepEqual(t, again, app)
	})
}

// A port is published on every host only where the file says so, and a
// service's name answers with its own address unless it says otherwise.
func TestEveryHost(t *testing.T) {
	app, warnings := load(t, `services: {a: {image: x, deploy: {endpoint_mode: dnsrr}, ports: [
		"80:80", {target: 81, published: "81"}, {target: 82, mode: ingress}, {target: 83, published: "83", mode: host}]}}`, compose.Options{})
	assert.Equal(t, len(warnings), 0)
	s := app.Entity("a").Service
	assert.Equal(t, s.EndpointMode, model.EndpointDNSRR)
	var modes []string
	for _, p := range s.Ports {
		modes = append(modes, p.Mode)
	}
	assert.DeepEqual(t, modes, []string{"host", "host", "ingress", "host"})
	_, _, err := compose.Load(t.Context(), []compose.File{{Name: "f", Content: []byte("services: {a: {image: x, deploy: {endpoint_mode: both}}}")}}, compose.Options{Name: "f"})
	assert.ErrorContains(t, err, `"both" is no endpoint mode`)
}
