// Package audit looks for contradictions in what etcd says of addresses: what
// must hold between networks, blocks, endpoints and pins, whoever wrote them.
//
// It is pure: a snapshot in, findings out. It reads nothing itself and mends
// nothing; registry.Audit feeds it.
//
// Design page: docs/design/addresses.md.
package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"clocker.io/clocker/ipam"
	"clocker.io/clocker/pkg/finding"
	"clocker.io/clocker/pkg/record"
)

// Part is what findings say looked.
const Part = "addresses"

// Snapshot is what etcd said at one revision.
type Snapshot struct {
	Pools    []record.Pool
	Networks []record.Network
	Uses     []Use
	Blocks   []Block
	// Endpoints, Pins and Services have one address each.
	Endpoints []Endpoint
	Pins      []Pin
	Services  []Service
	// Hosts maps the ids of the fleet's hosts to their names; nil means that
	// they are not known.
	Hosts map[string]string
}

// Use is a use of a network, as etcd has it, with what its key says.
type Use struct {
	Network string
	record.NetworkUse
}

// Block is a block of a network, as etcd has it, with what its key says.
type Block struct {
	Network, CIDR string
	record.Block
}

// Endpoint is an address in use, as etcd has it, with what its key says.
type Endpoint struct {
	Network, Address string
	record.Endpoint
}

// Pin is a pinned address, as etcd has it, with what its key says.
type Pin struct {
	Network, Address string
	record.Pin
}

// Service is a service's address, as etcd has it, with what its key says.
type Service struct {
	Network, Address string
	record.Service
}

// Check returns what is wrong in a snapshot, in a stable order.
func Check(s Snapshot) []finding.Finding {
	w := &walk{Snapshot: s, nets: map[string]*network{}}
	w.networks()
	w.blocks()
	w.pins()
	w.endpoints()
	w.services()
	return w.found
}

// network is a network with what is known of its addresses.
type network struct {
	record.Network
	subnets []netip.Prefix
	blocks  []owned
	pins    map[netip.Addr]record.Pin
	used    map[netip.Addr]bool
}

// owned is a block with its range.
type owned struct {
	prefix netip.Prefix
	record.Block
}

type walk struct {
	Snapshot
	nets  map[string]*network
	found []finding.Finding
}

