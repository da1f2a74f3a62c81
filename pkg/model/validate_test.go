package model_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/model"
)

// valid is an application without a fault, for a test to spoil.
func valid() *model.Application {
	service := func(id string) *model.Entity {
		return &model.Entity{ID: id, Kind: model.KindService, Position: model.Position{File: "f.yaml", Line: 3}, Service: &model.Service{
			Image: "docker.io/library/redis:3", Replicas: 1, Restart: model.Restart{Policy: "no"},
			Networks: []model.Attachment{{Network: "default"}},
		}}
	}
	return &model.Application{
		Name: "app", Dialect: "compose",
		Entities: []*model.Entity{service("web"), service("db")},
		Networks: []*model.Network{{Name: "default"}},
	}
}

func TestValidateAcceptsValid(t *testing.T) {
	assert.Equal(t, len(model.Validate(valid())), 0)
}

func TestValidateFindsEachFault(t *testing.T) {
	port := func(host, container uint16, mode string) model.Port {
		return model.Port{HostPort: host, ContainerPort: container, Protocol: "tcp", Mode: mode}
	}
	for _, c := range []struct {
		want  string
		spoil func(a *model.Application, web, db *model.Service)
	}{
		{"the application has no name", func(a *model.Application, _, _ *model.Service) { a.Name = "" }},
		{`"App" cannot be the name`, func(a *model.Application, _, _ *model.Service) { a.Name = "App" }},
		{"cannot be the name of an application", func(a *model.Application, _, _ *model.Service) { a.Name = strings.Repeat("a", 64) }},
		{"the service has no id", func(a *model.Application, _, _ *model.Service) { a.Entities[0].ID = "" }},
		{`"-x" cannot be the name of a service`, func(a *model.Application, _, _ *model.Service) { a.Entities[0].ID = "-x" }},
		{"longer than the 63 bytes of a host name", func(a *model.Application, _, _ *model.Service) { a.Entities[0].ID = strings.Repeat("a", 58) }},
		{`two services have the name "web"; the other is on line 3`, func(a *model.Application, _, _ *model.Service) { a.Entities[1].ID = "web" }},
		{`have the same name to DNS`, func(a *model.Application, _, _ *model.Service) { a.Entities[1].ID = "WEB" }},
		{"services.web.image: the service has no image", func(_ *model.Application, web, _ *model.Service) { web.Image = "" }},
		{`"UPPER" is no image reference`, func(_ *model.Application, web, _ *model.Service) { web.Image = "UPPER" }},
		{"-1 replicas", func(_ *model.Application, web, _ *model.Service) { web.Replicas = -1 }},
		{`"sometimes" is no restart policy`, func(_ *model.Application, web, _ *model.Service) { web.Restart.Policy = "sometimes" }},
		{"goes with on-failure only", func(_ *model.Application, web, _ *model.Service) {
			web.Restart = model.Restart{Policy: "always", MaxRetries: 1}
		}},
		{"stop grace period cannot be negative", func(_ *model.Application, web, _ *model.Service) { web.StopGracePeriod = -time.Second }},
		{`"" cannot be the name of a variable`, func(_ *model.Application, web, _ *model.Service) { web.Env = []model.EnvVar{{}} }},
		{`"A=B" cannot be the name of a variable`, func(_ *model.Application, web, _ *model.Service) { web.Env = []model.EnvVar{{Name: "A=B"}} }},
		{`variable "A" is given twice`, func(_ *model.Application, web, _ *model.Service) { web.Env = []model.EnvVar{{Name: "A"}, {Name: "A"}} }},
		{"0 is no port of a container", func(_ *model.Application, web, _ *model.Service) { web.Ports = []model.Port{port(1, 0, "host")} }},
		{`protocol "sctp" is not supported`, func(_ *model.Application, web, _ *model.Service) {
			web.Ports = []model.Port{{ContainerPort: 1, Protocol: "sctp", Mode: "host"}}
		}},
		{`"global" is no mode of a port`, func(_ *model.Application, web, _ *model.Service) { web.Ports = []model.Port{port(1, 1, "global")} }},
		{"host port 80/tcp is published twice", func(_ *model.Application, web, _ *model.Service) {
			web.Ports = []model.Port{port(80, 1, "host"), {HostIP: "127.0.0.1", HostPort: 80, ContainerPort: 2, Protocol: "tcp", Mode: "host"}}
		}},
		{"container port 7/tcp is published twice", func(_ *model.Application, web, _ *model.Service) {
			web.Ports = []model.Port{port(0, 7, "host"), port(0, 7, "host")}
		}},
		{`published on every host by service "web" too`, func(_ *model.Application, web, db *model.Service) {
			web.Ports, db.Ports = []model.Port{port(80, 1, "ingress")}, []model.Port{port(80, 1, "host")}
		}},
		{`bind source "data" is not absolute`, func(_ *model.Application, web, _ *model.Service) {
			web.Mounts = []model.Mount{{Type: model.MountBind, Source: "data", Target: "/x"}}
		}},
		{`"/" cannot be mounted on`, func(_ *model.Application, web, _ *model.Service) {
			web.Mounts = []model.Mount{{Type: model.MountBind, Source: "/data", Target: "/"}}
		}},
		{`two mounts have the target "/x"`, func(_ *model.Application, web, _ *model.Service) {
			m := model.Mount{Type: model.MountBind, Source: "/data", Target: "/x"}
			web.Mounts = []model.Mount{m, m}
		}},
		{`cannot start with "RUN"`, func(_ *model.Application, web, _ *model.Service) {
			web.Healthcheck = &model.Healthcheck{Test: []string{"RUN"}}
		}},
		{"the health check runs nothing", func(_ *model.Application, web, _ *model.Service) {
			web.Healthcheck = &model.Healthcheck{Test: []string{"CMD"}}
		}},
		{"interval cannot be negative", func(_ *model.Application, web, _ *model.Service) {
			web.Healthcheck = &model.Healthcheck{Interval: -1}
		}},
		{"belong to the fleet", func(_ *model.Application, web, _ *model.Service) {
			web.Labels = map[string]string{"io.clocker.app": "x"}
		}},
		{"the service joins no network", func(_ *model.Application, web, _ *model.Service) { web.Networks = nil }},
		{`network "defalt" is not declared (did you mean "default"?)`, func(_ *model.Application, web, _ *model.Service) { web.Networks[0].Network = "defalt" }},
		{`network "default" is joined twice`, func(_ *model.Application, web, _ *model.Service) {
			web.Networks = append(web.Networks, web.Networks[0])
		}},
		{`alias "a b" cannot be a host name`, func(_ *model.Application, web, _ *model.Service) { web.Networks[0].Aliases = []string{"a b"} }},
		{`link to "dbb", which does not exist (did you mean "db"?)`, func(_ *model.Application, web, _ *model.Service) {
			web.Links = []model.Link{{Target: "dbb", Alias: "db"}}
		}},
		{`link alias "" cannot be a host name`, func(_ *model.Application, web, _ *model.Service) { web.Links = []model.Link{{Target: "db"}} }},
		{`two links are called "X"`, func(_ *model.Application, web, _ *model.Service) {
			web.Links = []model.Link{{Target: "db", Alias: "x"}, {Target: "db", Alias: "X"}}
		}},
		{`depends on "nothing", which does not exist (the services are web, db)`, func(_ *model.Application, web, _ *model.Service) {
			web.DependsOn = []model.Dependency{{Entity: "nothing", Condition: model.ConditionStarted}}
		}},
		{`"soon" is no condition`, func(_ *model.Application, web, _ *model.Service) {
			web.DependsOn = []model.Dependency{{Entity: "db", Condition: "soon"}}
		}},
		{"has no replicas and never starts", func(_ *model.Application, web, db *model.Service) {
			web.DependsOn = []model.Dependency{{Entity: "db", Condition: model.ConditionStarted}}
			db.Replicas = 0
		}},
		{`service "web" waits for itself`, func(_ *model.Application, web, _ *model.Service) {
			web.Links = []model.Link{{Target: "web", Alias: "web"}}
		}},
		{"in a cycle: web → db → web", func(_ *model.Application, web, db *model.Service) {
			web.Links = []model.Link{{Target: "db", Alias: "db"}}
			db.DependsOn = []model.Dependency{{Entity: "web", Condition: model.ConditionStarted}}
		}},
		{`two networks are called "default"`, func(a *model.Application, _, _ *model.Service) { a.Networks = append(a.Networks, a.Networks[0]) }},
		{`"a b" cannot be the name of a network`, func(a *model.Application, _, _ *model.Service) {
			a.Networks = append(a.Networks, &model.Network{Name: "a b"})
		}},
		{"needs the name it has in the fleet", func(a *model.Application, _, _ *model.Service) { a.Networks[0].External = true }},
		{"exists already and is what it is", func(a *model.Application, _, _ *model.Service) {
			a.Networks[0] = &model.Network{Name: "default", External: true, ExternalName: "x", Internal: true}
		}},
		{`"10.0.0.0" is no IPv4 subnet`, func(a *model.Application, _, _ *model.Service) { a.Networks[0].Subnet = "10.0.0.0" }},
		{`"fd00::/64" is no IPv4 subnet`, func(a *model.Application, _, _ *model.Service) { a.Networks[0].Subnet = "fd00::/64" }},
		{"has bits set beyond its prefix (such as 10.0.0.0/24)", func(a *model.Application, _, _ *model.Service) { a.Networks[0].Subnet = "10.0.0.1/24" }},
		{"has no room for containers", func(a *model.Application, _, _ *model.Service) { a.Networks[0].Subnet = "10.0.0.0/30" }},
		{"a gateway needs a subnet", func(a *model.Application, _, _ *model.Service) { a.Networks[0].Gateway = "10.0.0.1" }},
		{`"x" is no address`, func(a *model.Application, _, _ *model.Service) { a.Networks[0].Gateway = "x" }},
		{"gateway 10.1.0.1 is not inside 10.0.0.0/24", func(a *model.Application, _, _ *model.Service) {
			a.Networks[0].Subnet, a.Networks[0].Gateway = "10.0.0.0/24", "10.1.0.1"
		}},
	} {
		a := valid()
		c.spoil(a, a.Entities[0].Service, a.Entities[1].Service)
		got := model.Validate(a).Error()
		if !strings.Contains(got, c.want) || strings.Count(got, "\n") > 0 {
			t.Errorf("got %q, want just one problem with %q", got, c.want)
		}
	}
}

