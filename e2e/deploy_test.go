package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/pkg/api"
)

// The deck's first blueprint must give a redis that answers on a published
// port of its host.
func TestBlueprint01MustServeRedis(t *testing.T) {
	f := shared
	f.removeAfter(t, "redis-service")
	f.clocker(t, "deploy", "../examples/blueprints/01-redis-service.yaml")
	task := f.tasks(t, "redis-service")["redis-service-redis-1"]
	if len(task.Ports) != 1 || task.Ports[0].HostPort == 0 {
		t.Fatalf("ports: %+v", task.Ports)
	}
	port := fmt.Sprint(task.Ports[0].HostPort)
	// From this machine, which is outside the fleet, and from the host.
	for _, from := range []string{"h1", "h2", "h3"} {
		out, err := f.bed.Host(from).Exec(t.Context(), "bash", "-c",
			"exec 3<>/dev/tcp/"+task.HostAddress+"/"+port+"; printf 'PING\\r\\n' >&3; head -c 5 <&3")
		if err != nil || out != "+PONG" {
			t.Errorf("redis from %s: %q, %v", from, out, err)
		}
	}
}

// The talk's application must run on three different hosts, find its parts by
// name, and serve its page and picture through the published port.
func TestBlueprint05MustServeItsPage(t *testing.T) {
	f := shared
	f.removeAfter(t, "my-application")
	f.clocker(t, "deploy", "../examples/blueprints/05-application-1-docker.yaml", "--wait")
	tasks := f.tasks(t, "my-application")
	hosts := map[string]bool{}
	for _, task := range tasks {
		hosts[task.Host] = true
		if task.State != "running" {
			t.Errorf("%s is %s", task.Name, task.State)
		}
	}
	if len(tasks) != 3 || len(hosts) != 3 {
		t.Fatalf("%d services on %d hosts, want 3 on 3", len(tasks), len(hosts))
	}
	web := tasks["my-application-identidock-1"]
	base := "http://" + web.HostAddress
	page, _, err := get(t.Context(), base+"/")
	if err != nil || !strings.Contains(page, "/monster/") {
		t.Fatalf("front page: %v\n%s", err, page)
	}
	for _, want := range []string{"miss", "hit"} {
		body, header, err := get(t.Context(), base+"/monster/ada")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(bytes.NewReader([]byte(body))); err != nil {
			t.Errorf("picture: %v", err)
		}
		if got := header.Get("X-Cache"); got != want {
			t.Errorf("X-Cache is %q, want %q", got, want)
		}
	}
	// Links are there in the old form too.
	inspected, err := f.bed.Host(web.Host).Exec(t.Context(), "docker", "inspect", "-f", "{{json .Config.Env}}", web.Container)
	if err != nil || !strings.Contains(inspected, "REDIS_PORT=tcp://") || !strings.Contains(inspected, "DNMONSTER_PORT_8080_TCP_ADDR=") {
		t.Errorf("link variables: %v %s", err, inspected)
	}
	// A second deploy of the same file changes nothing.
	f.clocker(t, "deploy", "../examples/blueprints/05-application-1-docker.yaml")
	for name, task := range f.tasks(t, "my-application") {
		if task.Container != tasks[name].Container {
			t.Errorf("%s was made anew", name)
		}
	}
}

const thirty = "../examples/compose/thirty.yaml"

// A file of ten services must run its thirty replicas, spread evenly.
func TestComposeMustRunThirtyReplicas(t *testing.T) {
	f := shared
	f.removeAfter(t, "thirty")
	f.clocker(t, "deploy", thirty, "--app", "thirty")
	perHost := map[string]int{}
	for _, task := range f.tasks(t, "thirty") {
		if task.State != "running" {
			t.Errorf("%s is %s: %s", task.Name, task.State, task.Error)
		}
		perHost[task.Host]++
	}
	if perHost["h1"] != 10 || perHost["h2"] != 10 || perHost["h3"] != 10 {
		t.Errorf("replicas per host: %v", perHost)
	}
}

// stack is a small application whose containers answer questions over HTTP.
const stack = `
services:
  front:
    image: clocker.io/test/web:1
    ports: ["%d:80"]
    depends_on: [back]
  back:
    image: clocker.io/test/web:1
    deploy: {replicas: 3}
`

