// Package wireguard is the carrier that encrypts: packets travel in UDP by the
// WireGuard protocol, between hosts that prove who they are by their keys. The
// kernel's device is used where the kernel has one, else a TUN device that
// this process serves itself (wireguard-go).
//
// What is here: the device [DeviceName], the key and the file with the places
// where hosts were last heard of, in the directory for state. The package
// touches nothing else. The TUN device stays when the process ends, so that
// routes do, and is taken over by the next.
//
// Design page: docs/design/carriers.md.
package wireguard

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"clocker.io/clocker/netplugin/carrier"
	"clocker.io/clocker/netplugin/carrier/tunnel"
	"clocker.io/clocker/netplugin/underlay"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/links"
)

// DeviceName is the name of the device. It must not begin as the names of
// endpoints' links do.
const DeviceName = "clk-wireguard"

// Config is what a [Carrier] works with.
type Config struct {
	// Host is this host's id, Address its underlay address.
	Host    string
	Address netip.Addr
	Handle  *netlink.Handle
	// Sysctl is the directory with the host's network settings, Dir the one
	// for state.
	Sysctl, Dir string
	// Userspace leaves the kernel's device alone.
	Userspace bool
	Now       func() time.Time
	Log       *slog.Logger
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

// New returns the carrier of a host, with the host's key, which is made if
// there is none. The device is there as long as there are peers.
func New(c Config) (*Carrier, error) {
	key, err := Key(c.Dir)
	if err != nil {
		return nil, err
	}
	d := &device{Config: c, key: key, self: tunnel.Identify(c.Host), users: make([][]carrier.Peer, 1)}
	return &Carrier{device: d}, nil
}

// PublicKey is what other hosts must be told.
func (c *Carrier) PublicKey() string { return c.device.key.PublicKey().String() }

// Also returns a carrier with peers of its own on the same device. What is
// wrong with the device, whosever peer it concerns, the first carrier's Check
// reports, and this one's nothing.
func (c *Carrier) Also() *Carrier {
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	c.device.users = append(c.device.users, nil)
	return &Carrier{device: c.device, user: len(c.device.users) - 1}
}

// Name is "wireguard".
func (c *Carrier) Name() string { return "wireguard" }

// Overhead is 60 bytes, 80 where hosts reach each other by IPv6.
func (c *Carrier) Overhead() int { return c.device.overhead() }

// Underlay is the MTU of the interface with the host's address.
func (c *Carrier) Underlay() (int, error) {
	l, err := underlay.Find(c.device.Handle, c.device.Address)
	return l.MTU, err
}

// Sync makes the device and what it knows what they must be, and removes it
// when nobody has a peer.
func (c *Carrier) Sync(peers []carrier.Peer) error {
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	c.device.users[c.user] = peers
	return c.device.sync()
}

// Hop is by the device, which knows by itself which host an address is at.
func (c *Carrier) Hop(p carrier.Peer) (carrier.Hop, error) {
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	return c.device.hop(p)
}

// Check compares the device with what it must be, and says which hosts do not
// answer.
func (c *Carrier) Check(fix bool) ([]finding.Finding, error) {
	if c.user != 0 {
		return nil, nil
	}
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	return c.device.check(fix)
}

// Close ends the process's part. The device stays, with all routes by it.
func (c *Carrier) Close() {
	c.device.mu.Lock()
	defer c.device.mu.Unlock()
	c.device.stop()
}

// Remove takes the device away, if it is there, and with it all routes by it.
func Remove(h *netlink.Handle) error { return tunnel.Remove(h, DeviceName) }

// device is what all users share.
type device struct {
	Config
	key  wgtypes.Key
	self tunnel.Identity

	mu sync.Mutex
	// users are the peers of each user; guarded by mu, as all that follows.
	users [][]carrier.Peer
	// engine serves the device; nil when there is none.
	engine engine
	// have is what the engine was told.
	have       map[wgtypes.Key]remote
	index, mtu int
	lastHeard  time.Time
}

// engine is what encrypts: the kernel or wireguard-go.
type engine interface {
	// apply tells it of changes.
	apply([]change) error
	// status says what it knows of each remote.
	status() (map[wgtypes.Key]status, error)
	// close ends it, and leaves the interface where it is.
	close()
}

// status is what an engine knows of a remote.
type status struct {
	// endpoint is where it was last heard of, or said to be.
	endpoint netip.AddrPort
	// handshake is when it last proved who it is; zero for never.
	handshake time.Time
	// received is what came from it, in bytes, since the device was told of
	// it.
	received int64
}

func (d *device) overhead() int {
	if d.Address.Is6() {
		return links.WireGuard + links.ByIPv6
	}
	return links.WireGuard
}

func (d *device) peers() []carrier.Peer {
	var all []carrier.Peer
	for _, peers := range d.users {
		for _, p := range peers {
			if reachable(p) == nil {
				all = append(all, p)
			}
		}
	}
	return all
}

func reachable(p carrier.Peer) error {
	if p.Key == "" {
		return fmt.Errorf("reach %s by wireguard: %w: host %s has not announced its key", p.Address, carrier.ErrUnreachable, p.Host)
	}
	if _, err := wgtypes.ParseKey(p.Key); err != nil {
		return fmt.Errorf("reach %s by wireguard: %w: the key that host %s announced cannot be read: %w", p.Address, carrier.ErrUnreachable, p.Host, err)
	}
	return nil
}

func (d *device) hop(p carrier.Peer) (carrier.Hop, error) {
	if err := reachable(p); err != nil {
		return carrier.Hop{}, err
	}
	if d.engine == nil {
		return carrier.Hop{}, fmt.Errorf("reach %s by wireguard: %w: the device %s is not there", p.Address, carrier.ErrUnreachable, DeviceName)
	}
	h := carrier.Hop{Link: d.index, Source: d.Address}
	if m := p.MTU - d.overhead(); p.MTU > 0 && m < d.mtu {
		h.MTU = links.Padded(m)
	}
	return h, nil
}

// sync brings the device to the peers; callers hold mu. A peer that cannot be
// reached is Hop's to report, so that the others are.
func (d *device) sync() error {
	want := remotes(d.peers())
	if len(want) == 0 {
		d.stop()
		return Remove(d.Handle)
	}
	if err := d.ensure(); err != nil {
		d.stop()
		return err
	}
	if d.have == nil {
		d.recall(want)
	}
	if err := d.tell(changes(d.have, want)); err != nil {
		// What it was told by half is not known: all again.
		d.stop()
		return fmt.Errorf("set device %s up: %w", DeviceName, err)
	}
	d.have = want
	return d.listen()
}

// answerTime is how long a host waits for the other's call before its own, and
// enough how long it waits at most: it waits twice as long each time.
const (
	answerTime = 300 * time.Millisecond
	enough     = 5 * time.Second
)

// tell tells the engine of changes, and sees to it that hosts call each other.
func (d *device) tell(all []change) error {
	later := calls(d.key.PublicKey(), all)
	if err := d.engine.apply(all); err != nil {
		return err
	}
	d.callBack(d.engine, later, answerTime)
	return nil
}

// callBack calls hosts after a while, unless the engine is another by then.
func (d *device) callBack(e engine, later []toCall, after time.Duration) {
	if len(later) == 0 || after > enough {
		return
	}
	time.AfterFunc(after, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.engine != e {
			return
		}
		seen, err := e.status()
		if err == nil {
			var all []change
			all, later = callsBack(later, d.have, seen)
			err = e.apply(all)
		}
		if err != nil {
			d.Log.Warn("hosts not called, device served anew", "error", err)
			d.stop()
			if err := d.sync(); err != nil {
				d.Log.Error("device not served", "device", DeviceName, "error", err)
			}
			return
		}
		d.callBack(e, later, 2*after)
	})
}

// stop ends the engine.
func (d *device) stop() {
	if d.engine != nil {
		d.engine.close()
	}
	d.engine, d.have, d.index = nil, nil, 0
}
