package driver

import (
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/record"
)

func generic(options map[string]any) map[string]any { return map[string]any{keyGeneric: options} }

func TestBridgedOptions(t *testing.T) {
	for _, x := range []struct {
		options map[string]any
		refused string
	}{
		{map[string]any{optSegment: bridged, optBroadcast: "true"}, ""},
		{map[string]any{optNetwork: "abc", optBroadcast: "true"}, ""},
		{map[string]any{optBroadcast: "false"}, ""},
		{map[string]any{optBroadcast: "true"}, "only bridged networks have broadcasts"},
		{map[string]any{optSegment: bridged, optBroadcast: "perhaps"}, "is not known"},
		{map[string]any{optSegment: bridged, optCarrier: "wireguard"}, "frames cannot be encrypted"},
		{map[string]any{optDriver: "macvlan"}, "docker clocker network create --driver macvlan NAME"},
		{map[string]any{optDriver: ""}, "the name of a network driver"},
	} {
		_, err := parseOptions(generic(x.options))
		if x.refused == "" {
			assert.Check(t, err, x.options)
		} else {
			assert.Check(t, err != nil)
			assert.ErrorContains(t, err, x.refused)
		}
	}
}

// A network made by hand becomes bridged after its MTU was chosen: what VXLAN
// needs is taken off.
func TestBridgedNetworkHasRoomForVXLAN(t *testing.T) {
	n := record.Network{Segment: "routed", Carrier: "direct", MTU: 1500}
	o, err := parseOptions(generic(map[string]any{optSegment: bridged, optBroadcast: "true"}))
	assert.NilError(t, err)
	o.apply(&n)
	assert.Equal(t, n.MTU, 1450)
	assert.Equal(t, n.Segment, bridged)
	assert.Equal(t, n.Options[optBroadcast], "true")
	o.apply(&n)
	assert.Equal(t, n.MTU, 1450)
}
