// Package topology is what a host knows of the fleet's networks: which
// networks there are, which host owns which block of addresses, which
// addresses are in use where, and how each host is reached. It is fed by one
// watch on etcd and remembered on disk, so that a host that starts while etcd
// is away still knows its way.
//
// It decides nothing and never writes to etcd.
//
// Design page: docs/design/network.md.
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
	// Networks and Pools are by id and by name.
	Networks map[string]record.Network
	Pools    map[string]record.Pool
	// Blocks and Endpoints are by network id, then by block and address.
	Blocks    map[string]map[netip.Prefix]record.Block
	Endpoints map[string]map[netip.Addr]record.Endpoint
	// Underlays are by host id.
	Underlays map[string]record.Underlay
}

// New returns an empty topology.
func New() *Topology {
	return &Topology{
		Networks:  map[string]record.Network{},
		Pools:     map[string]record.Pool{},
		Blocks:    map[string]map[netip.Prefix]record.Block{},
		Endpoints: map[string]map[netip.Addr]record.Endpoint{},
		Underlays: map[string]record.Underlay{},
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
	case Block:
		var p netip.Prefix
		if p, err = blockPrefix(name); err == nil {
			err = put(sub(t.Blocks, network), p, r)
		}
	case Endpoint:
		var a netip.Addr
		if a, err = netip.ParseAddr(name); err == nil {
			err = put(sub(t.Endpoints, network), a, r)
		}
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
	case Block:
		if p, err := blockPrefix(name); err == nil {
			drop(t.Blocks, network, p)
		}
	case Endpoint:
		if a, err := netip.ParseAddr(name); err == nil {
			drop(t.Endpoints, network, a)
		}
	}
	return kind
}

// NetworkBySubnet finds the network with a subnet.
func (t *Topology) NetworkBySubnet(subnet netip.Prefix) (record.Network, bool) {
	for _, n := range t.Networks {
		if p, err := netip.ParsePrefix(n.Subnet); err == nil && p == subnet {
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

// Prefixes is all address space of the fleet: its pools, and subnets outside
// of them, in no order.
func (t *Topology) Prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range t.Pools {
		if c, err := netip.ParsePrefix(p.CIDR); err == nil {
			all = append(all, c.Masked())
		}
	}
	for _, n := range t.Networks {
		if c, err := netip.ParsePrefix(n.Subnet); err == nil {
			all = append(all, c.Masked())
		}
	}
	return all
}

// parse splits a key: for blocks and endpoints network is the network's id
// and name what stands below it.
func parse(k store.Keys, key string) (kind Kind, network, name string) {
	for _, c := range []struct {
		prefix string
		kind   Kind
	}{
		{k.Endpoints(), Endpoint}, {k.Blocks(), Block}, {k.Networks(), Network}, {k.Underlays(), Underlay}, {k.Pools(), Pool},
	} {
		rest, ok := strings.CutPrefix(key, c.prefix)
		if !ok {
			continue
		}
		if c.kind == Endpoint || c.kind == Block {
			network, name, ok = strings.Cut(rest, "/")
			if !ok || strings.Contains(name, "/") {
				return Other, "", ""
			}
			return c.kind, network, name
		}
		if strings.Contains(rest, "/") {
			return Other, "", ""
		}
		return c.kind, "", rest
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
