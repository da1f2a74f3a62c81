// Package topology is what a host knows of the fleet's networks: which
// networks there are, which host owns which block of addresses, which
// addresses are in use where, and how each host is reached. It is fed by one
// watch on etcd and remembered on disk, so that a host that starts while etcd
// is away still knows its way.
//
// It decides nothing and never writes to etcd.
//
// Design page: docs/design/networks.md.
package topology

import (
	"net/netip"
	"strings"

	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// Topology is one state of the fleet's networks. Its maps are never nil after
// [New]; a reader must not change them.
type Topology struct {
	// Revision is the etcd revision up to which everything is in it; 0 when it
	// is only remembered.
	Revision int64
	// Networks and Pools are by id and by name.
	Networks map[string]record.Network
	Pools    map[string]record.Pool
	// Blocks and Endpoints are by network id, then by block and address.
	Blocks    map[string]map[netip.Prefix]record.Block
	Endpoints map[string]map[netip.Addr]record.Endpoint
	// Underlays are by host id.
	Underlays map[string]record.Underlay
	// Pins and Services are by network id, then by address.
	Pins     map[string]map[netip.Addr]record.Pin
	Services map[string]map[netip.Addr]record.Service
	// Attached are by network id, then by host id.
	Attached map[string]map[string]record.Attached
	// Names are the replicas that can be reached, by host id and task.
	Names map[string]map[string]record.NameRecord
	// Published are by "tcp_80", Rules by their id.
	Published map[string]record.Published
	Rules     map[string]record.Rule
}

// New returns an empty topology.
func New() *Topology {
	return &Topology{
		Networks:  map[string]record.Network{},
		Pools:     map[string]record.Pool{},
		Blocks:    map[string]map[netip.Prefix]record.Block{},
		Endpoints: map[string]map[netip.Addr]record.Endpoint{},
		Underlays: map[string]record.Underlay{},
		Pins:      map[string]map[netip.Addr]record.Pin{},
		Services:  map[string]map[netip.Addr]record.Service{},
		Attached:  map[string]map[string]record.Attached{},
		Names:     map[string]map[string]record.NameRecord{},
		Published: map[string]record.Published{},
		Rules:     map[string]record.Rule{},
	}
}

// Kind says what a key under [store.Keys.Net] is about.
type Kind int

// The kinds of key that a topology is made of. All others are Other.
const (
	Other Kind = iota
	Pool
	Network
	Block
	Endpoint
	Underlay
	Pin
	Service
	Attached
	Name
	Published
	Rule
)

// Put takes a record in. It returns what the record is about; a record that
// cannot be read is reported and changes nothing.
func (t *Topology) Put(k store.Keys, r store.Raw) (Kind, error) {
	kind, network, name := parse(k, r.Key)
	var err error
	switch kind {
	case Pool:
		err = put(t.Pools, name, r)
	case Network:
		err = put(t.Networks, name, r)
	case Underlay:
		err = put(t.Underlays, name, r)
	case Published:
		err = put(t.Published, name, r)
	case Rule:
		err = put(t.Rules, name, r)
	case Attached:
		err = put(sub(t.Attached, network), name, r)
	case Name:
		err = put(sub(t.Names, network), name, r)
	case Pin:
		err = putAddress(t.Pins, network, name, r)
	case Service:
		err = putAddress(t.Services, network, name, r)
	case Block:
		var p netip.Prefix
		if p, err = blockPrefix(name); err == nil {
			err = put(sub(t.Blocks, network), p, r)
		}
	case Endpoint:
		err = putAddress(t.Endpoints, network, name, r)
	}
	return kind, err
}

// Delete forgets a key and returns what it was about.
func (t *Topology) Delete(k store.Keys, key string) Kind {
	kind, network, name := parse(k, key)
	switch kind {
	case Pool:
		delete(t.Pools, name)
	case Network:
		delete(t.Networks, name)
	case Underlay:
		delete(t.Underlays, name)
	case Published:
		delete(t.Published, name)
	case Rule:
		delete(t.Rules, name)
	case Attached:
		drop(t.Attached, network, name)
	case Name:
		drop(t.Names, network, name)
	case Pin:
		dropAddress(t.Pins, network, name)
	case Service:
		dropAddress(t.Services, network, name)
	case Block:
		if p, err := blockPrefix(name); err == nil {
			drop(t.Blocks, network, p)
		}
	case Endpoint:
		dropAddress(t.Endpoints, network, name)
	}
	return kind
}

// NetworkBySubnet finds the network with a subnet of either family.
func (t *Topology) NetworkBySubnet(subnet netip.Prefix) (record.Network, bool) {
	for _, n := range t.Networks {
		if n.Subnet == subnet.String() || n.Subnet6 == subnet.String() {
			return n, true
		}
	}
	return record.Network{}, false
}

// LeastMTU is the least MTU in bytes of all hosts' underlays, or 1500 when
// none is known.
func (t *Topology) LeastMTU() int {
	least := 0
	for _, u := range t.Underlays {
		if u.MTU > 0 && (least == 0 || u.MTU < least) {
			least = u.MTU
		}
	}
	if least == 0 {
		return 1500
	}
	return least
}

// Prefixes is all address space of the fleet, of both families: its pools, and
// subnets outside of them, in no order.
func (t *Topology) Prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range t.Pools {
		if c, err := netip.ParsePrefix(p.CIDR); err == nil {
			all = append(all, c.Masked())
		}
	}
	for _, n := range t.Networks {
		for _, s := range []string{n.Subnet, n.Subnet6} {
			if c, err := netip.ParsePrefix(s); err == nil {
				all = append(all, c.Masked())
			}
		}
	}
	return all
}

