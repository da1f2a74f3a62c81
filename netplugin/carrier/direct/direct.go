// Package direct is the carrier between hosts on one link: packets go to the
// other host's underlay address as they are, with nothing added. The link
// must let packets with containers' addresses pass.
//
// It makes nothing in the kernel.
//
// Design page: docs/design/network.md.
package direct

import (
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier"
)

// Carrier reaches hosts by the interface that has this host's underlay
// address.
type Carrier struct {
	handle  *netlink.Handle
	address netip.Addr

	mu sync.Mutex
	// link and subnets are what was found at the last Sync; guarded by mu.
	link    int
	mtu     int
	subnets []netip.Prefix
}

var _ carrier.Carrier = (*Carrier)(nil)

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
	return c.mtu, nil
}

// Sync looks the interface up again: its address may have moved.
func (c *Carrier) Sync([]carrier.Peer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find()
}

// Hop goes to the peer itself, if it is on the link.
func (c *Carrier) Hop(p carrier.Peer) (carrier.Hop, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link == 0 {
		if err := c.find(); err != nil {
			return carrier.Hop{}, err
		}
	}
	for _, s := range c.subnets {
		if s.Contains(p.Address) {
			return carrier.Hop{Link: c.link, Gateway: p.Address}, nil
		}
	}
	return carrier.Hop{}, fmt.Errorf("reach %s: %w: it is not on a link with %s", p.Address, carrier.ErrUnreachable, c.address)
}

// find looks for the interface; callers hold mu.
func (c *Carrier) find() error {
	addrs, err := c.handle.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	c.link, c.subnets = 0, nil
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && ip == c.address {
			c.link = a.LinkIndex
		}
	}
	if c.link == 0 {
		return fmt.Errorf("find underlay: no interface has the host's address %s", c.address)
	}
	l, err := c.handle.LinkByIndex(c.link)
	if err != nil {
		return fmt.Errorf("find underlay: %w", err)
	}
	c.mtu = l.Attrs().MTU
	for _, a := range addrs {
		if a.LinkIndex != c.link {
			continue
		}
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok {
			ones, _ := a.Mask.Size()
			c.subnets = append(c.subnets, netip.PrefixFrom(ip, ones).Masked())
		}
	}
	return nil
}
