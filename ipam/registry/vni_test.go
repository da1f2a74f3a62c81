package registry

import (
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

// A network's identifier is nobody else's, and none of a carrier's.
func TestFreeVNI(t *testing.T) {
	drawn := []int{0, 0, lastVNI - firstVNI}
	draw := func(n int) int {
		assert.Equal(t, n, lastVNI-firstVNI+1)
		d := drawn[0]
		drawn = drawn[1:]
		return d
	}
	first := freeVNI(nil, draw)
	assert.Equal(t, first, firstVNI)
	assert.Equal(t, freeVNI([]record.Network{{VNI: first}, {}}, draw), lastVNI)
}
