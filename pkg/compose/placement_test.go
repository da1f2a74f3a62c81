package compose_test

import (
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/compose"
	"clocker.io/clocker/pkg/model"
)

// TestPlacement holds what can be said of where replicas run and what they may
// use, in each of its spellings.
func TestPlacement(t *testing.T) {
	app, warnings := load(t, `
services:
  long:
    image: x
    platform: linux/arm64/v8
    deploy:
      mode: replicated
      replicas: 4
      placement:
        constraints: [node.labels.disk == ssd, "node.hostname != h1"]
        preferences: [{spread: node.labels.zone}, {spread: node.labels.rack}]
        max_replicas_per_node: 2
      resources:
        limits: {cpus: "0.75", memory: 512M, pids: 100}
        reservations:
          cpus: 0.1
          memory: 64m
          devices:
            - {driver: nvidia, device_ids: ["0", "3"], capabilities: [gpu, utility], options: {a: b}}
            - {capabilities: [gpu]}
          generic_resources:
            - discrete_resource_spec: {kind: ssd, value: 2}
      update_config: {parallelism: 1, order: start-first, failure_action: rollback}
    x-clocker:
      strategies:
        - breadth-first
        - clocker.docker.location.strategy.basic.LowestCpuUsagePlacementStrategy
        - max-containers: 4
        - {name: label, labels: [ssd, "zone=a"], soft: true}
        - group: {exclusive: true, timeout: 5m}
        - type: brooklyn.location.docker.strategy.HostnamePlacementStrategy
          docker.constraint.hostname: web-${N}
      affinity: ["NOT TYPE", "SAME APPLICATION, NOT EMPTY"]
  short:
    image: x
    cpus: 2
    mem_limit: 1g
    mem_reservation: 256m
    memswap_limit: -1
    pids_limit: 50
    cpu_shares: 512
    cpuset: 0-1,3
    devices: ["/dev/fuse", "/dev/a:/dev/b:r", "vendor.com/class=one", {source: /dev/c, target: /dev/d, permissions: rw}]
    gpus: all
    deploy: {resources: {limits: {cpus: "2", memory: 1024M}}}
    x-clocker: {affinity: "NOT TYPE", strategies: random}
  plain: {image: x}
`, compose.Options{Env: map[string]string{"N": "7"}})
	assert.Equal(t, len(warnings), 1)
	assert.Assert(t, strings.Contains(warnings[0], "compose.yaml:23:7: update_config is for replicas that move"), warnings[0])
	long, short, plain := app.Entity("long").Service, app.Entity("short").Service, app.Entity("plain").Service
	for i := range long.Placement.Strategies {
		assert.Equal(t, long.Placement.Strategies[i].Position.Line, 26+i)
		long.Placement.Strategies[i].Position = model.Position{}
	}
	assert.Equal(t, long.Placement.Position.Line, 9)
	long.Placement.Position = model.Position{}
	assert.DeepEqual(t, long.Placement, model.Placement{
		Constraints: []string{"node.labels.disk == ssd", "node.hostname != h1"},
		Spread:      []string{"node.labels.zone", "node.labels.rack"}, MaxPerHost: 2, Platform: "linux/arm64/v8",
		Affinity: []string{"NOT TYPE", "SAME APPLICATION", "NOT EMPTY"},
		Strategies: []model.Strategy{
			{Name: "breadth-first"}, {Name: "lowest-cpu"}, {Name: "max-containers", Containers: 4},
			{Name: "label", Labels: []string{"ssd", "zone=a"}, Soft: true},
			{Name: "group", Exclusive: true, Timeout: 5 * time.Minute}, {Name: "hostname", Hostname: "web-7"},
		},
	})
	assert.DeepEqual(t, long.Resources, model.Resources{
		Limit:   model.Amounts{NanoCPUs: 750e6, MemoryBytes: 512 << 20, PIDs: 100},
		Reserve: model.Amounts{NanoCPUs: 100e6, MemoryBytes: 64 << 20},
		Devices: []model.DeviceRequest{
			{Driver: "nvidia", IDs: []string{"0", "3"}, Capabilities: []string{"gpu", "utility"}, Options: map[string]string{"a": "b"}},
			{Count: -1, Capabilities: []string{"gpu"}},
		},
		Generic: []model.GenericResource{{Kind: "ssd", Value: 2}},
	})
	assert.DeepEqual(t, *long.Update, model.Update{Parallelism: 1, StartFirst: true})
	assert.DeepEqual(t, short.Resources, model.Resources{
		Limit:     model.Amounts{NanoCPUs: 2e9, MemoryBytes: 1 << 30, PIDs: 50},
		Reserve:   model.Amounts{MemoryBytes: 256 << 20},
		SwapBytes: -1, CPUShares: 512, CPUSet: "0-1,3",
		Devices: []model.DeviceRequest{{Count: -1, Capabilities: []string{"gpu"}}, {Driver: "cdi", IDs: []string{"vendor.com/class=one"}}},
		Paths: []model.DevicePath{
			{Host: "/dev/fuse", Container: "/dev/fuse"}, {Host: "/dev/a", Container: "/dev/b", Permissions: "r"},
			{Host: "/dev/c", Container: "/dev/d", Permissions: "rw"},
		},
	})
	assert.DeepEqual(t, short.Placement.Affinity, []string{"NOT TYPE"})
	assert.Equal(t, short.Placement.Strategies[0].Name, "random")
	assert.DeepEqual(t, plain.Placement, model.Placement{})
	assert.DeepEqual(t, plain.Resources, model.Resources{})
	assert.Assert(t, plain.Update == nil)
}
