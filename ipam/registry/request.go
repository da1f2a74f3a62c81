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
	"clocker.io/clocker/pkg/links"
	"clocker.io/clocker/pkg/record"
)

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
	// IPv6 gives the network an IPv6 subnet (/32 to /120) too, or only that
	// with NoIPv4. The fields with a 6 are as those without; Subnet6 implies
	// IPv6, and the zero Pool6 means [DefaultPool6].
	IPv6, NoIPv4    bool
	Subnet6, Range6 netip.Prefix
	Gateway6        netip.Addr
	Pool6           string
	SubnetBits6     int
	Internal        bool
	// Segment, Carrier and Egress are as in [record.Network]; empty means
	// "routed", "auto" and "plugin".
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
	// Reserved, DNS, DNSSearch, Unfiltered, Driver and DriverOptions are as in
	// [record.Network].
	Reserved, DNS, DNSSearch []string
	Unfiltered               bool
	Driver                   string
	DriverOptions            map[string]string
	// Avoid are ranges that hosts reach otherwise: their routes. Default
	// routes in it are ignored.
	Avoid []netip.Prefix
	// UsedBy is a host that uses the network from its beginning; see [Use].
	UsedBy string
}

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// want is what a request wants of one address family.
type want struct {
	v6          bool
	subnet, rng netip.Prefix
	gateway     netip.Addr
	pool        string
	bits        int
}

// wants are the families that a request wants, IPv4 first.
func (r Request) wants() []want {
	var ws []want
	if !r.NoIPv4 {
		ws = append(ws, want{false, r.Subnet, r.Range, r.Gateway, or(r.Pool, DefaultPool), r.SubnetBits})
	}
	if r.IPv6 || r.NoIPv4 || r.Subnet6.IsValid() {
		ws = append(ws, want{true, r.Subnet6, r.Range6, r.Gateway6, or(r.Pool6, DefaultPool6), r.SubnetBits6})
	}
	return ws
}

// check says what is wrong with a request by itself.
func (r Request) check() error {
	if r.Name != "" && !namePattern.MatchString(r.Name) {
		return fmt.Errorf("network name %q: only letters, digits, '_', '.' and '-' are allowed", r.Name)
	}
	var errs []error
	for _, w := range r.wants() {
		errs = append(errs, w.check())
	}
	return errors.Join(errs...)
}

func (w want) check() error {
	family, least, most := "IPv4", ipam.MinSubnetBits, ipam.MaxSubnetBits
	if w.v6 {
		family, least, most = "IPv6", ipam.MinSubnetBits6, ipam.MaxSubnetBits6
	}
	if !w.subnet.IsValid() {
		if w.gateway.IsValid() || w.rng.IsValid() {
			return fmt.Errorf("a gateway or an address range needs a subnet, of %s", family)
		}
		if b := w.bits; b != 0 && (b < least || b > most) {
			return fmt.Errorf("a subnet of /%d: its size must be from /%d to /%d", b, least, most)
		}
		return nil
	}
	if w.subnet.Addr().Is4() == w.v6 {
		return fmt.Errorf("subnet %s is not %s", w.subnet, family)
	}
	if err := ipam.CheckSubnet(w.subnet); err != nil {
		return err
	}
	return nil
}

