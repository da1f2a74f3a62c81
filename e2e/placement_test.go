package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
)

// placed is where each replica of a service is.
func placed(tasks map[string]api.Task, service string) (hosts []string, perHost map[string]int) {
	perHost = map[string]int{}
	for _, task := range tasks {
		if task.Service == service {
			hosts = append(hosts, task.Host)
			perHost[task.Host]++
		}
	}
	return hosts, perHost
}

// cpus is how many processors a host has.
func (f *fleet) cpus(t *testing.T, host string) int {
	t.Helper()
	var hosts []api.Host
	if err := json.Unmarshal([]byte(f.clocker(t, "host", "inspect", host)), &hosts); err != nil {
		t.Fatal(err)
	}
	if hosts[0].Facts == nil || hosts[0].Facts.CPUs == 0 {
		t.Fatalf("%s does not say how many processors it has", host)
	}
	return hosts[0].Facts.CPUs
}

const choosy = `
services:
  pinned:
    image: clocker.io/test/web:1
    deploy: {replicas: 2, placement: {constraints: [node.hostname == h2]}}
  labelled:
    image: clocker.io/test/web:1
    deploy: {replicas: 2, placement: {constraints: [node.labels.disk == ssd]}}
  spread:
    image: clocker.io/test/web:1
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
  bound:
    image: clocker.io/test/web:1
    cpus: 0.5
    mem_limit: 64M
    memswap_limit: 96M
    pids_limit: 50
    cpu_shares: 512
    cpuset: "0"
    mem_reservation: 32M
    platform: linux/amd64
    devices: ["/dev/zero:/dev/naught:r"]
`

// What a file says of hosts and of resources must hold on the engines and in
// the kernel; a deploy that says something else must move what may not stay.
func TestPlacementMustBeAsTheFileSays(t *testing.T) {
	f := shared
	f.clocker(t, "host", "label", "h3", "disk=ssd")
	t.Cleanup(func() {
		if r := f.command(context.Background(), "clocker", "host", "label", "h3", "disk-"); r.code != 0 {
			t.Error(r.err())
		}
	})
	f.deploy(t, "choosy", "compose.yaml", choosy)
	tasks := f.tasks(t, "choosy")
	for service, want := range map[string]map[string]int{
		"pinned": {"h2": 2}, "labelled": {"h3": 2}, "spread": {"h1": 1, "h2": 1, "h3": 1},
	} {
		if _, got := placed(tasks, service); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s is on %v, want %v", service, got, want)
		}
	}
	bounded(t, f, tasks["choosy-bound-1"])
	// A host that may no longer be is left; the others stay as they are.
	f.clocker(t, "deploy", writeFile(t, "compose.yaml", strings.Replace(choosy, "node.hostname == h2", "node.hostname == h1", 1)), "--app", "choosy")
	again := f.tasks(t, "choosy")
	if _, got := placed(again, "pinned"); got["h1"] != 2 {
		t.Errorf("pinned moved to %v, want h1", got)
	}
	for name, task := range again {
		if task.Service != "pinned" && task.Container != tasks[name].Container {
			t.Errorf("%s was made anew", name)
		}
	}
}

// bounded checks what the service called bound says, where the engine and the
// kernel keep it.
func bounded(t *testing.T, f *fleet, bound api.Task) {
	t.Helper()
	on := f.bed.Host(bound.Host)
	got, err := on.Exec(t.Context(), "docker", "inspect", "-f",
		"{{with .HostConfig}}{{.NanoCpus}} {{.Memory}} {{.MemorySwap}} {{.MemoryReservation}} {{.PidsLimit}} {{.CpuShares}} {{.CpusetCpus}}"+
			"{{range .Devices}} {{.PathOnHost}}:{{.PathInContainer}}:{{.CgroupPermissions}}{{end}}{{end}}", bound.Container)
	if want := "500000000 67108864 100663296 33554432 50 512 0 /dev/zero:/dev/naught:r"; err != nil || strings.TrimSpace(got) != want {
		t.Errorf("engine: %v\n%s\nwant\n%s", err, got, want)
	}
	// Control groups of version 2 and 1, whichever the kernel has.
	kernel, err := on.Exec(t.Context(), "sh", "-c", `value() { find /sys/fs/cgroup -path "*`+bound.Container+`/$1" -exec cut -d' ' -f1 {} +; }
echo $(value memory.max) $(value memory.limit_in_bytes) $(value pids.max) $(value cpu.max) $(value cpu.cfs_quota_us) $(value cpuset.cpus)`)
	if want := "67108864 50 50000 0"; err != nil || strings.TrimSpace(kernel) != want {
		t.Errorf("control group: %v %q, want %q", err, kernel, want)
	}
}