// TestValidateAllowsWhatIsNoFault guards against rules that are too strict.
func TestValidateAllowsWhatIsNoFault(t *testing.T) {
	a := valid()
	web, db := a.Entities[0].Service, a.Entities[1].Service
	on := func(ip string) model.Port {
		return model.Port{HostIP: ip, HostPort: 80, ContainerPort: 1, Protocol: "tcp", Mode: "host"}
	}
	// Placement keeps host ports of different services apart.
	web.Ports, db.Ports = []model.Port{on("127.0.0.1"), on("127.0.0.2")}, []model.Port{on("")}
	web.Replicas = 3
	web.Links = []model.Link{{Target: "db", Alias: "database"}}
	web.DependsOn = []model.Dependency{{Entity: "db", Condition: model.ConditionHealthy}}
	db.Replicas = 1
	db.Healthcheck = &model.Healthcheck{Disable: true}
	a.Networks[0].Subnet, a.Networks[0].Gateway = "10.9.0.0/24", "10.9.0.1"
	assert.Equal(t, len(model.Validate(a)), 0, "%v", model.Validate(a))
}

// TestCyclesAreFoundExactly compares with the definition: a service is on a
// cycle when it can reach itself.
func TestCyclesAreFoundExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "services")
		a := valid()
		proto := *a.Entities[0].Service
		a.Entities = nil
		reach := make([][]bool, n)
		for i := range n {
			s := proto
			a.Entities = append(a.Entities, &model.Entity{ID: fmt.Sprint("s", i), Kind: model.KindService, Service: &s})
			reach[i] = make([]bool, n)
		}
		for range rapid.IntRange(0, 9).Draw(t, "edges") {
			from, to := rapid.IntRange(0, n-1).Draw(t, "from"), rapid.IntRange(0, n-1).Draw(t, "to")
			reach[from][to] = true
			s := a.Entities[from].Service
			s.DependsOn = append(s.DependsOn, model.Dependency{Entity: fmt.Sprint("s", to), Condition: model.ConditionStarted})
		}
		for k := range n {
			for i := range n {
				for j := range n {
					reach[i][j] = reach[i][j] || reach[i][k] && reach[k][j]
				}
			}
		}
		cyclic := false
		for i := range n {
			cyclic = cyclic || reach[i][i]
		}
		if got := len(model.Validate(a)) > 0; got != cyclic {
			t.Fatalf("cyclic: %v, found: %v", cyclic, model.Validate(a))
		}
	})
}

