package lint

import (
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
)

func TestService(t *testing.T) {
	good := model.Placement{
		Constraints: []string{"node.labels.disk == ssd", "node.hostname!=h1"}, Spread: []string{"node.labels.zone"},
		Affinity: []string{"NOT TYPE", "same application"}, Strategies: []model.Strategy{{Name: "affinity", Rules: []string{"EMPTY"}}},
	}
	assert.Equal(t, len(Service(good, "compose", "services.a")), 0)
	at := model.Position{File: "f", Line: 3}
	bad := model.Placement{
		Position:    at,
		Constraints: []string{"node.labels.disk = ssd", "node.colour == red"}, Spread: []string{"node.role"},
		Affinity:   []string{"FOO", "NAME"},
		Strategies: []model.Strategy{{Name: "nope", Position: at}, {Name: "affinity", Rules: []string{"NOT"}, Position: at}},
	}
	found := Service(bad, "compose", "services.a")
	var paths []string
	for _, p := range found {
		paths = append(paths, p.Path)
		assert.Equal(t, p.Position, at)
	}
	assert.DeepEqual(t, paths, []string{
		"services.a.deploy.placement.constraints[0]", "services.a.deploy.placement.constraints[1]",
		"services.a.deploy.placement.preferences[0]", "services.a.x-clocker.affinity[0]", "services.a.x-clocker.affinity[1]",
		"services.a.x-clocker.strategies[0]", "services.a.x-clocker.strategies[1]",
	})
	assert.Equal(t, len(Service(bad, "blueprint", "services[0]")), 7)
	assert.Equal(t, len(Policy(bad.Strategies, bad.Affinity)), 4)
}
