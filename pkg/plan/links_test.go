package plan

import (
	"testing"

	"clocker.io/clocker/pkg/model"
	"gotest.tools/v3/assert"
)

// The vectors of spec/clocker.md §11.
func TestLinkVariables(t *testing.T) {
	target := LinkTarget{
		Entity: &model.Entity{ID: "redis-1", Service: &model.Service{
			Ports: []model.Port{{ContainerPort: 26379, Protocol: "tcp"}, {ContainerPort: 6379, Protocol: "tcp"}, {ContainerPort: 6379, HostPort: 7000, Protocol: "tcp"}},
			Env:   []model.EnvVar{{Name: "MODE", Value: model.Text("master")}},
		}},
		Address: "10.0.0.5",
	}
	got := LinkVariables("identidock", model.Link{Target: "redis-1", Alias: "redis-1"}, target)
	assert.DeepEqual(t, got, []string{
		"REDIS_1_NAME=/identidock/redis-1",
		"REDIS_1_PORT=tcp://10.0.0.5:6379",
		"REDIS_1_PORT_6379_TCP=tcp://10.0.0.5:6379",
		"REDIS_1_PORT_6379_TCP_ADDR=10.0.0.5",
		"REDIS_1_PORT_6379_TCP_PORT=6379",
		"REDIS_1_PORT_6379_TCP_PROTO=tcp",
		"REDIS_1_PORT_26379_TCP=tcp://10.0.0.5:26379",
		"REDIS_1_PORT_26379_TCP_ADDR=10.0.0.5",
		"REDIS_1_PORT_26379_TCP_PORT=26379",
		"REDIS_1_PORT_26379_TCP_PROTO=tcp",
		"REDIS_1_ENV_MODE=master",
	})
}

func TestExplicitVariablesWinOverLinks(t *testing.T) {
	assert.DeepEqual(t, mergeEnv([]string{"A=1", "EMPTY="}, []string{"A=2", "B=3", "EMPTY=x", "B=4"}), []string{"A=1", "EMPTY=", "B=3"})
}
