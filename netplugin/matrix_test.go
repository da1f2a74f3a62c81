package main

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/matrix"
	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/pkg/record"
)

// dual makes a network of the fleet with both families.
func dual(t testing.TB, w *nettest.World, name, app string) *record.Network {
	t.Helper()
	n, err := registry.Create(t.Context(), w.Store, time.Now(), registry.Request{Name: name, App: app, Egress: "plugin", IPv6: true})
	assert.NilError(t, err)
	return &n
}

// Every pair of places gets what its verdict says.
func TestMatrix(t *testing.T) {
	w := nettest.NewWorld(t, plugin)
	h1, h2 := w.AddBareHost(), w.AddBareHost()
	matrix.Dual(w, h1, h2)
	for _, h := range []*nettest.Host{h1, h2} {
		h.Adopt()
		h.Start()
	}
	matrix.Run(t, w, h1, h2, func(name, app string) *record.Network { return dual(t, w, name, app) })
}