// The name of a service must resolve to all of its replicas on every host,
// and each replica must be reachable by its own name.
func TestNamesMustResolveAcrossHosts(t *testing.T) {
	f := shared
	f.deploy(t, "names", "compose.yaml", fmt.Sprintf(stack, 18080))
	tasks := f.tasks(t, "names")
	base := fmt.Sprintf("http://%s:18080", tasks["names-front-1"].HostAddress)
	want := map[string]bool{}
	for i := 1; i <= 3; i++ {
		for _, a := range tasks[fmt.Sprintf("names-back-%d", i)].Addresses {
			want[strings.TrimSuffix(a, "/32")] = true
		}
	}
	await(t, 3*time.Second, "tasks.back resolves to three addresses", func() error {
		body, _, err := get(t.Context(), base+"/lookup?name=tasks.back")
		if err != nil {
			return err
		}
		for a := range want {
			if !strings.Contains(body, a) {
				return fmt.Errorf("%s lacks %s", body, a)
			}
		}
		return nil
	})
	for _, name := range []string{"back", "back.names", "tasks.back", "names-back-1", "names-back-2", "names-back-3"} {
		if body, _, err := get(t.Context(), base+"/dial?addr="+name+":80"); err != nil {
			t.Errorf("dial %s: %v %s", name, err, body)
		}
	}
	if body, _, err := get(t.Context(), base+"/lookup?name=nobody"); err == nil {
		t.Errorf("nobody resolves: %s", body)
	}
}

// A container of one application must not reach, nor resolve, one of another.
func TestApplicationsMustBeIsolated(t *testing.T) {
	f := shared
	f.deploy(t, "one", "compose.yaml", fmt.Sprintf(stack, 18081))
	f.deploy(t, "two", "compose.yaml", fmt.Sprintf(stack, 18082))
	one, two := f.tasks(t, "one"), f.tasks(t, "two")
	base := fmt.Sprintf("http://%s:18081", one["one-front-1"].HostAddress)
	dial := func(task api.Task) error {
		for _, a := range task.Addresses {
			_, _, err := get(t.Context(), base+"/dial?timeout=1s&addr="+strings.TrimSuffix(a, "/32")+":80")
			return err
		}
		return fmt.Errorf("%s has no address", task.Name)
	}
	for i := 1; i <= 3; i++ {
		if err := dial(one[fmt.Sprintf("one-back-%d", i)]); err != nil {
			t.Errorf("own replica %d: %v", i, err)
		}
		if err := dial(two[fmt.Sprintf("two-back-%d", i)]); err == nil {
			t.Errorf("replica %d of the other application can be reached", i)
		}
	}
	for _, name := range []string{"two-back-1", "back.two"} {
		if body, _, err := get(t.Context(), base+"/lookup?name="+name); err == nil {
			t.Errorf("%s resolves: %s", name, body)
		}
	}
	// Nor the host's own services: its engine's API, its SSH.
	for _, port := range []string{"22", "2376"} {
		for _, h := range f.bed.Hosts() {
			if _, _, err := get(t.Context(), base+"/dial?timeout=1s&addr="+h.Address+":"+port); err == nil && h.Name == one["one-front-1"].Host {
				t.Errorf("port %s of its own host %s can be reached", port, h.Name)
			}
		}
	}
}

// An update must replace what changed and keep what did not; a broken one
// must leave the application as it was.
func TestUpdateMustReplaceOnlyWhatChanged(t *testing.T) {
	f := shared
	file := fmt.Sprintf(stack, 18083)
	f.deploy(t, "update", "compose.yaml", file)
	before := f.tasks(t, "update")
	changed := strings.Replace(file, "replicas: 3", "replicas: 4", 1)
	changed = strings.Replace(changed, "depends_on: [back]", "depends_on: [back]\n    environment: {COLOUR: blue}", 1)
	f.clocker(t, "deploy", writeFile(t, "compose.yaml", changed), "--app", "update")
	after := f.tasks(t, "update")
	if len(after) != 5 || after["update-front-1"].Container == before["update-front-1"].Container {
		t.Errorf("front was not replaced, or there are %d tasks", len(after))
	}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("update-back-%d", i)
		if after[name].Container != before[name].Container {
			t.Errorf("%s was replaced", name)
		}
	}
	broken := strings.Replace(changed, "COLOUR: blue}", "COLOUR: red}\n    command: [/no/such/program]\n    entrypoint: [/no/such/program]", 1)
	r := f.command(t.Context(), "clocker", "deploy", writeFile(t, "compose.yaml", broken), "--app", "update")
	if r.code != 1 || !strings.Contains(r.stderr, "/no/such/program") {
		t.Errorf("broken update: exit %d\n%s", r.code, r.stderr)
	}
	again := f.tasks(t, "update")
	if len(again) != 5 {
		t.Errorf("%d tasks after a broken update", len(again))
	}
	for name, task := range again {
		if task.State != "running" {
			t.Errorf("%s is %s: %s", name, task.State, task.Error)
		}
		if name != "update-front-1" && task.Container != after[name].Container {
			t.Errorf("%s was replaced", name)
		}
	}
	if body, _, err := get(t.Context(), fmt.Sprintf("http://%s:18083/env", again["update-front-1"].HostAddress)); err != nil || !strings.Contains(body, "COLOUR=blue") {
		t.Errorf("front after a broken update: %v %s", err, body)
	}
}

