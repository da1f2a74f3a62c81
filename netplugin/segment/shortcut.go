package segment

import "net/netip"

// Port is a local endpoint's port of its network's bridge.
type Port struct {
	// Network is the fleet's id of the network, VNI its number on the wire.
	Network string
	VNI     int
	// Name and Index are those of the link.
	Name  string
	Index int
	// Address (IPv4) and MAC are what the endpoint sends from.
	Address netip.Addr
	MAC     [6]byte
}

// Tunnel is the device that leads from a network's bridge to other hosts.
type Tunnel struct {
	Network string
	VNI     int
	Index   int
}

// Bridges are the bridged networks of a host.
type Bridges interface {
	// Shortened lists the ports of local endpoints with IPv4, and the tunnels.
	Shortened() ([]Port, []Tunnel)
}

// Shortcut takes frames past bridges. It is told what the bridges' own tables
// say of each hardware address; what it cannot take goes by the bridge.
type Shortcut interface {
	// PutStation says that frames of the network for a hardware address go out
	// by a link: that of a local endpoint, or the tunnel.
	PutStation(vni int, mac [6]byte, link int, local bool)
	DropStation(vni int, mac [6]byte)
	// Changed says that [Bridges.Shortened] has something new.
	Changed()
}
