package formatter

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/golden"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func tasks() []api.Task {
	return []api.Task{
		{
			ID: "t1", App: "identidock", Service: "redis", Slot: 1, Name: "identidock-redis-1", Image: "docker.io/library/redis:3",
			Host: "host1", HostAddress: "10.88.0.11", State: record.StateRunning, StartedAt: now.Add(-3 * time.Minute),
			Addresses: map[string]string{"n2": "10.208.16.3", "n1": "10.208.0.5"}, Container: strings.Repeat("0123456789abcdef", 4),
			Ports: []model.Port{{ContainerPort: 6379, Protocol: "tcp"}},
		},
		{
			ID: "t2", App: "identidock", Service: "web", Slot: 1, Name: "identidock-web-1",
			Image: "docker.io/amouat/identidock:1.0@sha256:" + strings.Repeat("a", 64), Host: "host2", HostAddress: "10.88.0.12",
			State: record.StateRunning, Health: "healthy", StartedAt: now.Add(-26 * time.Hour),
			Addresses: map[string]string{"n1": "10.208.0.70"},
			Ports: []model.Port{
				{HostPort: 80, ContainerPort: 9090, Protocol: "tcp", Mode: "host"},
				{HostIP: "127.0.0.1", HostPort: 53, ContainerPort: 53, Protocol: "udp", Mode: "host"},
				{HostPort: 443, ContainerPort: 9443, Protocol: "tcp", Mode: "ingress"},
			},
		},
		{
			ID: "t3", App: "identidock", Service: "web", Slot: 2, Name: "identidock-web-2", Image: "docker.io/amouat/identidock:1.0",
			Host: "host3", State: record.StateFailed, ExitCode: 137,
			Error: "start container: driver failed programming external connectivity:\n  port 80 is taken by the process nginx",
		},
		{ID: "t4", Name: "identidock-job-1", Image: "not a reference", State: "waiting", Waiting: "redis to be healthy"},
	}
}

func render(t *testing.T, o Options, f func(Options) error) string {
	t.Helper()
	var b bytes.Buffer
	o.Out, o.Now = &b, now
	assert.NilError(t, f(o))
	return b.String()
}

func TestTables(t *testing.T) {
	hosts := []api.Host{
		{
			Host:   record.Host{ID: "h1", Name: "host1", Endpoint: "ssh://root@10.88.0.11", Address: "10.88.0.11", Labels: map[string]string{"zone": "b", "disk": "ssd"}},
			Status: "ready", Tasks: 3, Facts: &record.HostFacts{CPUs: 2, MemoryBytes: 4102025216, EngineVersion: "28.5.2", AgentVersion: "0.1.0"},
		},
		{Host: record.Host{ID: "h2", Name: "host2", Address: "10.88.0.12"}, Status: "joining"},
	}
	apps := []api.Application{
		{Name: "identidock", Status: "running", Services: 3, Replicas: 4, Running: 4, Release: 2, UpdatedAt: now.Add(-90 * time.Second)},
		{Name: "shop", Status: "degraded", Services: 1, Replicas: 2, Running: 1, Release: 1, Error: "shop-web-2: " + strings.Repeat("no space left on device ", 5)},
	}
	steps := []api.Step{
		{Action: "create", Kind: "network", Subject: "identidock_default", Cause: "it does not exist"},
		{Action: "replace", Kind: "task", Subject: "identidock-web-1", Host: "host2", Cause: "image changed from amouat/identidock:0.9; it stays on its host"},
	}
	fleets := []Fleet{
		{Name: "my-docker-cloud", Controllers: []string{"https://10.88.0.11:7480", "https://10.88.0.12:7480"}, Current: true},
		{Name: "old", Error: "read fleet old: open ca.pem: no such file or directory"},
	}
	for name, tc := range map[string]struct {
		o Options
		f func(Options) error
	}{
		"ps":          {Options{}, func(o Options) error { return Tasks(o, tasks()) }},
		"ps-no-trunc": {Options{NoTrunc: true}, func(o Options) error { return Tasks(o, tasks()) }},
		"ps-quiet":    {Options{Quiet: true}, func(o Options) error { return Tasks(o, tasks()) }},
		"ps-json":     {Options{Format: "json"}, func(o Options) error { return Tasks(o, tasks()[:1]) }},
		"ps-template": {Options{Format: `table {{.Service}}\t{{.Container}}`}, func(o Options) error { return Tasks(o, tasks()) }},
		"ps-empty":    {Options{}, func(o Options) error { return Tasks(o, nil) }},
		"ls":          {Options{}, func(o Options) error { return Applications(o, apps) }},
		"ls-quiet":    {Options{Quiet: true, Format: "json"}, func(o Options) error { return Applications(o, apps) }},
		"host-ls":     {Options{}, func(o Options) error { return Hosts(o, hosts) }},
		"host-labels": {Options{Format: "{{.Name}}={{.Labels}}"}, func(o Options) error { return Hosts(o, hosts) }},
		"steps":       {Options{}, func(o Options) error { return Steps(o, steps) }},
		"fleet-ls":    {Options{}, func(o Options) error { return Fleets(o, fleets) }},
		"fleet-quiet": {Options{Quiet: true}, func(o Options) error { return Fleets(o, fleets) }},
	} {
		t.Run(name, func(t *testing.T) {
			golden.Assert(t, render(t, tc.o, tc.f), name+".golden")
		})
	}
}

