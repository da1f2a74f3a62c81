package controller

import (
	"sync"

	"clocker.io/clocker/pkg/fleet/ca"
)

// signing is the authority that this controller signs with by now, where it has
// changed since the start.
type signing struct {
	mu  sync.RWMutex // guards the following field
	now *ca.Authority
}

// signer is the authority that signs by now.
func (c *Controller) signer() *ca.Authority {
	c.signing.mu.RLock()
	defer c.signing.mu.RUnlock()
	if c.signing.now != nil {
		return c.signing.now
	}
	return c.authority
}
