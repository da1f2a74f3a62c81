package routed

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"gotest.tools/v3/assert"
)

var compareRoutes = cmp.Comparer(func(a, b Route) bool { return a == b })

// sorted is the order of a plan.
func sorted(rs []Route) []Route {
	for i := range rs {
		for j := range i {
			if c := rs[i].Dst.Addr().Compare(rs[j].Dst.Addr()); c < 0 || c == 0 && rs[i].Dst.Bits() < rs[j].Dst.Bits() {
				rs[i], rs[j] = rs[j], rs[i]
			}
		}
	}
	return rs
}

func TestCollides(t *testing.T) {
	for _, c := range []struct {
		subnet, route string
		link, want    bool
	}{
		{"10.208.0.0/20", "192.168.0.0/24", true, false},
		{"10.208.0.0/20", "10.0.0.0/8", false, false}, // the way to a wider network
		{"10.208.0.0/20", "10.0.0.0/8", true, true},   // on the host's own link
		{"10.208.0.0/20", "10.208.0.0/20", false, true},
		{"10.208.0.0/20", "10.208.3.0/24", false, true},
		{"172.18.0.0/16", "172.18.0.0/16", true, true}, // docker_gwbridge
	} {
		got := collides(pfx(c.subnet), foreignRoute{pfx(c.route), c.link})
		assert.Equal(t, got, c.want, "%s beside %s, link %t", c.subnet, c.route, c.link)
	}
}
