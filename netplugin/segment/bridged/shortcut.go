package bridged

import (
	"clocker.io/clocker/netplugin/segment"
)

var _ segment.Bridges = (*Segment)(nil)

// Shortened is that of [segment.Bridges].
func (s *Segment) Shortened() ([]segment.Port, []segment.Tunnel) {
	var ports []segment.Port
	var tunnels []segment.Tunnel
	for _, n := range s.present() {
		n.mu.Lock()
		if !n.gone && n.tunnel != 0 {
			tunnels = append(tunnels, segment.Tunnel{Network: n.ID, VNI: n.VNI, Index: n.tunnel})
			for a, l := range n.here {
				name := segment.LinkName(l.endpoint)
				if a.Is4() && n.links[name] != 0 {
					ports = append(ports, segment.Port{Network: n.ID, VNI: n.VNI, Name: name, Index: n.links[name], Address: a, MAC: l.mac})
				}
			}
		}
		n.mu.Unlock()
	}
	return ports, tunnels
}

// dropStations takes all of a network out of the shortcut. Callers hold n.mu.
func (n *network) dropStations() {
	for m := range n.stations {
		n.shortcut.DropStation(n.VNI, m)
	}
}

// byBridge is the shortcut that takes nothing.
type byBridge struct{}

func (byBridge) PutStation(int, [6]byte, int, bool) {}
func (byBridge) DropStation(int, [6]byte)           {}
func (byBridge) Changed()                           {}
