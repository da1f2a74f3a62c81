package segment

import (
	"errors"
	"fmt"
)

// ErrRouteTaken means that a network's subnet is somewhere else for this host.
var ErrRouteTaken = errors.New("this host has a route there")

// What marks the kernel's objects of each kind of segment: the protocol of
// routes, and the group of links.
const (
	RoutedMark  = 142
	BridgedMark = 143
)

// OurRoute reports whether a route's protocol is one that a segment gives to
// its routes; all others are the host's own.
func OurRoute(protocol int) bool { return protocol == RoutedMark || protocol == BridgedMark }

// BridgePrefix begins the names of bridged networks' bridges, and TunnelPrefix
// those of their VXLAN devices. No endpoint's link has such a name: what
// follows [LinkPrefix] there is hexadecimal.
const (
	BridgePrefix = LinkPrefix + "n"
	TunnelPrefix = LinkPrefix + "x"
)

// BridgeName is the name of the bridge of the network with the VNI, the same
// on every host.
func BridgeName(vni int) string { return fmt.Sprintf("%s%d", BridgePrefix, vni) }

// TunnelName is the name of that network's VXLAN device.
func TunnelName(vni int) string { return fmt.Sprintf("%s%d", TunnelPrefix, vni) }

// Bridge is the name of the network's bridge, empty for one that has none.
func (n Network) Bridge() string {
	if n.Kind != "bridged" {
		return ""
	}
	return BridgeName(n.VNI)
}