// stop, start and restart must reach just the services named, and logs, exec,
// ps and ls must show them.
func TestOperationsMustReachTheirServices(t *testing.T) {
	f := shared
	f.deploy(t, "ops", "compose.yaml", fmt.Sprintf(stack, 18084))
	f.clocker(t, "stop", "ops", "back")
	for name, task := range f.tasks(t, "ops") {
		if want := map[bool]string{true: "stopped", false: "running"}[task.Service == "back"]; task.State != want {
			t.Errorf("%s is %s, want %s", name, task.State, want)
		}
	}
	f.clocker(t, "start", "ops")
	before := f.tasks(t, "ops")
	f.clocker(t, "restart", "ops", "front")
	after := f.tasks(t, "ops")
	for name := range after {
		restarted := after[name].StartedAt.After(before[name].StartedAt)
		if restarted != (after[name].Service == "front") || after[name].Container != before[name].Container {
			t.Errorf("%s: restarted %v", name, restarted)
		}
	}
	if out := f.clocker(t, "exec", "ops", "front", "/web", "version"); !strings.Contains(out, "web") {
		t.Errorf("exec: %q", out)
	}
	r := f.command(t.Context(), "clocker", "exec", "ops", "front", "/web", "exit", "7")
	if r.code != 7 {
		t.Errorf("exec exits %d, want 7: %s", r.code, r.stderr)
	}
	base := fmt.Sprintf("http://%s:18084", after["ops-front-1"].HostAddress)
	if _, _, err := get(t.Context(), base+"/?marker=xyzzy"); err != nil {
		t.Error(err)
	}
	await(t, 5*time.Second, "logs show the request", func() error {
		// The program logs to its standard error, and there it must come out.
		r := f.command(t.Context(), "clocker", "logs", "ops", "front")
		if !strings.Contains(r.stderr, "xyzzy") || !strings.Contains(r.stderr, "ops-front-1") {
			return fmt.Errorf("logs: %q %q", r.stdout, r.stderr)
		}
		return nil
	})
	var lines []map[string]any
	for line := range strings.Lines(f.clocker(t, "ps", "ops", "--format", "json")) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, m)
	}
	if len(lines) != 4 {
		t.Errorf("ps has %d lines", len(lines))
	}
	if out := f.clocker(t, "ls", "--format", "{{.Name}} {{.Status}}"); !strings.Contains(out, "ops running") {
		t.Errorf("ls: %q", out)
	}
}

// A file may come from standard input, from a URL or from a directory.
func TestFilesMayComeFromAnywhere(t *testing.T) {
	f := shared
	const content = "services:\n  web: {image: 'clocker.io/test/web:1'}\n"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, content) }))
	defer srv.Close()
	for app, ref := range map[string]string{"from-dir": filepath.Dir(writeFile(t, "compose.yaml", content)), "from-url": srv.URL + "/compose.yaml", "from-stdin": "-"} {
		f.removeAfter(t, app)
		c := f.prepare(t.Context(), "clocker", "deploy", ref, "--app", app)
		c.Stdin = strings.NewReader(content)
		if err := runCommand(c).err(); err != nil {
			t.Error(err)
		}
		if task := f.tasks(t, app)[app+"-web-1"]; task.State != "running" {
			t.Errorf("%s: %+v", app, task)
		}
	}
}

// A dry run must say what would be done, where and why, and do nothing.
func TestDryRunMustChangeNothing(t *testing.T) {
	f := shared
	etcd := f.etcd(t)
	before, keys := f.inventories(t), f.keys(t, etcd)
	out := f.clocker(t, "deploy", "--dry-run", "../examples/blueprints/05-application-1-docker.yaml")
	for _, want := range []string{"my-application_default", "my-application-redis-1", "my-application-identidock-1", "h1", "h2", "h3", "does not exist"} {
		if !strings.Contains(out, want) {
			t.Errorf("dry run lacks %q:\n%s", want, out)
		}
	}
	f.unchanged(t, before, keys, etcd)
}