func (w *walk) say(subject, hint, format string, args ...any) {
	w.found = append(w.found, finding.Finding{Part: Part, Subject: subject, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func title(n record.Network) string {
	if n.Name != "" {
		return n.Name
	}
	return n.ID
}

// host names a host.
func (w *walk) host(id string) string {
	if name := w.Hosts[id]; name != "" {
		return name
	}
	return id
}

// gone reports whether a host is none of the fleet.
func (w *walk) gone(id string) bool {
	_, ok := w.Hosts[id]
	return !ok && w.Hosts != nil
}

func (w *walk) networks() {
	pools := map[string]netip.Prefix{}
	for _, p := range w.Pools {
		cidr, err := netip.ParsePrefix(p.CIDR)
		if err == nil {
			err = ipam.CheckPool(cidr, p.SubnetBits)
		}
		if err != nil {
			w.say("pool "+p.Name, "remove the pool and add it again", "address pool %s cannot be used: %v", p.Name, err)
			continue
		}
		pools[p.Name] = cidr
	}
	used := map[string]bool{}
	for _, u := range w.Uses {
		used[u.Network] = true
	}
	type taken struct {
		prefix netip.Prefix
		of     record.Network
	}
	var all []taken
	for _, n := range w.Networks {
		nw := &network{Network: n, pins: map[netip.Addr]record.Pin{}, used: map[netip.Addr]bool{}}
		w.nets[n.ID] = nw
		for _, f := range []struct{ subnet, pool string }{{n.Subnet, n.Pool}, {n.Subnet6, n.Pool6}} {
			if f.subnet == "" {
				continue
			}
			p, err := ipam.ParseSubnet(f.subnet)
			if err != nil {
				w.say("network "+title(n), "remove the network", "subnet of network %s cannot be used: %v", title(n), err)
				continue
			}
			nw.subnets = append(nw.subnets, p)
			all = append(all, taken{p, n})
			if f.pool == "" {
				continue
			}
			if pool, ok := pools[f.pool]; !ok {
				w.say("network "+title(n), "", "network %s has its subnet %s from pool %s, which does not exist", title(n), p, f.pool)
			} else if !pool.Overlaps(p) || pool.Bits() > p.Bits() {
				w.say("network "+title(n), "", "subnet %s of network %s is outside its pool %s (%s)", p, title(n), f.pool, pool)
			}
		}
		if n.ByHand && !used[n.ID] {
			w.say("network "+title(n), "docker clocker network rm "+title(n), "network %s was made by hand and no host uses it any more", title(n))
		}
	}
	slices.SortFunc(all, func(a, b taken) int {
		return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), a.prefix.Bits()-b.prefix.Bits(), strings.Compare(a.of.ID, b.of.ID))
	})
	for i, a := range all {
		for _, b := range all[i+1:] {
			if !a.prefix.Overlaps(b.prefix) {
				break // Sorted: nothing later meets it either.
			}
			w.say("network "+title(b.of), "remove one of the networks", "subnet %s of network %s overlaps %s of network %s", b.prefix, title(b.of), a.prefix, title(a.of))
		}
	}
}

// find is the network of a record, which it notes when there is none.
func (w *walk) find(id, what string) *network {
	n := w.nets[id]
	if n == nil {
		w.say(what, "", "%s is of network %s, which does not exist", what, id)
	}
	return n
}

// within reports whether a range or an address is in one of the subnets.
func (n *network) within(p netip.Prefix) bool {
	return slices.ContainsFunc(n.subnets, func(s netip.Prefix) bool { return s.Overlaps(p) && s.Bits() <= p.Bits() })
}

func (w *walk) blocks() {
	for _, b := range w.Blocks {
		what := fmt.Sprintf("block %s of network %s", b.CIDR, b.Network)
		n := w.find(b.Network, what)
		if n == nil {
			continue
		}
		what = fmt.Sprintf("block %s of network %s", b.CIDR, title(n.Network))
		p, err := netip.ParsePrefix(b.CIDR)
		if err != nil || !n.within(p) {
			w.say(what, "", "%s is not in the network's subnets", what)
			continue
		}
		n.blocks = append(n.blocks, owned{p, b.Block})
		switch b.State {
		case record.BlockOwned, record.BlockDraining, record.BlockEngine:
			if w.gone(b.Host) {
				w.say(what, "docker clocker host rm "+b.Host+" --force", "%s is owned by host %s, which is not in the fleet", what, b.Host)
			}
		case record.BlockQuarantined, record.BlockServices:
		default:
			w.say(what, "", "%s is in the unknown state %q", what, b.State)
		}
	}
	for _, n := range w.nets {
		slices.SortFunc(n.blocks, func(a, b owned) int {
			return cmp.Or(a.prefix.Addr().Compare(b.prefix.Addr()), a.prefix.Bits()-b.prefix.Bits())
		})
	}
	for _, n := range w.Networks {
		blocks := w.nets[n.ID].blocks
		for i, a := range blocks {
			for _, b := range blocks[i+1:] {
				if !a.prefix.Overlaps(b.prefix) {
					break
				}
				w.say(fmt.Sprintf("block %s of network %s", b.prefix, title(n)), "", "block %s of host %s overlaps block %s of host %s in network %s",
					b.prefix, w.host(b.Host), a.prefix, w.host(a.Host), title(n))
			}
		}
	}
}

// block is the block with an address.
func (n *network) block(a netip.Addr) (owned, bool) {
	i, ok := slices.BinarySearchFunc(n.blocks, a, func(b owned, a netip.Addr) int { return b.prefix.Addr().Compare(a) })
	if !ok {
		i--
	}
	if i < 0 || !n.blocks[i].prefix.Contains(a) {
		return owned{}, false
	}
	return n.blocks[i], true
}

// address reads the address of a record and finds its network.
func (w *walk) address(kind, network, address string) (*network, netip.Addr, string, bool) {
	what := fmt.Sprintf("%s %s of network %s", kind, address, network)
	n := w.find(network, what)
	if n == nil {
		return nil, netip.Addr{}, what, false
	}
	what = fmt.Sprintf("%s %s of network %s", kind, address, title(n.Network))
	a, err := netip.ParseAddr(address)
	if err != nil || !n.within(netip.PrefixFrom(a, a.BitLen())) {
		w.say(what, "", "%s is not in the network's subnets", what)
		return n, a, what, false
	}
	return n, a, what, true
}

func (w *walk) pins() {
	for _, p := range w.Pins {
		n, a, what, ok := w.address("pin", p.Network, p.Address)
		if !ok {
			continue
		}
		n.pins[a] = p.Pin
		b, owned := n.block(a)
		switch {
		case w.gone(p.Host) && !p.Released:
			w.say(what, "", "%s is for host %s, which is not in the fleet", what, p.Host)
		case p.Owner != "" && !owned:
			w.say(what, "", "%s was lent by host %s, but its block is nobody's", what, w.host(p.Owner))
		case p.Owner != "" && owned && b.Host != p.Owner && b.State == record.BlockOwned:
			w.say(what, "", "%s was lent by host %s, but its block %s is host %s's", what, w.host(p.Owner), b.prefix, w.host(b.Host))
		}
	}
}

func (w *walk) endpoints() {
	for _, e := range w.Endpoints {
		n, a, what, ok := w.address("address", e.Network, e.Address)
		if !ok {
			continue
		}
		n.used[a] = true
		pin, pinned := n.pins[a]
		b, owned := n.block(a)
		switch {
		case w.gone(e.Host):
			w.say(what, "", "%s is in use by host %s, which is not in the fleet", what, e.Host)
		case pinned && pin.Host == e.Host && !pin.Released:
		case pinned:
			w.say(what, "", "%s is in use by host %s, but pinned for host %s", what, w.host(e.Host), w.host(pin.Host))
		case !owned:
			w.say(what, "", "%s is in use by host %s, but in no block and not pinned", what, w.host(e.Host))
		case b.Host != e.Host:
			w.say(what, "", "%s is in use by host %s, but its block %s is host %s's", what, w.host(e.Host), b.prefix, w.host(b.Host))
		case b.State == record.BlockQuarantined:
			w.say(what, "", "%s is in use by host %s, whose block %s is quarantined", what, w.host(e.Host), b.prefix)
		}
	}
}

func (w *walk) services() {
	for _, s := range w.Services {
		for _, address := range []string{s.Service.Address, s.Service.Address6} {
			if address == "" {
				continue
			}
			n, a, what, ok := w.address("service address", s.Network, address)
			if !ok {
				continue
			}
			b, owned := n.block(a)
			_, pinned := n.pins[a]
			switch {
			case n.used[a] || pinned:
				w.say(what, "", "%s of service %s of %s is in use by a container too", what, s.Service.Service, s.App)
			case !owned || b.State != record.BlockServices:
				w.say(what, "", "%s of service %s of %s is in no block for services", what, s.Service.Service, s.App)
			}
		}
	}
}
