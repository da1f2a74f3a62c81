package driver

import "net/netip"

// elsewhere reports whether another network driver than the fleet's carries
// the network: then nobody tells this host of its endpoints, nor of the Docker
// networks on it, but by asking for pools and addresses and giving them back.
// mu is held.
func (n *network) elsewhere() bool { return n.record.Driver != "" }

// stillInUse reports whether an address that is held may have an endpoint.
// Where endpoints are not told of it always may, but for the container that
// holds it and asks again: anything else would be by suspicion only.
func (d *Driver) stillInUse(n *network, a netip.Addr, holder, asks string) bool {
	d.mu.Lock()
	elsewhere := n.elsewhere()
	d.mu.Unlock()
	if elsewhere {
		return holder == "" || holder != asks
	}
	return d.cfg.InUse == nil || d.cfg.InUse(n.id, a)
}
