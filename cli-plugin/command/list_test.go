package command

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/record"
)

func notThere(what string) *api.CallError {
	return &api.CallError{Status: 404, Body: api.Error{Message: "there is no " + what}}
}

func fleetOfShop() answers {
	tasks := []api.Task{shopTask("web", 2, "running"), shopTask("web", 1, "running"), shopTask("db", 1, "running")}
	event := func(id string, age time.Duration, typ, app string) record.Event {
		return record.Event{ID: id, At: now.Add(-age), Type: typ, Action: "created", Subject: "shop-" + id, Attrs: map[string]string{"app": app}}
	}
	return answers{
		"GET /v1/applications": []api.Application{
			{Name: "shop", Status: "running", Services: 2, Replicas: 3, Running: 3, Release: 3, UpdatedAt: now.Add(-time.Hour)},
		},
		"GET /v1/applications/shop":         api.ApplicationDetail{Application: api.Application{Name: "shop", Status: "running"}},
		"GET /v1/applications/other":        notThere("application other"),
		"GET /v1/tasks":                     tasks,
		"GET /v1/tasks?app=shop":            tasks,
		"GET /v1/tasks?app=empty":           []api.Task{},
		"GET /v1/tasks?app=other":           notThere("application other"),
		"GET /v1/applications/empty":        api.ApplicationDetail{},
		"GET /v1/applications/id-shop-db-1": notThere("application id-shop-db-1"),
		"GET /v1/applications/shop-db-1":    notThere("application shop-db-1"),
		"GET /v1/hosts":                     []api.Host{readyHost("host1", "10.88.0.11"), readyHost("host2", "10.88.0.12")},
		"GET /v1/hosts/host1":               readyHost("host1", "10.88.0.11"),
		"GET /v1/hosts/host9":               notThere("host host9"),
		"GET /v1/info":                      api.Info{Fleet: "test", Version: "0.1.0", Commit: "abc", Leader: "https://10.88.0.11:7480", EtcdKind: "embedded", Hosts: 2, HostsUp: 2, Tasks: 3, Running: 3},
		"GET /v1/events": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			send(w)
			for _, e := range []record.Event{event("1", time.Hour, "task", "shop"), event("2", time.Minute, "host", "shop"), event("3", time.Second, "task", "blog"), event("4", time.Second, "task", "shop")} {
				writeJSON(w, e)
			}
		}),
	}
}

func TestListsAndTheirFormats(t *testing.T) {
	m := newMachine(t)
	m.serve(fleetOfShop())
	for name, args := range map[string]string{
		"ls":             "ls",
		"ls-json":        "ls --format json",
		"ps":             "ps",
		"ps-app":         "ps shop",
		"ps-quiet":       "ps -q shop",
		"ps-empty":       "ps empty",
		"host-ls":        "host ls",
		"host-ls-quiet":  "host ls -q",
		"inspect":        "inspect shop shop-db-1",
		"inspect-format": "inspect --format {{.Name}} shop id-shop-db-1",
		"host-inspect":   "host inspect host1",
		"fleet-ls":       "fleet ls --format {{.Name}}:{{.Current}}",
		"events":         "events --since 10m --until 0s --filter type=task --filter app=shop",
		"events-all":     "events --since 2h --until 0s --format {{.ID}}",
	} {
		t.Run(name, func(t *testing.T) {
			r := m.run(strings.Fields(args)...)
			assert.Equal(t, r.code, ExitOK, r.err)
			assert.Equal(t, r.err, "")
			golden.Assert(t, r.out, name+".golden")
		})
	}
}

func TestVersionShowsBothSides(t *testing.T) {
	m := newMachine(t)
	r := m.run("version", "--format", "{{.Client.OS}} {{.Controller}}")
	assert.Equal(t, r.code, ExitOK, r.err) // a machine without a fleet has a version too
	assert.Equal(t, r.out, "linux <nil>\n")
	m.serve(fleetOfShop())
	r = m.run("version", "--format", "{{.Controller.Version}}")
	assert.Equal(t, r.out, "0.1.0\n", r.err)
	r = m.run("version")
	assert.Assert(t, strings.Contains(r.out, "Controller:\n Fleet:"), r.out)
}

