package lb

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// flows says which flows the kernel must forget: those of UDP, or all, of
// replicas that were lost. The next packet of a forgotten flow is one of a new
// connection: it goes to another replica, which resets what it does not know,
// or is refused when there is none.
type flows struct {
	services map[pair]bool // true: of all protocols
	ports    map[socketPair]bool
}

// orphans are the UDP flows to a service's address that go to what is no
// replica of it: it was lost while nobody looked.
type orphans struct{ State }

// MatchConntrackFlow implements [netlink.CustomConntrackFilter].
func (o orphans) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to, replica, ok := ends(flow)
	if !ok || flow.Forward.Protocol == unix.IPPROTO_TCP {
		return false
	}
	v, ours := o.Services[to]
	return ours && !slices.Contains(v.Replicas, replica)
}

// ends are the address that a flow was meant for and the one it goes to.
func ends(flow *netlink.ConntrackFlow) (to, replica netip.Addr, ok bool) {
	to, ok = netip.AddrFromSlice(flow.Forward.DstIP)
	replica, ok2 := netip.AddrFromSlice(flow.Reverse.SrcIP)
	return to.Unmap(), replica.Unmap(), ok && ok2
}

type pair struct{ service, replica netip.Addr }

type socketPair struct {
	port     uint16
	protocol uint8
	replica  netip.Addr
}

var protocolNumbers = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

func newFlows() flows {
	return flows{services: map[pair]bool{}, ports: map[socketPair]bool{}}
}

// add takes a lost replica in; all says that its flows of every protocol go.
func (f flows) add(l Lost, all bool) {
	if l.Service.IsValid() {
		p := pair{l.Service, l.Replica}
		f.services[p] = f.services[p] || all
		return
	}
	p := socketPair{l.Port.Port, protocolNumbers[l.Port.Protocol], l.Replica}
	f.ports[p] = f.ports[p] || all
}

func (f flows) empty() bool { return len(f.services)+len(f.ports) == 0 }

// MatchConntrackFlow implements [netlink.CustomConntrackFilter].
func (f flows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to, replica, ok := ends(flow)
	if !ok {
		return false
	}
	all, found := f.services[pair{to, replica}]
	if !found {
		all, found = f.ports[socketPair{flow.Forward.DstPort, flow.Forward.Protocol, replica}]
	}
	return found && (all || flow.Forward.Protocol != unix.IPPROTO_TCP)
}

// forget makes the kernel forget the flows that match. It reads all flows of
// the host.
func forget(which netlink.CustomConntrackFilter) error {
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, which); err != nil {
			return fmt.Errorf("forget flows: %w", err)
		}
	}
	return nil
}
