package driver

import (
	"encoding/json"
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"
	"pgregory.net/rapid"
)

// The short way of writing a record writes what the long one does.
func TestShortRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := entry{
			Op:      rapid.SampledFrom([]string{opAlloc, opFree}).Draw(t, "op"),
			Network: rapid.StringMatching("[0-9a-f]{0,12}").Draw(t, "network"),
			Name:    rapid.OneOf(rapid.StringMatching("[a-z._-]{0,8}"), rapid.String()).Draw(t, "name"),
			At:      rapid.Int64().Draw(t, "at"),
			Addr: rapid.SampledFrom([]netip.Addr{
				{}, netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd12::1:5"),
			}).Draw(t, "address"),
		}
		want, err := json.Marshal(r)
		assert.NilError(t, err)
		assert.Equal(t, string(r.bytes()), string(want))
	})
}
