// Package auto is the carrier that chooses for each host: direct to those on
// one link with this host, and by a tunnel to all others. It chooses anew at
// each Sync, so it changes over when a host moves.
//
// It makes nothing in the kernel itself.
//
// Design page: docs/design/carriers.md.
package auto

import (
	"errors"
	"fmt"
	"sync"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/pkg/finding"
)

// Direct is the carrier to hosts on the same link.
type Direct interface {
	carrier.Carrier
	finding.Checker
	// Reaches reports whether a peer is on the link.
	Reaches(carrier.Peer) bool
}

// Tunnel is the carrier to all other hosts.
type Tunnel interface {
	carrier.Carrier
	finding.Checker
}

// Carrier chooses between two others. It is the only user of both: whoever
// asks them by themselves needs other ones (see vxlan's Also).
type Carrier struct {
	direct Direct
	tunnel Tunnel

	mu  sync.Mutex
	far map[string]bool // hosts that the tunnel leads to; guarded by mu
	// broken is why the tunnel leads nowhere, as found at the last Sync;
	// guarded by mu.
	broken error
}

var (
	_ carrier.Carrier = (*Carrier)(nil)
	_ finding.Checker = (*Carrier)(nil)
)

// New returns a carrier that chooses between the two.
func New(direct Direct, tunnel Tunnel) *Carrier {
	return &Carrier{direct: direct, tunnel: tunnel}
}

// Name is "auto".
func (c *Carrier) Name() string { return "auto" }

// Overhead is what the tunnel adds: the most that a packet can lose. What a
// network's packets lose is worked out from where its hosts are; see package
// links.
func (c *Carrier) Overhead() int { return c.tunnel.Overhead() }

// Underlay is this host's underlay MTU.
func (c *Carrier) Underlay() (int, error) { return c.direct.Underlay() }

// Sync shares the peers out between the two carriers. A tunnel that cannot be
// made is reported by Hop: hosts on the link are reached all the same.
func (c *Carrier) Sync(peers []carrier.Peer) error {
	if err := c.direct.Sync(nil); err != nil {
		return err
	}
	var near, rest []carrier.Peer
	far := map[string]bool{}
	for _, p := range peers {
		if c.direct.Reaches(p) {
			near = append(near, p)
			continue
		}
		rest = append(rest, p)
		far[p.Host] = true
	}
	broken := c.tunnel.Sync(rest)
	if broken != nil && len(rest) > 0 {
		broken = fmt.Errorf("%w: %w", carrier.ErrUnreachable, broken)
	}
	c.mu.Lock()
	c.far, c.broken = far, broken
	c.mu.Unlock()
	if len(rest) == 0 {
		return errors.Join(c.direct.Sync(near), broken)
	}
	return c.direct.Sync(near)
}

// Hop is the chosen carrier's.
func (c *Carrier) Hop(p carrier.Peer) (carrier.Hop, error) {
	c.mu.Lock()
	far, broken := c.far[p.Host], c.broken
	c.mu.Unlock()
	if !far {
		return c.direct.Hop(p)
	}
	if broken != nil {
		return carrier.Hop{}, fmt.Errorf("reach %s: %w", p.Address, broken)
	}
	return c.tunnel.Hop(p)
}

// Check is both carriers'.
func (c *Carrier) Check(fix bool) ([]finding.Finding, error) {
	a, err := c.direct.Check(fix)
	if err != nil {
		return nil, fmt.Errorf("check carrier auto: %w", err)
	}
	b, err := c.tunnel.Check(fix)
	return append(a, b...), err
}
