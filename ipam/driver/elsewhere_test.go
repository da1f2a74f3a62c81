package driver

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
)

// What another driver's network has is given back by its engine only, however
// long nothing is seen of it.
func TestNetworkOfAnotherDriver(t *testing.T) {
	f := newFleet(t)
	h := f.host("a")
	n := f.network(registry.Request{Subnet: netip.MustParsePrefix("10.1.0.0/24"), Driver: "macvlan"})
	pool := h.join(n)
	got, err := h.request1(pool, "", "web")
	assert.NilError(t, err)
	assert.Check(t, strings.HasSuffix(got, "/24"), got)
	a := netip.MustParsePrefix(got).Addr()
	for range 3 {
		f.clock.forward(time.Hour)
		report, err := h.Reconcile(Live{Networks: map[string]int{}, Addresses: map[string][]netip.Addr{}})
		assert.NilError(t, err)
		assert.Equal(t, len(report.Released)+len(report.Unknown), 0)
	}
	_, err = h.request1(pool, a.String(), "")
	assert.ErrorContains(t, err, "in use")
	_, err = h.request1(pool, a.String(), "db")
	assert.ErrorContains(t, err, "in use")
	again, err := h.request1(pool, a.String(), "web")
	assert.NilError(t, err)
	assert.Equal(t, again, got)
	h.put(pool, a.String())
	_, err = h.request1(pool, a.String(), "db")
	assert.NilError(t, err)
}
