package blueprint_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/blueprint"
	"clocker.io/clocker/pkg/model"
)

const deck = "../../examples/blueprints"

// TestDeck reads the nine blueprints of the talk: 01 and 05 make a model, the
// others are refused with everything that keeps them from running.
func TestDeck(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(deck, "*.yaml"))
	assert.NilError(t, err)
	assert.Equal(t, len(files), 9)
	for _, f := range files {
		name := filepath.Base(f)
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(f)
			assert.NilError(t, err)
			app, err := blueprint.Parse(name, content, blueprint.Options{})
			runs := strings.HasPrefix(name, "01-") || strings.HasPrefix(name, "05-")
			if runs {
				assert.NilError(t, err)
				out, err := json.MarshalIndent(app, "", "  ")
				assert.NilError(t, err)
				golden.Assert(t, string(out)+"\n", "deck/"+name+".golden")
				return
			}
			assert.Assert(t, app == nil)
			golden.Assert(t, problems(t, err), "deck/"+name+".golden")
		})
	}
}

// TestBad holds the messages for what is wrong, each problem of a file in one
// pass.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	assert.NilError(t, err)
	assert.Assert(t, len(files) > 10)
	for _, f := range files {
		name := filepath.Base(f)
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(f)
			assert.NilError(t, err)
			app, err := blueprint.Parse(name, content, blueprint.Options{})
			assert.Assert(t, app == nil)
			golden.Assert(t, problems(t, err), "bad/"+strings.TrimSuffix(name, ".yaml")+".golden")
		})
	}
}

// problems renders an error, which must be model.Problems that all know their
// file.
func problems(t *testing.T, err error) string {
	t.Helper()
	var ps model.Problems
	assert.Assert(t, errors.As(err, &ps), "error %v", err)
	assert.Assert(t, len(ps) > 0)
	for _, p := range ps {
		assert.Assert(t, p.Position.File != "", "%s", p)
	}
	return ps.Error() + "\n"
}

func parse(t *testing.T, text string) *model.Application {
	t.Helper()
	app, err := blueprint.Parse("app.yaml", []byte(text), blueprint.Options{})
	assert.NilError(t, err)
	return app
}

func TestName(t *testing.T) {
	const service = "\nservices: [{type: docker:redis}]\n"
	for _, c := range []struct {
		file, text string
		opts       blueprint.Options
		want       string
	}{
		{"f.yaml", "id: from-id\nname: From Name", blueprint.Options{}, "from-id"},
		{"f.yaml", "id: from-id", blueprint.Options{Name: "option"}, "option"},
		{"f.yaml", "id: Not Valid", blueprint.Options{Name: "option"}, "option"},
		{"f.yaml", "name: Docker Hub Redis Service!", blueprint.Options{}, "docker-hub-redis-service"},
		{"dir/My App.yaml", "version: 1", blueprint.Options{}, "my-app"},
		{"blueprint.yaml", "version: 1", blueprint.Options{DefaultName: "directory"}, "directory"},
		{"-", "name: x", blueprint.Options{}, "x"},
	} {
		app, err := blueprint.Parse(c.file, []byte(c.text+service), c.opts)
		assert.NilError(t, err)
		assert.Equal(t, app.Name, c.want)
	}
	_, err := blueprint.Parse("-", []byte("version: 1"+service), blueprint.Options{})
	assert.ErrorContains(t, err, "the application has no name")
	assert.ErrorContains(t, err, "--app NAME")
}

func TestVirtualNetwork(t *testing.T) {
	app := parse(t, `
id: app
services:
- type: brooklyn.networking.VirtualNetwork
  networkId: database-net
  brooklyn.config: {cidr: 192.168.34.0/24, gateway: 192.168.34.1}
  dnsServers: [192.0.2.53]
  dnsSearch: example.com
  addIptablesRules: false
- type: docker:redis:3
  id: redis
  network.list: [database-net]
`)
	n := app.Network("database-net")
	n.Position = model.Position{}
	assert.DeepEqual(t, *n, model.Network{Name: "database-net", ExternalName: "database-net", Subnet: "192.168.34.0/24", Gateway: "192.168.34.1",
		DNSServers: []model.Value{model.Text("192.0.2.53")}, DNSSearch: []string{"example.com"}, Unfiltered: true})
	joins := app.Entity("redis").Service.Networks
	assert.Equal(t, joins[0].Network+" "+joins[1].Network, "default database-net")

	_, err := blueprint.Parse("-", []byte(`
id: app
services:
- type: VirtualNetwork
  cidr: 192.168.34.0
  color: red
  addIptablesRules: perhaps
`), blueprint.Options{})
	for _, want := range []string{"the network has no networkId", `"perhaps" is neither`, `unknown key "color"`, "networks and no service"} {
		assert.ErrorContains(t, err, want)
	}
}