// parse splits a key: of those that have two parts after their prefix network
// is the first, a network's id (a host's, of names), and name the second.
func parse(k store.Keys, key string) (kind Kind, network, name string) {
	for _, c := range []struct {
		prefix string
		kind   Kind
		nested bool
	}{
		{k.Endpoints(), Endpoint, true}, {k.Names(), Name, true}, {k.Blocks(), Block, true}, {k.Pins(), Pin, true},
		{k.Services(), Service, true}, {k.Attachments(), Attached, true},
		{k.Networks(), Network, false}, {k.Underlays(), Underlay, false}, {k.Pools(), Pool, false},
		{k.PublishedPorts(), Published, false}, {k.Rules(), Rule, false},
	} {
		rest, ok := strings.CutPrefix(key, c.prefix)
		if !ok {
			continue
		}
		if c.nested {
			network, rest, ok = strings.Cut(rest, "/")
		}
		if !ok || strings.Contains(rest, "/") {
			return Other, "", ""
		}
		return c.kind, network, rest
	}
	return Other, "", ""
}

// blockPrefix reads the last part of a block's key, which has "_" for "/".
func blockPrefix(name string) (netip.Prefix, error) {
	return netip.ParsePrefix(strings.Replace(name, "_", "/", 1))
}

func put[K comparable, V any](m map[K]V, key K, r store.Raw) error {
	v, err := store.Decode[V](r)
	if err == nil {
		m[key] = v
	}
	return err
}

func putAddress[V any](m map[string]map[netip.Addr]V, network, name string, r store.Raw) error {
	a, err := netip.ParseAddr(name)
	if err != nil {
		return err
	}
	return put(sub(m, network), a, r)
}

func dropAddress[V any](m map[string]map[netip.Addr]V, network, name string) {
	if a, err := netip.ParseAddr(name); err == nil {
		drop(m, network, a)
	}
}

func sub[K comparable, V any](m map[string]map[K]V, name string) map[K]V {
	if m[name] == nil {
		m[name] = map[K]V{}
	}
	return m[name]
}

func drop[K comparable, V any](m map[string]map[K]V, name string, key K) {
	delete(m[name], key)
	if len(m[name]) == 0 {
		delete(m, name)
	}
}