// Resources must hold on the oldest engine, too.
func TestResourcesMustHoldOnEngine20(t *testing.T) {
	f := ownFleet(t, "old", testbed.Options{Name: bed("res20"), Hosts: 1, Engine: "20"})
	if err := f.init(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(choosy, "  bound:")
	f.deploy(t, "old", "compose.yaml", "services:\n  bound:"+text)
	bounded(t, f, f.tasks(t, "old")["old-bound-1"])
	f.refused(t, 5, []string{"it has no device gpu"}, "deploy", "--app", "gpu", writeFile(t, "compose.yaml", "services: {a: {image: clocker.io/test/web:1, gpus: all}}"))
}

// Where no host takes a replica the deploy must be refused with every host and
// its reason, and leave nothing.
func TestUnplaceableMustBeRefused(t *testing.T) {
	f := shared
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"gpu":        {"gpus: all", []string{"no host for a.1: h1, h2, h3: it has no device gpu"}},
		"port":       {"ports: ['18099:80']\n    deploy: {replicas: 4}", []string{"no host for a.4: h1, h2, h3: port tcp/18099 is taken by unplaceable/a"}},
		"constraint": {"deploy: {placement: {constraints: [node.labels.moon == full]}}", []string{"node.labels.moon == full is asked"}},
		"platform":   {"platform: linux/s390x", []string{"the image is for linux/s390x"}},
		"memory":     {"deploy: {resources: {reservations: {memory: 4096g}}}", []string{"not enough memory: 4TiB asked"}},
		"words":      {"deploy: {placement: {constraints: [node.labels.moon = full]}}\n    x-clocker: {strategies: [breadth-frist]}", []string{"compose.yaml:4:40", "neither == nor !=", `did you mean "breadth-first"`}},
	} {
		code := 5
		if name == "words" {
			code = 2
		}
		file := writeFile(t, "compose.yaml", "services:\n  a:\n    image: clocker.io/test/web:1\n    "+tc.text)
		f.refused(t, code, tc.want, "deploy", file, "--app", "unplaceable")
	}
	if r := f.command(t.Context(), "clocker", "inspect", "unplaceable"); r.code != 4 {
		t.Errorf("something is left: exit %d\n%s", r.code, r.stdout)
	}
}

// Reservations must count from the decision: of deploys at once for the last
// room one wins, and the others are told why by every host; a dry run and why
// say the same.
func TestReservationsMustNeverBeOverbooked(t *testing.T) {
	f := shared
	filling := fmt.Sprintf(`
services:
  web:
    image: clocker.io/test/web:1
    deploy: {replicas: %%d, resources: {reservations: {cpus: "%.2f"}}}
`, 0.75*float64(f.cpus(t, "h1")))
	f.deploy(t, "first", "compose.yaml", fmt.Sprintf(filling, 2))
	if _, perHost := placed(f.tasks(t, "first"), "web"); len(perHost) != 2 {
		t.Fatalf("first is on %v, want 2 hosts", perHost)
	}
	file := writeFile(t, "compose.yaml", fmt.Sprintf(filling, 1))
	var mu sync.Mutex
	var all sync.WaitGroup
	codes := map[int]int{}
	for i := range 3 {
		app := fmt.Sprint("racer", i)
		f.removeAfter(t, app)
		all.Go(func() {
			r := f.command(t.Context(), "clocker", "deploy", file, "--app", app)
			mu.Lock()
			defer mu.Unlock()
			codes[r.code]++
			if r.code != 0 && !strings.Contains(r.stderr, "no host for web.1: h1, h2, h3: not enough cpu") {
				t.Errorf("%s: %v", app, r.err())
			}
		})
	}
	all.Wait()
	if codes[0] != 1 || codes[5] != 2 {
		t.Errorf("exit codes %v, want one 0 and two 5", codes)
	}
	dry := f.command(t.Context(), "clocker", "deploy", "--dry-run", file, "--app", "late")
	if dry.code != 5 || !strings.Contains(dry.stdout, "late-web-1 has no host:") || strings.Count(dry.stdout, "not enough cpu") != 3 {
		t.Errorf("dry run: exit %d\n%s%s", dry.code, dry.stdout, dry.stderr)
	}
	why := f.clocker(t, "why", "first", "web")
	if !strings.Contains(why, "first-web-2") || !strings.Contains(why, "No host takes one more replica of web:") || strings.Count(why, "not enough cpu") != 3 {
		t.Errorf("why:\n%s", why)
	}
}

const grouped = `
id: grouped
brooklyn.config:
  docker.container.strategies:
  - $brooklyn:object:
      type: brooklyn.location.docker.strategy.DepthFirstPlacementStrategy
services:
- {type: docker:clocker.io/test/web:1, id: one}
- {type: docker:clocker.io/test/web:1, id: two}
- type: docker:clocker.io/test/web:1
  id: alone
  affinity.rules:
  - $brooklyn:formatString("NOT ID %s", entity("one").entityId())
  - NOT ID two
`

// The old dialect's strategies and rules must place as they did.
func TestBlueprintMustChooseItsHosts(t *testing.T) {
	f := shared
	f.deploy(t, "grouped", "grouped.yaml", grouped)
	tasks := f.tasks(t, "grouped")
	one, two, alone := tasks["grouped-one-1"].Host, tasks["grouped-two-1"].Host, tasks["grouped-alone-1"].Host
	if one != two || one == alone {
		t.Errorf("one is on %s, two on %s, alone on %s: want the first two together and the third apart", one, two, alone)
	}
	// The fleet's own policy holds for every application.
	f.clocker(t, "fleet", "update", "--max-containers", "1")
	t.Cleanup(func() {
		if r := f.command(context.Background(), "clocker", "fleet", "update", "--max-containers", "0"); r.code != 0 {
			t.Error(r.err())
		}
	})
	f.refused(t, 5, []string{"no host for a.", "it has all the containers that it may have, 1"}, "deploy", "--app", "crowd",
		writeFile(t, "compose.yaml", "services: {a: {image: clocker.io/test/web:1, deploy: {replicas: 4}}}"))
	if shown := f.clocker(t, "fleet", "inspect"); !strings.Contains(shown, `"maxContainers": 1`) {
		t.Errorf("fleet inspect:\n%s", shown)
	}
}
