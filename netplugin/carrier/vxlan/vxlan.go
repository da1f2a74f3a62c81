// Package vxlan is the carrier between hosts that reach each other somehow,
// over any number of routers: packets travel in UDP (RFC 7348). Each host has
// one device, and on it for each other host one neighbour entry (next hop to
// hardware address) and one forwarding entry (hardware address to underlay
// address). Nothing is learned and nothing is flooded.
//
// What is here: the device [DeviceName] with its entries and settings, and the
// nftables table [TableName], which lets only the fleet's hosts send to the
// port. The package touches nothing else.
//
// Design page: docs/design/carriers.md.
package vxlan

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/links"
)

// DeviceName is the name of the device. It must not begin as the names of
// endpoints' links do.
const DeviceName = "clk-vxlan"

// Port is the UDP port of the fleet's VXLAN packets, unlike that of Docker's
// overlay (4789) and of others (8472), so that the devices do not meet and no
// network card or hypervisor takes the packets for its own. VNI is the
// network identifier of the carrier's packets; those of bridged networks are
// greater.
const (
	Port = 7483
	VNI  = 1
)

// Config is what a [Carrier] works with.
type Config struct {
	// Host is this host's id, Address its underlay address.
	Host    string
	Address netip.Addr
	Handle  *netlink.Handle
	// Sysctl is the directory with the host's network settings.
	Sysctl string
	// SoftwareChecksums has the host work out the checksums of what it sends,
	// as some network cards spoil those within a tunnel.
	SoftwareChecksums bool
	// Guard is held before the device is made; nil for none.
	Guard *Guard
	Log   *slog.Logger
}

// Carrier reaches hosts by the device.
type Carrier struct {
	device *device
	user   int
}

var (
	_ carrier.Carrier = (*Carrier)(nil)
	_ finding.Checker = (*Carrier)(nil)
)

// New returns the carrier of a host. The device is there as long as there are
// peers.
func New(c Config) *Carrier {
	d := &device{Config: c, self: tunnel.Identify(c.Host)}
	d.users = append(d.users, nil)
	return &Carrier{device: d}
}

// Also returns a carrier with peers of its own on the same device. What is
// wrong with the device, whosever peer it concerns, the first carrier's Check
// reports, and this one's nothing.
func (c *Carrier) Also() *Carrier {
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	c.device.users = append(c.device.users, nil)
	return &Carrier{device: c.device, user: len(c.device.users) - 1}
}

// Name is "vxlan".
func (c *Carrier) Name() string { return "vxlan" }

// Overhead is 50 bytes, 70 where hosts reach each other by IPv6.
func (c *Carrier) Overhead() int { return c.device.overhead() }

// Underlay is the MTU of the interface with the host's address.
func (c *Carrier) Underlay() (int, error) {
	l, err := underlay.Find(c.device.Handle, c.device.Address)
	return l.MTU, err
}

// Sync makes the device and its entries what they must be, and removes it when
// nobody has a peer.
func (c *Carrier) Sync(peers []carrier.Peer) error {
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	c.device.users[c.user] = peers
	return c.device.sync()
}

// Hop is by the device to the peer's identity there.
func (c *Carrier) Hop(p carrier.Peer) (carrier.Hop, error) {
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	return c.device.hop(p)
}

// Check compares the device and its entries with what they must be.
func (c *Carrier) Check(fix bool) ([]finding.Finding, error) {
	if c.user != 0 {
		return nil, nil
	}
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	return c.device.check(fix)
}

// device is what all users share.
type device struct {
	Config
	self tunnel.Identity

	mu sync.Mutex
	// users are the peers of each user; guarded by mu, as all that follows.
	users [][]carrier.Peer
	index int // 0 without a device
	mtu   int // of the device
	ipv6  bool
}

func (d *device) overhead() int {
	if d.Address.Is6() {
		return links.VXLAN + links.ByIPv6
	}
	return links.VXLAN
}

// peers are all users' peers that the device can reach, by host.
func (d *device) peers() map[string]carrier.Peer {
	all := map[string]carrier.Peer{}
	for _, peers := range d.users {
		for _, p := range peers {
			if d.reachable(p) == nil {
				all[p.Host] = p
			}
		}
	}
	return all
}

func (d *device) reachable(p carrier.Peer) error {
	if p.Address.Is4() != d.Address.Is4() {
		return fmt.Errorf("reach %s by vxlan: %w: this host's underlay address %s is of the other family", p.Address, carrier.ErrUnreachable, d.Address)
	}
	if p.Address == d.Address {
		return fmt.Errorf("reach host %s by vxlan: %w: it says that its underlay address is %s, which is this host's", p.Host, carrier.ErrUnreachable, p.Address)
	}
	return nil
}

func (d *device) hop(p carrier.Peer) (carrier.Hop, error) {
	if err := d.reachable(p); err != nil {
		return carrier.Hop{}, err
	}
	if d.index == 0 {
		return carrier.Hop{}, fmt.Errorf("reach %s by vxlan: %w: the device %s is not there", p.Address, carrier.ErrUnreachable, DeviceName)
	}
	i := tunnel.Identify(p.Host)
	h := carrier.Hop{Link: d.index, Gateway: i.Next(p.Address), OnLink: true, Source: d.Address}
	if d.ipv6 {
		h.Gateway6 = i.LinkLocal
	}
	if m := p.MTU - d.overhead(); p.MTU > 0 && m < d.mtu {
		h.MTU = m
	}
	return h, nil
}

// sync brings the device and its entries to the peers; callers hold mu. A peer
// that cannot be reached is Hop's to report, so that the others are.
func (d *device) sync() error {
	peers := d.peers()
	d.index = 0
	if len(peers) == 0 {
		return Remove(d.Handle)
	}
	if err := d.ensure(); err != nil {
		return err
	}
	_, err := d.entries(peers, true)
	return err
}
