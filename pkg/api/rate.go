package api

import (
	"net/netip"
	"sync"
	"time"
)

// How often one address may try to join without a certificate: a few times at
// once, then one try in a while. A secret has 160 bits, so this is not what
// keeps it from being guessed; it bounds what trying costs the controllers.
const (
	joinBurst = 20
	joinEvery = time.Second
	// maxSources bounds what is remembered.
	maxSources = 4096
)

// rate lets each source do something a few times at once, and then once every
// interval.
type rate struct {
	burst int
	every time.Duration
	now   func() time.Time

	mu   sync.Mutex           // guards the following field
	full map[string]time.Time // when a source has its whole burst again
}

func newRate(burst int, every time.Duration, now func() time.Time) *rate {
	return &rate{burst: burst, every: every, now: now, full: map[string]time.Time{}}
}

// allow reports whether a source may go on.
func (r *rate) allow(source string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if len(r.full) >= maxSources {
		for s, t := range r.full {
			if !t.After(now) {
				delete(r.full, s)
			}
		}
	}
	at, known := r.full[source]
	if !known && len(r.full) >= maxSources {
		return false
	}
	if at.Before(now) {
		at = now
	}
	at = at.Add(r.every)
	if at.Sub(now) > time.Duration(r.burst)*r.every {
		return false
	}
	r.full[source] = at
	return true
}

// sourceOf is the address that is counted: all of an IPv6 subnet is one, since
// whoever has one address of it has them all.
func sourceOf(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := ap.Addr().Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, _ := a.Prefix(64) // an address has a prefix of 64 bits
	return p.Masked().String()
}
