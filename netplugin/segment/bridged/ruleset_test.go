package bridged

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/golden"
)

func TestRender(t *testing.T) {
	golden.Assert(t, render(map[string]port{
		"ck0000000000002": {mac: mac{2, 0x42, 10, 208, 0, 3}, addresses: []netip.Addr{netip.MustParseAddr("10.208.0.3")}},
		"ck0000000000001": {mac: mac{2, 0x42, 10, 208, 0, 2}, loud: true, addresses: []netip.Addr{
			netip.MustParseAddr("10.208.0.2"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fe80::42:aff:fed0:2"),
		}},
		"ckx5": {loud: true},
	}).String(), "table.nft")
}
