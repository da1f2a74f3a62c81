package blueprint_test

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
)

// TestPlacement holds the keys that say where replicas run and what they may
// use, in each of their spellings, on a service and inherited.
func TestPlacement(t *testing.T) {
	app := parse(t, `
id: app
brooklyn.config:
  docker.container.strategies:
  - $brooklyn:object:
      type: brooklyn.location.docker.strategy.BreadthFirstPlacementStrategy
  docker.memory: 256mb
services:
- type: docker:redis:3
  id: redis
  docker.container.strategies:
  - $brooklyn:object:
      type: clocker.docker.location.strategy.basic.LabelPlacementStrategy
      brooklyn.config: {docker.constraint.labels: [ssd, "zone=a"]}
  - {$brooklyn:object: {type: clocker.docker.location.strategy.basic.GroupPlacementStrategy, object.fields: {docker.strategy.timeout: 5m}}}
  - MaxContainersPlacementStrategy
  - max-cpu: 0.8
  - {name: random}
  - type: clocker.docker.location.strategy.affinity.DockerAffinityRuleStrategy
    brooklyn.config: {affinity.rules: "NOT TYPE, APPLICATION"}
  docker.constraint.exclusive: true
  docker.container.cluster.maxSize: 4
  affinity.rules:
  - NOT TYPE
  - $brooklyn:formatString("NOT ID %s", component("web").entityId())
  provisioning.properties: {minRam: 2048, minCores: 1.5}
  docker.memory: 1g
  docker.cpuShares: 512
  docker.cpuset: 0-1
- type: docker:web
  id: web
  docker.constraint.hostname: web-.*
  affinityRules: |
    SAME APPLICATION
    NOT EMPTY
`)
	redis, web := app.Entity("redis").Service, app.Entity("web").Service
	assert.Equal(t, redis.Placement.Strategies[0].Position.Line, 12)
	assert.DeepEqual(t, unplaced(redis.Placement), model.Placement{
		Strategies: []model.Strategy{
			{Name: "label", Labels: []string{"ssd", "zone=a"}},
			{Name: "group", Exclusive: true, Timeout: 5 * time.Minute},
			{Name: "max-containers", Containers: 4},
			{Name: "max-cpu", CPU: 0.8},
			{Name: "random"},
			{Name: "affinity", Rules: []string{"NOT TYPE", "APPLICATION"}},
		},
		Affinity: []string{"NOT TYPE", "NOT ID web"},
		MinCores: 1.5, MinMemory: 2 << 30,
	})
	assert.DeepEqual(t, redis.Resources, model.Resources{Limit: model.Amounts{MemoryBytes: 1 << 30}, CPUShares: 512, CPUSet: "0-1"})
	assert.DeepEqual(t, unplaced(web.Placement), model.Placement{
		Strategies: []model.Strategy{{Name: "breadth-first"}, {Name: "hostname", Hostname: "web-.*"}},
		Affinity:   []string{"SAME APPLICATION", "NOT EMPTY"},
	})
	assert.DeepEqual(t, web.Resources, model.Resources{Limit: model.Amounts{MemoryBytes: 256 << 20}})
}

// unplaced is a placement without its places in the file.
func unplaced(p model.Placement) model.Placement {
	p.Position = model.Position{}
	for i := range p.Strategies {
		p.Strategies[i].Position = model.Position{}
	}
	return p
}