func TestSlug(t *testing.T) {
	for in, want := range map[string]string{
		"Docker Hub Redis Service": "docker-hub-redis-service", "a_b": "a_b", "--": "", "é": "", "My Web-App_é": "my-web-app",
		strings.Repeat("ab", 40): strings.Repeat("ab", 40)[:63],
	} {
		assert.Equal(t, model.Slug(in), want)
	}
	rapid.Check(t, func(t *rapid.T) {
		if s := model.Slug(rapid.String().Draw(t, "text")); s != "" && !model.ValidName(s) {
			t.Fatalf("%q is no name", s)
		}
	})
}

func TestParseImage(t *testing.T) {
	const digest = "sha256:0123456789012345678901234567890123456789012345678901234567890123"
	for in, want := range map[string]string{
		"redis": "docker.io/library/redis:latest", "redis:3": "docker.io/library/redis:3", "amouat/dnmonster:1.0": "docker.io/amouat/dnmonster:1.0",
		"registry:5000/img:tag": "registry:5000/img:tag", "localhost/a": "localhost/a:latest",
		"redis@" + digest: "docker.io/library/redis@" + digest, "r:5/a:1@" + digest: "r:5/a:1@" + digest,
	} {
		got, err := model.ParseImage(in)
		assert.NilError(t, err)
		assert.Equal(t, got, want)
		again, err := model.ParseImage(got)
		assert.NilError(t, err)
		assert.Equal(t, again, want)
	}
	for _, in := range []string{"", "UPPER", "a b", "a:b:c", ":3", "a@sha256:12"} {
		if got, err := model.ParseImage(in); err == nil {
			t.Errorf("ParseImage(%q) = %q, want an error", in, got)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"openPorts", "directPorts", "links", "env"}
	for in, want := range map[string]string{"openPort": "openPorts", "OPENPORTS": "openPorts", "link": "links", "evn": "", "volumes": "", "": ""} {
		assert.Equal(t, model.Nearest(in, known), want, in)
	}
	assert.Equal(t, model.Nearest("redsi", []string{"redis", "mysql"}), "redis")
}

// TestJSONKeepsTheDifference holds that nothing of a model is lost in etcd:
// above all that an empty command stays different from none.
func TestJSONKeepsTheDifference(t *testing.T) {
	words := rapid.OneOf(rapid.Just[[]string](nil), rapid.SliceOfN(rapid.String(), 0, 3))
	value := rapid.Custom(func(t *rapid.T) model.Value {
		if rapid.Bool().Draw(t, "literal") {
			return model.Text(rapid.String().Draw(t, "text"))
		}
		e := &model.Expr{Func: "config", Args: []model.Value{model.Text("k")}, Target: &model.Expr{Func: "component", Args: []model.Value{model.Text("x")}}}
		if rapid.Bool().Draw(t, "map") {
			e = &model.Expr{Fields: map[string]model.Value{"a": {Expr: e}}}
		}
		return model.Value{Expr: e}
	})
	rapid.Check(t, func(t *rapid.T) {
		a := valid()
		s := a.Entities[0].Service
		s.Command, s.Entrypoint = words.Draw(t, "command"), words.Draw(t, "entrypoint")
		s.Replicas = rapid.IntRange(0, 9).Draw(t, "replicas")
		s.Env = []model.EnvVar{{Name: "A", Value: value.Draw(t, "value")}}
		s.StopGracePeriod = time.Duration(rapid.Int64Min(0).Draw(t, "grace"))
		s.Ports = []model.Port{{HostPort: rapid.Uint16().Draw(t, "port"), ContainerPort: 1, Protocol: "udp", Mode: "host", Position: model.Position{Line: 1}}}
		stored, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var again *model.Application
		if err := json.Unmarshal(stored, &again); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(a, again) {
			t.Fatalf("stored as %s", stored)
		}
	})
}

func TestExprString(t *testing.T) {
	e := &model.Expr{Func: "entitySpec", Args: []model.Value{{Expr: &model.Expr{Fields: map[string]model.Value{
		"b": model.Text("say \"hi\"\n"), "a": {Expr: &model.Expr{Args: []model.Value{model.Text("1"), {Expr: &model.Expr{Func: "self"}}}}},
	}}}}}
	assert.Equal(t, e.String(), `entitySpec({"a": ["1", self()], "b": "say \"hi\"\n"})`)
	assert.Equal(t, model.Value{Expr: e.Args[0].Expr.Fields["a"].Expr.Args[1].Expr}.String(), "$brooklyn:self()")
}