// TestServiceKeys holds every key that is built, in each of its spellings.
func TestServiceKeys(t *testing.T) {
	app := parse(t, `
id: app
name: "An app"
description: what it is
origin: https://example.com
version: 1.0
location: named:my-fleet
services:
- serviceType: docker:registry:5000/team/db@sha256:0123456789012345678901234567890123456789012345678901234567890123
  name: The database
  location: docker:my-fleet:h2
  docker.container.openPorts: ["6379", 6380]
  docker.container.environment:
    A: 1
    B: yes
    C: 0777
    D: ""
    E: $brooklyn:formatString("%S", "up")
    F: {$brooklyn:urlEncode: "a b"}
  docker.container.volumes.export: /var/lib/db/
  docker.container.volumes.shared: [/nfs/db]
  onHostLost: replace
  fence: 20s
- service_type: docker:redis
- type: docker:library/redis:7
  brooklyn.config:
    directPorts: [8080, 9990]
    docker.container.openPorts: [8080, 7]
  brooklyn.flags:
    portBindings: {80: 9090, "443": "9443"}
    links:
      redis-1: $brooklyn:component("redis")
      db: {$brooklyn:entity: db}
      again: $brooklyn:component("global", "redis")
`)
	assert.Equal(t, app.Title, "An app")
	assert.Equal(t, app.Description, "what it is")
	assert.Equal(t, app.Origin, "https://example.com")
	assert.Equal(t, app.Version, "1.0")
	assert.Equal(t, app.Location.Kind, "fleet")
	assert.Equal(t, app.Location.Name, "my-fleet")

	db, redis, third := app.Entities[0], app.Entities[1], app.Entities[2]
	assert.Equal(t, db.ID, "db")
	assert.Equal(t, redis.ID, "redis")
	assert.Equal(t, third.ID, "redis_2", "derived ids are unique")
	assert.Equal(t, db.Name, "The database")
	assert.Equal(t, db.Location.Name, "my-fleet")
	assert.Equal(t, db.Location.Host, "h2")
	assert.Equal(t, db.Service.Image, "registry:5000/team/db@sha256:0123456789012345678901234567890123456789012345678901234567890123")
	assert.Equal(t, redis.Service.Image, "docker.io/library/redis:latest")

	var env []string
	for _, v := range db.Service.Env {
		text, literal := v.Value.Literal()
		assert.Assert(t, literal)
		env = append(env, v.Name+"="+text)
	}
	assert.DeepEqual(t, env, []string{"A=1", "B=yes", "C=0777", "D=", "E=UP", "F=a+b"})
	assert.DeepEqual(t, db.Service.Mounts, []model.Mount{
		{Type: model.MountBind, Source: "/var/lib/db", Target: "/var/lib/db", CreateHostPath: true},
		{Type: model.MountBind, Source: "/nfs/db", Target: "/nfs/db", Shared: true},
	})
	assert.Equal(t, db.Service.Fence(), 20*time.Second)
	assert.DeepEqual(t, ports(db), [][2]uint16{{0, 6379}, {0, 6380}})
	// A port that is fixed is not opened besides.
	assert.DeepEqual(t, ports(third), [][2]uint16{{80, 9090}, {443, 9443}, {8080, 8080}, {9990, 9990}, {0, 7}})

	var links []string
	for _, l := range third.Service.Links {
		links = append(links, l.Alias+"="+l.Target)
	}
	assert.DeepEqual(t, links, []string{"redis-1=redis", "db=db", "again=redis"})
	for _, e := range app.Entities {
		assert.DeepEqual(t, e.Service.Networks, []model.Attachment{{Network: "default"}})
		assert.Equal(t, e.Service.Replicas, 1)
	}
}

func ports(e *model.Entity) [][2]uint16 {
	var out [][2]uint16
	for _, p := range e.Service.Ports {
		out = append(out, [2]uint16{p.HostPort, p.ContainerPort})
	}
	return out
}

func TestLocations(t *testing.T) {
	for _, c := range []struct{ text, kind, name, host string }{
		{"location: my-docker-cloud", "fleet", "my-docker-cloud", ""},
		{"locations: [my-docker-cloud]", "fleet", "my-docker-cloud", ""},
		{"locations: [{my-docker-cloud: }]", "fleet", "my-docker-cloud", ""},
		{"location: a\nlocations: [a]", "fleet", "a", ""},
		{"location: named:a", "fleet", "a", ""},
		{"location: docker:a", "fleet", "a", ""},
		{"location: docker:a:h1", "fleet", "a", "h1"},
		{`location: 'docker:a:h1:(name="x")'`, "fleet", "a", "h1"},
		{"location: localhost", "localhost", "localhost", ""},
	} {
		app := parse(t, "id: x\nservices: [{type: docker:redis}]\n"+c.text+"\n")
		assert.Equal(t, app.Location.Kind, c.kind, c.text)
		assert.Equal(t, app.Location.Name, c.name, c.text)
		assert.Equal(t, app.Location.Host, c.host, c.text)
	}
	assert.Assert(t, parse(t, "id: x\nservices: [{type: docker:redis}]\n").Location == nil)
}

// TestMerge holds that anchors and merge keys of YAML work.
func TestMerge(t *testing.T) {
	app := parse(t, `
id: x
services:
- &base
  type: docker:redis
  id: one
  env: {A: 1}
- <<: *base
  id: two
`)
	assert.Equal(t, app.Entities[1].ID, "two")
	assert.Equal(t, app.Entities[1].Service.Env[0].Name, "A")
}

// FuzzParse holds that any text gives a valid model, which survives JSON, or
// problems.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", deck + "/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, name := range files {
			content, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(content)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		app, err := blueprint.Parse("f.yaml", content, blueprint.Options{})
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