func TestMistakesSayWhatAndExitWithTheirCode(t *testing.T) {
	m := newMachine(t)
	f := apitest.NewFleet(t)
	m.join("test", f, f.Serve(fleetOfShop()).URL)
	gone := f.Serve(http.NotFoundHandler())
	gone.Close()
	m.join("away", f, gone.URL)
	for args, want := range map[string]run{
		"--fleet test ps other":                    {ExitNotFound, "", "there is no application other\n"},
		"--fleet test inspect shop-x-1":            {ExitNotFound, "[]\n", "no such application or task: shop-x-1\n"},
		"--fleet test host inspect host9":          {ExitNotFound, "[]\n", "there is no host host9\n"},
		"--fleet test logs shop nope":              {ExitNotFound, "", "shop has no service \"nope\" with a replica: it has db, web\n"},
		"--fleet test exec shop db --index":        {ExitNotFound, "", ""},
		"--fleet test logs --since soon shop":      {ExitInvalid, "", "\"soon\" is no time: give a duration such as 10m or a time such as 2026-01-02T15:04:05Z\n"},
		"--fleet test events --filter x":           {ExitInvalid, "", "filter \"x\" is not KEY=VALUE\n"},
		"--fleet test events --until 0s --since x": {ExitInvalid, "", "\"x\" is no time: give a duration such as 10m or a time such as 2026-01-02T15:04:05Z\n"},
		"--fleet nowhere ls":                       {ExitUnreachable, "", "fleet \"nowhere\": no such fleet: this machine knows away, test\n"},
		"ls":                                       {ExitUnreachable, "", ""},
		"fleet use nowhere":                        {ExitUnreachable, "", "fleet \"nowhere\": no such fleet: this machine knows away, test\n"},
		"--fleet Bad_Name ls":                      {ExitInvalid, "", ""},
		"--fleet away ls": {ExitUnreachable, "", "no controller answers:\n  " + gone.URL + ": connect: connection refused\n" +
			"Look for the container clocker-controller on that machine (docker ps -a), or choose another fleet with --fleet.\n"},
		"nope":                              {ExitInvalid, "", "unknown command: docker clocker nope\n\nRun 'docker clocker --help' for more information\n"},
		"deploy":                            {ExitInvalid, "", ""},
		"ps --nope":                         {ExitInvalid, "", ""},
		"init --label =x":                   {ExitInvalid, "", "label \"=x\" is not KEY=VALUE\n"},
		"init --etcd-ca x":                  {ExitInvalid, "", "--etcd-ca, --etcd-cert and --etcd-key go with --etcd\n"},
		"host add --name x ssh://a ssh://b": {ExitInvalid, "", "--name and --address are for one host: add the hosts one by one, or list them in a file\n"},
	} {
		t.Run(args, func(t *testing.T) {
			r := m.run(strings.Fields(args)...)
			assert.Equal(t, r.code, want.code, r.err)
			assert.Equal(t, r.out, want.out)
			if want.err != "" {
				assert.Equal(t, r.err, want.err)
			}
			assert.Assert(t, r.err != "", "an error has a message")
		})
	}
}

func TestTheChosenFleetIsUsed(t *testing.T) {
	m := newMachine(t)
	f := apitest.NewFleet(t)
	m.join("one", f, f.Serve(answers{"GET /v1/applications": []api.Application{{Name: "in-one"}}}).URL)
	m.join("two", f, f.Serve(answers{"GET /v1/applications": []api.Application{{Name: "in-two"}}}).URL)
	r := m.run("fleet", "use", "two")
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.Equal(t, m.run("ls", "-q").out, "in-two\n")
	assert.Equal(t, m.run("--fleet", "one", "ls", "-q").out, "in-one\n")
	t.Setenv("CLOCKER_FLEET", "one")
	assert.Equal(t, m.run("ls", "-q").out, "in-one\n")
	assert.Equal(t, m.run("fleet", "ls", "-q").out, "one\ntwo\n")
}

func TestShellsCompleteNames(t *testing.T) {
	m := newMachine(t)
	m.serve(fleetOfShop())
	for args, want := range map[string]string{
		"ps ":                 "shop",
		"logs shop ":          "db\nweb",
		"restart shop db ":    "web",
		"host rm ":            "host1\nhost2",
		"host inspect host1 ": "host2",
		"inspect shop ":       "shop-db-1\nshop-web-1\nshop-web-2",
		"exec shop ":          "db\nweb",
		"exec shop db ":       "",
		"fleet use ":          "test",
		"--fleet ":            "test",
		"rm shop ":            "",
		"deploy --app ":       "shop",
		"ps --format ":        "table\njson",
	} {
		t.Run(args, func(t *testing.T) {
			r := m.run(append([]string{"__complete"}, strings.Split(args, " ")...)...)
			assert.Equal(t, r.code, ExitOK, r.err)
			lines := strings.Split(strings.TrimSpace(r.out), "\n")
			got := lines[:len(lines)-1] // the last is the directive
			assert.Equal(t, strings.Join(got, "\n"), want)
			assert.Equal(t, lines[len(lines)-1], ":4", "no file names")
		})
	}
	t.Run("no controller", func(t *testing.T) {
		m := newMachine(t)
		r := m.run("__complete", "ps", "")
		assert.Equal(t, strings.TrimSpace(r.out), ":1")
	})
}
