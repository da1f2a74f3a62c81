// Package direct is the carrier between hosts on one link: packets go to the
// other host's underlay address as they are, with nothing added. IPv6 packets
// go to its link-local address on the same interface. The link must let
// packets with containers' addresses pass.
//
// It makes nothing in the kernel.
//
// Design page: docs/design/carriers.md.
package direct

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/links"
)

// Carrier reaches hosts by the interface that has this host's underlay
// address.
type Carrier struct {
	handle  *netlink.Handle
	address netip.Addr

	mu sync.Mutex
	// link is what was found at the last Sync, and peers are its peers;
	// guarded by mu.
	link  underlay.Link
	peers []carrier.Peer
}

var (
	_ carrier.Carrier = (*Carrier)(nil)
	_ finding.Checker = (*Carrier)(nil)
)

// New returns the carrier of the host with the underlay address.
func New(h *netlink.Handle, address netip.Addr) *Carrier {
	return &Carrier{handle: h, address: address}
}

// Name is "direct".
func (c *Carrier) Name() string { return "direct" }

// Overhead is 0.
func (c *Carrier) Overhead() int { return 0 }

// Underlay is the MTU of the interface with the host's address.
func (c *Carrier) Underlay() (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.find(); err != nil {
		return 0, err
	}
	return c.link.MTU, nil
}

// Sync looks the interface up again: its address may have moved.
func (c *Carrier) Sync(peers []carrier.Peer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peers = peers
	return c.find()
}

// Reaches reports whether the peer is on the link, as far as both say: it is
// in a prefix of ours, and we are in one of its, if it names any.
func (c *Carrier) Reaches(p carrier.Peer) bool {
	_, err := c.Hop(p)
	return err == nil
}

// Hop goes to the peer itself, if it is on the link.
func (c *Carrier) Hop(p carrier.Peer) (carrier.Hop, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.Index == 0 {
		if err := c.find(); err != nil {
			return carrier.Hop{}, err
		}
	}
	if !links.Within(p.Address, c.link.Prefixes) {
		return carrier.Hop{}, fmt.Errorf("reach %s: %w: it is not on a link with %s", p.Address, carrier.ErrUnreachable, c.address)
	}
	if len(p.Links) > 0 && !links.Within(c.address, p.Links) {
		return carrier.Hop{}, fmt.Errorf("reach %s: %w: %s is not on its link", p.Address, carrier.ErrUnreachable, c.address)
	}
	h := carrier.Hop{Link: c.link.Index, Gateway: p.Address}
	if c.link.LinkLocal.IsValid() {
		h.Gateway6 = p.LinkLocal
	}
	if p.MTU > 0 && p.MTU < c.link.MTU {
		h.MTU = p.MTU
	}
	return h, nil
}

// Check finds peers that were to be reached and are not on the link. There is
// nothing of its own to mend.
func (c *Carrier) Check(bool) ([]finding.Finding, error) {
	c.mu.Lock()
	peers := c.peers
	err := c.find()
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var found []finding.Finding
	for _, p := range peers {
		if _, err := c.Hop(p); err != nil {
			found = append(found, finding.Finding{
				Part: "carrier", Subject: "direct to host " + p.Host, Text: err.Error(),
				Hint: "make the network with the carrier auto or vxlan, or put both hosts on one link",
			})
		}
	}
	return found, nil
}

// find looks for the interface; callers hold mu.
func (c *Carrier) find() error {
	l, err := underlay.Find(c.handle, c.address)
	c.link = l
	return err
}
