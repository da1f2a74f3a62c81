package driver

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/segment"
	"clocker.io/clocker/pkg/record"
)

// Endpoints without a link, and networks that the fleet does not have, are
// told; what can be mended is.
func TestCheck(t *testing.T) {
	b := newBench(t)
	b.red(t)
	b.owned[netip.MustParseAddr("10.208.0.5")] = true
	_, err := b.endpoint("e", "10.208.0.5/32")
	assert.NilError(t, err)
	b.topology.Networks["red"] = record.Network{ID: "red"}
	found, err := b.Check(true)
	assert.NilError(t, err)
	assert.Equal(t, len(found), 0)

	b.gone = []segment.Endpoint{b.attached["e"]}
	delete(b.topology.Networks, "red")
	for _, fix := range []bool{false, true} {
		found, err = b.Check(fix)
		assert.NilError(t, err)
		assert.Equal(t, len(found), 2)
		assert.Equal(t, found[0].Subject, "e")
		assert.Equal(t, found[0].Fixed, fix)
		assert.Equal(t, found[1].Subject, "red")
		assert.Check(t, found[1].Hint != "" && !found[1].Fixed)
	}
	assert.Equal(t, len(b.endpoints), 0)
}
