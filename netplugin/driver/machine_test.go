package driver

import (
	"fmt"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

// A machine is on a network for as long as etcd says so, also without an
// engine's network there, and over restarts.
func TestMachine(t *testing.T) {
	b := newBench(t)
	b.topology.Attached["both"] = map[string]record.Attached{"h1": {Host: "h1", Network: "both"}}
	b.syncMachines()
	assert.Equal(t, fmt.Sprint(b.edge.machines["both"]), "[10.209.0.2 fd12:0:0:1::2]")
	assert.Equal(t, len(b.here), 1)
	assert.Equal(t, len(b.live(nil).Addresses["both"]), 2, "they are in use")
	assert.Check(t, b.InUse("both", netip.MustParseAddr("10.209.0.2")))

	topo := b.topology
	b.edge = newEdge()
	b.topology, b.boot = topo, "two"
	b.start(t)
	assert.Equal(t, len(b.edge.machines["both"]), 2)
	delete(b.topology.Attached, "both")
	b.syncMachines()
	assert.Equal(t, len(b.edge.machines["both"]), 0)
	assert.Equal(t, len(b.here), 0)
	assert.Equal(t, len(b.released), 4, "two addresses, two pools: %v", b.released)
}