func TestATemplateThatCannotBeReadIsAnError(t *testing.T) {
	err := Tasks(Options{Format: "{{.Name"}, tasks())
	assert.ErrorContains(t, err, "template parsing error")
}

func TestTaskStatus(t *testing.T) {
	for want, task := range map[string]api.Task{
		"Up 5 seconds":                           {State: "running", StartedAt: now.Add(-5 * time.Second)},
		"Up about a minute (health: starting)":   {State: "running", Health: "starting", StartedAt: now.Add(-time.Minute)},
		"Up 2 hours (unhealthy): curl: no route": {State: "running", Health: "unhealthy", StartedAt: now.Add(-2 * time.Hour), Error: "curl: no route"},
		"Up less than a second":                  {State: "running", StartedAt: now.Add(time.Hour)}, // the host's clock is ahead
		"Up":                                     {State: "running"},
		"Stopped":                                {State: "stopped"},
		"Stopped (143)":                          {State: "stopped", ExitCode: 143},
		"Complete":                               {State: "complete"},
		"Failed (1): exec format error":          {State: "failed", ExitCode: 1, Error: "exec format error"},
		"Lost: host h2 does not answer":          {State: "lost", Error: "host h2 does not answer"},
		"Prepared: redis to be healthy":          {State: "prepared", Waiting: "redis to be healthy"},
		"Pending":                                {},
	} {
		assert.Equal(t, TaskStatus(task, now), want)
	}
}

func TestPublishedURLsListEachPlaceOnce(t *testing.T) {
	ts := tasks()[:2]
	ts = append(ts, ts[1])
	assert.DeepEqual(t, PublishedURLs(ts), []string{"http://10.88.0.12:80", "127.0.0.1:53/udp", "https://10.88.0.12:443"})
	redis := ts[0]
	redis.Ports = []model.Port{{HostPort: 7000, ContainerPort: 6379, Protocol: "tcp"}}
	assert.DeepEqual(t, PublishedURLs([]api.Task{redis}), []string{"10.88.0.11:7000"})
}

func TestEventForms(t *testing.T) {
	e := record.Event{ID: "1", At: now, Type: "task", Action: "failed", Subject: "a-b-1", Text: "exit 1", Attrs: map[string]string{"host": "h", "app": "a"}}
	for format, want := range map[string]string{
		"":                         "2026-03-01T12:00:00.000Z task failed a-b-1 (app=a, host=h): exit 1\n",
		"{{.Type}}/{{.Attrs.app}}": "task/a\n",
	} {
		var b bytes.Buffer
		assert.NilError(t, Event(&b, format, e))
		assert.Equal(t, b.String(), want)
	}
	var b bytes.Buffer
	assert.NilError(t, Event(&b, "json", e))
	var back record.Event
	assert.NilError(t, json.Unmarshal(b.Bytes(), &back))
	assert.DeepEqual(t, back, e)
}
