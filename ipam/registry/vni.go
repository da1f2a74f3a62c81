package registry

import "clocker.io/clocker/pkg/record"

// VXLAN network identifiers (24 bits, RFC 7348) of networks. The lower ones
// are left to carriers, which have one for all networks.
const (
	firstVNI = 4096
	lastVNI  = 1<<24 - 1
)

// freeVNI is an identifier that no network has. It is drawn by draw, which
// answers 0 to n-1: the number of a network that has just been removed must
// not come back while a host may still have frames of it on the way.
func freeVNI(all []record.Network, draw func(n int) int) int {
	used := make(map[int]bool, len(all))
	for _, n := range all {
		used[n.VNI] = true
	}
	for {
		if vni := firstVNI + draw(lastVNI-firstVNI+1); !used[vni] {
			return vni
		}
	}
}
