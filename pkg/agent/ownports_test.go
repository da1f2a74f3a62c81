package agent

import (
	"encoding/json"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

func TestOwnPortsAreNobodyElses(t *testing.T) {
	now := time.Unix(1000, 0)
	o := newOwnPorts(func() time.Time { return now })
	all := func() []string { return o.without([]string{"tcp/22", "tcp/80", "tcp/8080", "udp/80"}) }
	value, err := json.Marshal(record.Assignment{Container: record.ContainerSpec{Ports: []model.Port{{Protocol: "tcp", HostPort: 80}}}})
	assert.NilError(t, err)

	assert.DeepEqual(t, all(), []string{"tcp/22", "tcp/80", "tcp/8080", "udp/80"})
	o.tasks(store.Change{Reset: true, Puts: []store.Raw{{Key: "/clocker/f/assign/h/t1", Value: value}}})
	o.published(store.Change{Reset: true, Puts: []store.Raw{{Key: "/clocker/f/net/published/tcp_8080", Value: []byte("{}")}}})
	assert.DeepEqual(t, all(), []string{"tcp/22", "udp/80"})

	// For a moment after they went they are not somebody else's either.
	o.tasks(store.Change{Deletes: []string{"/clocker/f/assign/h/t1"}})
	o.published(store.Change{Reset: true})
	assert.DeepEqual(t, all(), []string{"tcp/22", "udp/80"})
	now = now.Add(letGo)
	assert.DeepEqual(t, all(), []string{"tcp/22", "tcp/80", "tcp/8080", "udp/80"})
}
