package driver

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// seen is the endpoints of a host; looked is told each time that one is
// looked for.
type seen struct {
	mu     sync.Mutex
	has    map[netip.Addr]bool
	looked chan struct{}
}

func newSeen() *seen {
	return &seen{has: map[netip.Addr]bool{}, looked: make(chan struct{}, 1000)}
}

func (e *seen) inUse(_ string, a netip.Addr) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looked <- struct{}{}
	return e.has[a]
}

func (e *seen) set(address string, has bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.has[netip.MustParseAddr(address)] = has
}

// An engine asks for an address a moment before it makes the endpoint. Who
// asks for the same address in that moment must not get it.
func TestAddressWhoseEndpointIsToCome(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	e := newSeen()
	a := f.host("a", func(c *Config) { c.InUse, c.Doubt, c.Timeout = e.inUse, 2*time.Second, 10*time.Second })
	b := f.host("b", func(c *Config) { c.Answer, c.Timeout = 8*time.Second, 10*time.Second })
	pools := map[*host]string{a: a.join(n), b: b.join(n)}
	f.alive("a")
	for _, who := range []*host{a, b} {
		x := a.get(pools[a], "", "first")
		for len(e.looked) > 0 {
			<-e.looked
		}
		answer := make(chan error, 1)
		go func() {
			_, err := who.request1(pools[who], x, "second")
			answer <- err
		}()
		<-e.looked // It is in doubt.
		e.set(x, true)
		assert.ErrorContains(t, <-answer, "in use by first on host a")
		assert.Assert(t, a.Owner(n.ID, netip.MustParseAddr(x)))
	}
	// One that no endpoint comes for is given, to another host too.
	x := a.get(pools[a], "", "gone")
	assert.Equal(t, b.get(pools[b], x, "second"), x)
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr(x)))
	// The engine that never made it gives back what it does not hold.
	a.put(pools[a], x)
	assert.Assert(t, b.Owner(n.ID, netip.MustParseAddr(x)))
}

// A release is said again by an engine that missed the answer: by then somebody
// else may have the address.
func TestReleaseSaidAgain(t *testing.T) {
	f := newFleet(t)
	n := f.subnet("10.1.0.0/24")
	e := newSeen()
	a := f.host("a", func(c *Config) { c.InUse, c.Doubt = e.inUse, 2*time.Second })
	pool := a.join(n)
	x := a.get(pool, "", "")
	e.set(x, true)
	a.put(pool, x)
	assert.Assert(t, a.Owner(n.ID, netip.MustParseAddr(x)), "it has an endpoint")

	y := a.get(pool, "", "")
	for len(e.looked) > 0 {
		<-e.looked
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.put(pool, y)
	}()
	<-e.looked
	e.set(y, true) // the endpoint comes
	<-done
	assert.Assert(t, a.Owner(n.ID, netip.MustParseAddr(y)), "its endpoint was to come")

	// Its endpoint was there and is gone: nothing is in doubt.
	a.Annotate(n.ID, netip.MustParseAddr(y), Note{Endpoint: "e"})
	e.set(y, false)
	a.put(pool, y)
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr(y)))

	// None came: it is free after the doubt.
	z := a.get(pool, "", "")
	a.put(pool, z)
	assert.Assert(t, !a.Owner(n.ID, netip.MustParseAddr(z)))
}
