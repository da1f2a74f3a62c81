package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"clocker.io/clocker/e2e/testbed"
	"clocker.io/clocker/pkg/api"
)

// all are the application's tasks; while a replica moves it has two.
func (f *fleet) all(ctx context.Context, app string) ([]api.Task, error) {
	r := f.command(ctx, "clocker", "inspect", app)
	if err := r.err(); err != nil {
		return nil, err
	}
	var details []api.ApplicationDetail
	if err := json.Unmarshal([]byte(r.stdout), &details); err != nil {
		return nil, err
	}
	return details[0].Tasks, nil
}

// spread waits until every replica of an application runs, once, on one of the
// hosts, and returns how many each host has.
func (f *fleet) spread(t *testing.T, within time.Duration, app string, replicas int, hosts ...string) map[string]int {
	t.Helper()
	var on map[string]int
	await(t, within, fmt.Sprintf("%d replicas of %s run on %s", replicas, app, hosts), func() error {
		tasks, err := f.all(t.Context(), app)
		if err != nil {
			return err
		}
		on = map[string]int{}
		for _, x := range tasks {
			if x.State != "running" || !slices.Contains(hosts, x.Host) {
				return fmt.Errorf("%s on %s is %s", x.Name, x.Host, x.State)
			}
			on[x.Host]++
		}
		if len(tasks) != replicas {
			return fmt.Errorf("%d tasks", len(tasks))
		}
		return nil
	})
	return on
}

// is waits until a host has a status.
func (f *fleet) is(t *testing.T, within time.Duration, host, status string) {
	t.Helper()
	await(t, within, "host "+host+" is "+status, func() error {
		r := f.command(t.Context(), "clocker", "host", "ls", "--format", "{{.Name}} {{.Status}}")
		if !strings.Contains(r.stdout, host+" "+status+"\n") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
}

// replicasOn are the containers of an application on a host, as its engine has
// them.
func replicasOn(ctx context.Context, h *testbed.Host, app string) (string, error) {
	return h.Exec(ctx, "docker", "ps", "--all", "--quiet", "--filter", "label=io.clocker.app="+app)
}

// inService counts the replicas that a name leads to.
func inService(ctx context.Context, url string) (int, error) {
	body, _, err := get(ctx, url)
	if err != nil {
		return 0, err
	}
	return len(strings.Fields(body)), nil
}

const healing = `
services:
  front:
    image: clocker.io/test/web:1
    ports: ["%d:80"]
    deploy: {placement: {constraints: ["node.hostname == h1"]}}
  back:
    image: clocker.io/test/web:1
    restart: always
    deploy: {replicas: 6}
`

// What ran on a host that dies must run elsewhere within seconds; when the host
// is back, nothing may be there twice.
func TestKilledHostsWorkMustRunElsewhere(t *testing.T) {
	f := shared
	f.deploy(t, "heal", "compose.yaml", fmt.Sprintf(healing, 18300))
	if on := f.spread(t, 20*time.Second, "heal", 7, "h1", "h2", "h3"); on["h3"] == 0 {
		t.Fatalf("nothing to lose on h3: %v", on)
	}
	names := fmt.Sprintf("http://%s:18300/lookup?name=tasks.back", f.bed.Host("h1").Address)
	h3 := f.bed.Host("h3")
	f.forgive(t, "h3")
	began := time.Now()
	if err := h3.Kill(); err != nil {
		t.Fatal(err)
	}
	f.is(t, 20*time.Second, "h3", "suspect")
	suspect := time.Since(began)
	f.is(t, 20*time.Second, "h3", "lost")
	lost := time.Since(began)
	f.spread(t, 30*time.Second, "heal", 7, "h1", "h2")
	t.Logf("suspect after %s, lost after %s, replaced after %s", suspect.Round(100*time.Millisecond), lost.Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h3.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	f.is(t, time.Minute, "h3", "ready")
	await(t, 30*time.Second, "nothing of the application is left on h3", func() error {
		out, err := replicasOn(ctx, h3, "heal")
		if err == nil && strings.TrimSpace(out) != "" {
			err = fmt.Errorf("still there: %s", out)
		}
		return err
	})
	await(t, 10*time.Second, "six names", func() error {
		n, err := inService(ctx, names)
		if err == nil && n != 6 {
			err = fmt.Errorf("%d", n)
		}
		return err
	})
	f.spread(t, 10*time.Second, "heal", 7, "h1", "h2")
	t.Logf("in order %s after h3 was back", time.Since(back).Round(100*time.Millisecond))

	// An empty host is no better than a dead one until work moves to it.
	if out := f.clocker(t, "rebalance", "--plan"); !strings.Contains(out, "h3") {
		t.Errorf("nothing would move to h3:\n%s", out)
	}
	f.clocker(t, "rebalance")
	on := f.spread(t, 20*time.Second, "heal", 7, "h1", "h2", "h3")
	if on["h3"] < 2 {
		t.Errorf("not evened out: %v", on)
	}
	if r := f.command(t.Context(), "clocker", "rebalance", "--plan"); r.code != 0 || !strings.Contains(r.stdout+r.stderr, "nothing to move") {
		t.Errorf("a second run has something to do: %s%s", r.stdout, r.stderr)
	}
}