// network is the record that the request makes with a subnet of each family
// that it wants.
func (r Request) network(id string, subnets []netip.Prefix, mtu int, now time.Time) (record.Network, error) {
	n := record.Network{
		ID: id, Name: r.Name, App: r.App,
		Segment: or(r.Segment, "routed"), Carrier: or(r.Carrier, "auto"), Egress: or(r.Egress, "plugin"),
		MTU: mtu, Internal: r.Internal, Foreign: r.Foreign, ByHand: r.ByHand,
		Options: r.Options, Labels: r.Labels, CreatedAt: now,
		Reserved: r.Reserved, DNS: r.DNS, DNSSearch: r.DNSSearch, Unfiltered: r.Unfiltered,
		Driver: r.Driver, DriverOptions: r.DriverOptions,
	}
	if r.MTU > 0 {
		n.MTU = r.MTU
	}
	for i, w := range r.wants() {
		subnet, gateway, rng, pool := subnets[i], w.gateway, "", ""
		if !gateway.IsValid() {
			gateway = ipam.FirstAddress(subnet)
		}
		if w.rng.IsValid() {
			rng = w.rng.Masked().String()
		}
		if !w.subnet.IsValid() {
			pool = w.pool
		}
		if w.v6 {
			n.Subnet6, n.Gateway6, n.Range6, n.Pool6, n.BlockBits6 = subnet.String(), gateway.String(), rng, pool, ipam.BlockBits(subnet)
		} else {
			n.Subnet, n.Gateway, n.Range, n.Pool, n.BlockBits = subnet.String(), gateway.String(), rng, pool, ipam.BlockBits(subnet)
		}
	}
	_, err := Layouts(n)
	return n, err
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Layouts are how a network's IPv4 and IPv6 subnets are cut into blocks, in
// this order; nil for the family that it lacks.
func Layouts(n record.Network) (ls [2]*ipam.Layout, err error) {
	if n.Subnet == "" && n.Subnet6 == "" {
		return ls, fmt.Errorf("read network %s: it has no subnet", n.ID)
	}
	for i, f := range []struct {
		subnet, gateway, rng string
		bits                 int
	}{{n.Subnet, n.Gateway, n.Range, n.BlockBits}, {n.Subnet6, n.Gateway6, n.Range6, n.BlockBits6}} {
		if f.subnet == "" {
			continue
		}
		if ls[i], err = layout(f.subnet, f.gateway, f.rng, f.bits, n); err != nil {
			return ls, fmt.Errorf("read network %s: %w", n.ID, err)
		}
		if ls[i].Subnet().Addr().Is4() != (i == 0) {
			return ls, fmt.Errorf("read network %s: subnet %s is of the other family", n.ID, f.subnet)
		}
	}
	return ls, nil
}

func layout(cidr, gw, within string, bits int, n record.Network) (*ipam.Layout, error) {
	subnet, err := ipam.ParseSubnet(cidr)
	if err != nil {
		return nil, err
	}
	gateway, err := netip.ParseAddr(gw)
	if err != nil {
		return nil, err
	}
	var rng netip.Prefix
	if within != "" {
		if rng, err = netip.ParsePrefix(within); err != nil {
			return nil, err
		}
	}
	var aux []netip.Addr
	for _, s := range n.Reserved {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		if a.Is4() == subnet.Addr().Is4() {
			aux = append(aux, a)
		}
	}
	return ipam.NewLayout(subnet, bits, gateway, rng, aux, n.Foreign != "")
}

// Subnets are a network's subnets, IPv4 first. What cannot be read is left
// out.
func Subnets(n record.Network) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range []string{n.Subnet, n.Subnet6} {
		if p, err := netip.ParsePrefix(s); err == nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// Title names a network in messages: by its name, or its id while it has
// none.
func Title(n record.Network) string {
	subnets := or(n.Subnet, n.Subnet6)
	if n.Subnet != "" && n.Subnet6 != "" {
		subnets += ", " + n.Subnet6
	}
	if n.Name != "" {
		return fmt.Sprintf("%q (%s)", n.Name, subnets)
	}
	return fmt.Sprintf("%s (%s)", n.ID, subnets)
}

// NewID returns an id for a network: 12 random lower-case hex digits.
func NewID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// Overhead is the least that a carrier takes of each packet between hosts over
// IPv4, in bytes: 50 for VXLAN (RFC 7348), 60 for WireGuard, nothing for
// "auto", which needs nothing between hosts on one link. What it takes with the
// hosts that there are is in package links.
func Overhead(carrier string) int {
	switch carrier {
	case "vxlan":
		return links.VXLAN
	case "wireguard":
		return links.WireGuard
	default:
		return 0
	}
}
