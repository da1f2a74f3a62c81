package registry

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"time"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/record"
)

// DefaultPool is the pool of networks that name none.
const DefaultPool = "default"

// What [Create] and its fellows answer.
var (
	// ErrOverlap means that a subnet meets another network or a route.
	ErrOverlap = errors.New("overlaps")
	// ErrRoute is the [ErrOverlap] with a route.
	ErrRoute = fmt.Errorf("%w the route", ErrOverlap)
	// ErrPoolExhausted means that a pool has no free subnet left.
	ErrPoolExhausted = errors.New("no free subnet is left")
	// ErrNameTaken means that another network has the name.
	ErrNameTaken = errors.New("name is taken")
	// ErrInUse means that a network cannot be changed any more.
	ErrInUse = errors.New("in use")
)

// Request describes a network to make. The zero value asks for a routed
// network with the next subnet of the default pool.
type Request struct {
	// ID is the new network's id, as from [NewID]; empty means a fresh one.
	ID string
	// Name and App, both set, make the request idempotent. Name may be
	// empty for a network made by hand; see [SetName].
	Name, App string
	// Subnet is IPv4, /8 to /29; the zero value takes the next of Pool.
	Subnet netip.Prefix
	// Gateway is in the subnet; the zero value means its first address.
	Gateway netip.Addr
	// Range limits containers' addresses to a part of the subnet.
	Range netip.Prefix
	// Pool names the pool; empty means [DefaultPool].
	Pool string
	// SubnetBits is the size of the subnet to take from the pool; 0 means
	// the pool's own.
	SubnetBits int
	Internal   bool
	// Segment, Carrier and Egress are as in [record.Network]; empty means
	// "routed", "direct" and "plugin".
	Segment, Carrier, Egress string
	// MTU of the containers' interfaces, in bytes; 0 means the least of all
	// hosts' underlays, less what the carrier needs.
	MTU int
	// Foreign is the host whose engine's own IPAM gives addresses of the
	// lower half of the subnet.
	Foreign string
	// ByHand marks a network that goes when no host uses it any more.
	ByHand          bool
	Options, Labels map[string]string
	// Avoid are ranges that hosts reach otherwise: their routes. Default
	// routes in it are ignored.
	Avoid []netip.Prefix
	// UsedBy is a host that uses the network from its beginning; see [Use].
	UsedBy string
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// check says what is wrong with a request by itself.
func (r Request) check() error {
	if r.Name != "" && !namePattern.MatchString(r.Name) {
		return fmt.Errorf("network name %q: only letters, digits, '_', '.' and '-' are allowed", r.Name)
	}
	if !r.Subnet.IsValid() {
		if r.Gateway.IsValid() || r.Range.IsValid() {
			return errors.New("a gateway or an address range needs a subnet")
		}
		if b := r.SubnetBits; b != 0 && (b < ipam.MinSubnetBits || b > ipam.MaxSubnetBits) {
			return fmt.Errorf("a subnet of /%d: its size must be from /%d to /%d", b, ipam.MinSubnetBits, ipam.MaxSubnetBits)
		}
		return nil
	}
	if err := ipam.CheckSubnet(r.Subnet); err != nil {
		return err
	}
	for _, route := range r.Avoid {
		if route.Bits() > 0 && route.Overlaps(r.Subnet) {
			return fmt.Errorf("subnet %s %w to %s of a host", r.Subnet, ErrRoute, route)
		}
	}
	return nil
}

// network is the record that the request makes with a subnet.
func (r Request) network(id string, subnet netip.Prefix, mtu int, now time.Time) (record.Network, error) {
	gateway := r.Gateway
	if !gateway.IsValid() {
		gateway = ipam.FirstAddress(subnet)
	}
	n := record.Network{
		ID: id, Name: r.Name, App: r.App,
		Subnet: subnet.String(), Gateway: gateway.String(),
		BlockBits: ipam.BlockBits(subnet.Bits()),
		Segment:   or(r.Segment, "routed"), Carrier: or(r.Carrier, "direct"), Egress: or(r.Egress, "plugin"),
		MTU: mtu, Internal: r.Internal, Foreign: r.Foreign, ByHand: r.ByHand,
		Options: r.Options, Labels: r.Labels, CreatedAt: now,
	}
	if r.MTU > 0 {
		n.MTU = r.MTU
	}
	if r.Range.IsValid() {
		n.Range = r.Range.Masked().String()
	}
	_, err := Layout(n)
	return n, err
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Layout is how a network's subnet is cut into blocks.
func Layout(n record.Network) (*ipam.Layout, error) {
	subnet, err := ipam.ParseSubnet(n.Subnet)
	if err != nil {
		return nil, fmt.Errorf("read network %s: %w", n.ID, err)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil {
		return nil, fmt.Errorf("read network %s: %w", n.ID, err)
	}
	var rng netip.Prefix
	if n.Range != "" {
		if rng, err = netip.ParsePrefix(n.Range); err != nil {
			return nil, fmt.Errorf("read network %s: %w", n.ID, err)
		}
	}
	var aux []netip.Addr
	for _, s := range n.Reserved {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("read network %s: %w", n.ID, err)
		}
		aux = append(aux, a)
	}
	return ipam.NewLayout(subnet, n.BlockBits, gateway, rng, aux, n.Foreign != "")
}

// Title names a network in messages: by its name, or its id while it has
// none.
func Title(n record.Network) string {
	if n.Name != "" {
		return fmt.Sprintf("%q (%s)", n.Name, n.Subnet)
	}
	return fmt.Sprintf("%s (%s)", n.ID, n.Subnet)
}

// NewID returns an id for a network: 12 random lower-case hex digits.
func NewID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// Overhead is how many bytes of each packet a carrier takes between hosts
// over IPv4: 50 for VXLAN (RFC 7348), 60 for WireGuard. "auto" may become
// any of them.
func Overhead(carrier string) int {
	switch carrier {
	case "vxlan":
		return 50
	case "wireguard", "auto":
		return 60
	default:
		return 0
	}
}
