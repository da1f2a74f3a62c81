package driver

import (
	"fmt"
	"maps"
	"slices"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/netplugin/topology"
	"clocker.io/clocker/pkg/record"
)

// leastMTU6 is what every IPv6 way takes (RFC 8200).
const leastMTU6 = 1280

// checkMTU refuses packets that a host cannot send, and says which host and
// what it can. Where the carrier may differ between hosts the least overhead
// counts: ways that take less have a limit of their own.
func (d *Driver) checkMTU(mtu int, n record.Network) error {
	if mtu == 0 {
		return nil
	}
	if n.Subnet6 != "" && mtu < leastMTU6 {
		return fmt.Errorf("an MTU of %d is too small: IPv6 needs at least %d", mtu, leastMTU6)
	}
	var underlays map[string]record.Underlay
	d.Topology.Read(func(t *topology.Topology, _ topology.Knowledge) { underlays = maps.Clone(t.Underlays) })
	overhead := 0
	if way := registry.Way(n.Segment, n.Carrier); way != "auto" {
		overhead = registry.Overhead(way)
	}
	// The host that can send the least is named.
	hosts := slices.SortedFunc(maps.Values(underlays), func(a, b record.Underlay) int { return a.MTU - b.MTU })
	for _, u := range hosts {
		if u.MTU > 0 && mtu > u.MTU-overhead {
			return fmt.Errorf("an MTU of %d is too large: host %s can send packets of at most %d bytes on this network (%d of its interface less %d of the carrier): use --opt %s=%d or less",
				mtu, u.Called(), u.MTU-overhead, u.MTU, overhead, optMTU, u.MTU-overhead)
		}
	}
	return nil
}
