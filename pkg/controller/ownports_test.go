package controller

import (
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/store/storetest"
)

// What listens on a port that a replica publishes is the fleet itself: the next
// release of the service must get the port again.
func TestAReplicasOwnPortIsNotAnotherPrograms(t *testing.T) {
	client := storetest.Start(t)
	c, _ := newController(t, client, "c1")
	playAgents(t, client, "h1")
	c.awaitLead(t)
	app := application("app", 1, 1)
	app.Entities[0].Service.Ports = []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp", Mode: "host"}}
	done, problems, err := deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)

	key := c.store.Keys.HostFacts("h1")
	it, err := store.Get[record.HostFacts](t.Context(), c.store, key)
	if err != nil {
		it.Value = record.HostFacts{CPUs: 2, MemoryBytes: 4 << 30}
	}
	it.Value.Listening = []string{"tcp/80"}
	revision, err := c.store.Txn().Put(key, it.Value).Commit(t.Context())
	assert.NilError(t, err)
	assert.NilError(t, c.cache.wait(t.Context(), revision))

	app = application("app", 1, 1)
	app.Entities[0].Service.Image = "docker.io/library/other:2"
	app.Entities[0].Service.Ports = []model.Port{{HostPort: 80, ContainerPort: 80, Protocol: "tcp", Mode: "host"}}
	done, problems, err = deploy(c, app)
	assert.NilError(t, err)
	assert.Equal(t, done, "ok", problems)
}
