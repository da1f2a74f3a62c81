package vxlan

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/netplugin/nettest"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// view is a topology that a test changes.
type view struct {
	mu      sync.Mutex
	now     *topology.Topology // guarded by mu
	know    topology.Knowledge // guarded by mu
	changed chan struct{}
}

func (v *view) Read(f func(*topology.Topology, topology.Knowledge)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(v.now, v.know)
}

// learn makes hosts known.
func (v *view) learn(hosts ...*end) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.know = topology.Followed
	for _, h := range hosts {
		v.now.Underlays[h.ID] = record.Underlay{Address: h.Address}
	}
}

func (v *view) Changes(context.Context, ...topology.Kind) <-chan struct{} { return v.changed }

func TestRules(t *testing.T) {
	text := Rules(addrs(t, "10.0.0.1", "2001:db8::1")).String()
	for _, want := range []string{"udp dport 7483 fib daddr type local jump arrived", "ip saddr @hosts notrack return", "10.0.0.1,", "2001:db8::1,"} {
		assert.Check(t, strings.Contains(text, want), "%q is not in\n%s", want, text)
	}
}

// Only hosts of the fleet are listened to.
func TestGuard(t *testing.T) {
	w := nettest.NewWorld(t, nil)
	l := w.FirstLink(1500)
	a, b, stranger := newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false)), newEnd(t, l.AddBareHost(false))
	v := &view{now: topology.New(), know: topology.Unknown, changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	g := NewGuard(a.Handle, slog.New(slog.DiscardHandler))
	a.device.Guard = g
	a.Do(func() { _, err := g.conn.Open(); assert.NilError(t, err) })
	go func() { defer close(ended); _ = g.Run(ctx, v) }() // its error is that ctx ended
	defer func() { cancel(); <-ended }()

	tables := func() string { return a.Run("nft", "list", "tables") }
	v.changed <- struct{}{}
	assert.Check(t, !strings.Contains(tables(), TableName), "a table without a device")
	v.learn(a, b)
	v.changed <- struct{}{}
	v.changed <- struct{}{} // the first has been acted on
	assert.Check(t, !strings.Contains(tables(), TableName), "a table without a device")

	// The stranger is known to the device, so that only the table is in its
	// way.
	a.sync(t, b, stranger)
	b.sync(t, a)
	stranger.sync(t, a)
	assert.Check(t, strings.Contains(tables(), TableName))
	a.reaches(t, b, 1450)
	out := stranger.Run("sh", "-c", "ping -c2 -i0.2 -W1 -I "+stranger.v4+" "+a.v4+" || true")
	assert.Check(t, strings.Contains(out, "100% packet loss"), out)
	v.learn(stranger)
	v.changed <- struct{}{}
	v.changed <- struct{}{}
	stranger.reaches(t, a, 1450)

	a.Run("nft", "delete", "table", "inet", TableName)
	a.Eventually(2*guardEvery, "the table is put back", func() error { return failing(!strings.Contains(tables(), TableName)) })
	a.sync(t)
	a.Eventually(2*guardEvery, "the table goes with the device", func() error { return failing(strings.Contains(tables(), TableName)) })
	a.Do(func() { assert.NilError(t, RemoveTable()) })
}

func failing(yes bool) error {
	if yes {
		return errors.New("not yet")
	}
	return nil
}

func addrs(t *testing.T, texts ...string) []netip.Addr {
	t.Helper()
	var all []netip.Addr
	for _, x := range texts {
		a, err := netip.ParseAddr(x)
		assert.NilError(t, err)
		all = append(all, a)
	}
	return all
}
