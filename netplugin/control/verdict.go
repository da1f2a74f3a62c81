package control

import (
	"fmt"
	"net/netip"
	"slices"

	"clocker.io/clocker/netplugin/policy"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/hostview"
	"clocker.io/clocker/pkg/record"
)

// packet is the first packet of a connection as this host sees it.
type packet struct {
	hostview.Question
	// toHost says that To is an address of the host, fromHost that From is,
	// and not of a container on it.
	toHost, fromHost bool
	// title names a network, record is what etcd has of it.
	title  func(id string) string
	record func(id string) record.Network
}

func open(format string, args ...any) *hostview.Verdict {
	return &hostview.Verdict{Open: true, Reason: fmt.Sprintf(format, args...)}
}

func closed(format string, args ...any) *hostview.Verdict {
	return &hostview.Verdict{Reason: fmt.Sprintf(format, args...)}
}

// endpointOf finds the local endpoint with an address.
func endpointOf(s policy.State, a netip.Addr) (policy.Endpoint, bool) {
	for _, e := range s.Endpoints {
		if e.Address == a || e.Address6 == a {
			return e, true
		}
	}
	return policy.Endpoint{}, false
}

func networkOf(s policy.State, id string) policy.Network {
	for _, n := range s.Networks {
		if n.ID == id {
			return n
		}
	}
	return policy.Network{ID: id}
}

// in reports whether a network has an address in its subnets.
func in(n policy.Network, a netip.Addr) bool {
	return n.Subnet.IsValid() && n.Subnet.Contains(a) || n.Subnet6.IsValid() && n.Subnet6.Contains(a)
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ps, func(p netip.Prefix) bool { return p.Contains(a) })
}

// opening is a rule that lets the packet through.
func (p packet) opening(f policy.Fleet) (policy.Opening, bool) {
	for _, o := range f.Openings {
		protocol := o.Protocol == "" && (o.Port == 0 || p.Protocol != "icmp") || o.Protocol == p.Protocol
		if protocol && (o.Port == 0 || o.Port == p.Port) && within(o.From, p.From) && within(o.To, p.To) {
			return o, true
		}
	}
	return policy.Opening{}, false
}

func describe(o policy.Opening) string {
	what := o.Protocol
	if what == "" {
		what = "everything"
	}
	if o.Port != 0 {
		what = fmt.Sprintf("%s port %d", what, o.Port)
	}
	return fmt.Sprintf("a rule opens %v to %v for %s", o.To, o.From, what)
}

// leave is the verdict of this host on a packet that begins here, as the
// table of package policy gives it. It is nil where the table is not asked.
func (p packet) leave(s policy.State) *hostview.Verdict {
	if e, ok := endpointOf(s, p.From); ok {
		return p.leaveEndpoint(s, networkOf(s, e.Network))
	}
	if !p.fromHost {
		return nil
	}
	e, ok := endpointOf(s, p.To)
	if !ok {
		return nil // the host's own packets may go anywhere else
	}
	n := p.title(e.Network)
	if m, ok := machine(s.Fleet, p.From); ok && within(m.Subnets, p.To) {
		return open("the host is on network %s itself", n)
	}
	if o, ok := p.opening(s.Fleet); ok {
		return open("%s", describe(o))
	}
	switch {
	case p.Protocol == "icmp":
		return open("the host may ping containers on it")
	case within(s.Fleet.Open, p.To):
		return open("network %s is not filtered", n)
	}
	return closed("network %s is closed to the host itself", n)
}

// machine is the host's own place with an address.
func machine(f policy.Fleet, a netip.Addr) (policy.Machine, bool) {
	for _, m := range f.Machines {
		if slices.Contains(m.Addresses, a) {
			return m, true
		}
	}
	return policy.Machine{}, false
}

// leaveEndpoint follows the rules for what containers send.
func (p packet) leaveEndpoint(s policy.State, n policy.Network) *hostview.Verdict {
	name, rec := p.title(n.ID), p.record(n.ID)
	// Such a container has a second interface, of the engine, and its packets
	// leave by that unless they are for its network.
	byEngine := rec.Egress == "engine" && !rec.Internal
	fleet := within(s.Fleet.Prefixes, p.To)
	o, opened := p.opening(s.Fleet)
	switch {
	case in(n, p.To):
		return open("both are in network %s", name)
	case p.toHost && p.service(s):
		return p.leaveToHost(s, n)
	case opened && byEngine:
		return open("%s (to containers that were started after it was made: others send by docker_gwbridge, which is not let in)", describe(o))
	case byEngine && !fleet:
		return open("its way out is the engine's own docker_gwbridge, which is not looked at")
	case p.toMetadata():
		return closed("the metadata address %s is closed to containers", p.To)
	case p.toHost:
		return p.leaveToHost(s, n)
	case opened:
		return open("%s", describe(o))
	case within(s.Fleet.Open, p.To):
		return open("%s is in a network that is not filtered", p.To)
	case fleet && !n.Unfiltered:
		return closed("network %s is closed to other networks, and %s is in another one", name, p.To)
	case slices.Contains(s.Fleet.Hosts, p.To) && !p.reachable(s.Fleet) && !n.Unfiltered:
		return closed("%s is a host of the fleet, which containers reach at published ports only", p.To)
	case p.out(n):
		return open("network %s has its way out through this host", name)
	case rec.Internal:
		return closed("network %s is internal: it has no way out", name)
	}
	return closed("network %s has no way out", name)
}

// out reports whether the network's packets get out through this host.
func (p packet) out(n policy.Network) bool {
	if p.To.Is6() {
		return n.Egress6 || n.Unfiltered
	}
	return n.Egress || n.Unfiltered
}

// service reports whether the packet is for what the host does for containers.
func (p packet) service(s policy.State) bool {
	_, attached := machine(s.Fleet, p.To)
	return attached || p.dns() || gateway(s, p.To)
}

func (p packet) dns() bool {
	return slices.Contains([]string{hostconfig.DNSAddress, hostconfig.DNSAddress6}, p.To.String())
}

func (p packet) toMetadata() bool {
	return slices.Contains([]string{"169.254.169.254", "fd00:ec2::254"}, p.To.String())
}

func (p packet) reachable(f policy.Fleet) bool {
	return slices.Contains(f.Reachable, policy.HostPort{Host: p.To, Protocol: p.Protocol, Port: p.Port})
}

// leaveToHost follows the rules for what containers send to their own host.
func (p packet) leaveToHost(s policy.State, n policy.Network) *hostview.Verdict {
	m, attached := machine(s.Fleet, p.To)
	o, opened := p.opening(s.Fleet)
	switch {
	case p.dns() && p.Port == 53 && p.Protocol != "icmp":
		return open("containers may ask this host's DNS")
	case p.Protocol == "icmp" && gateway(s, p.To):
		return open("%s is a gateway of the host, which may be pinged", p.To)
	case attached && within(m.Subnets, p.From):
		return open("the host is on network %s itself", p.title(n.ID))
	case opened:
		return open("%s", describe(o))
	case p.published(s):
		return open("port %d of the host is published and leads to a container", p.Port)
	}
	return closed("containers do not reach the services of their own host")
}

func gateway(s policy.State, a netip.Addr) bool {
	return slices.ContainsFunc(s.Networks, func(n policy.Network) bool { return n.Gateway == a || n.Gateway6 == a })
}

// published reports whether a port of the host leads to a container.
func (p packet) published(s policy.State) bool {
	if p.To.IsLinkLocalUnicast() || p.dns() || gateway(s, p.To) {
		return false // those are not the host's to publish
	}
	if p.reachable(s.Fleet) {
		return true
	}
	number := map[string]uint8{"tcp": 6, "udp": 17, "sctp": 132}[p.Protocol]
	for _, e := range s.Endpoints {
		for _, port := range e.Ports {
			if port.HostPort == p.Port && port.Protocol == number && (!port.HostIP.IsValid() || port.HostIP.IsUnspecified() || port.HostIP == p.To) {
				return true
			}
		}
	}
	return false
}

// enter is the verdict on a packet that ends here; nil where the table is not
// asked: what the host sends itself has been judged as it left.
func (p packet) enter(s policy.State) *hostview.Verdict {
	if p.fromHost {
		return nil
	}
	e, ok := endpointOf(s, p.To)
	if !ok {
		if m, ok := machine(s.Fleet, p.To); ok {
			if within(m.Subnets, p.From) {
				return open("the host is on the network itself, and so is %s", p.From)
			}
			return closed("the host's place on the network is closed to %s, which is not on it", p.From)
		}
		return nil
	}
	n := networkOf(s, e.Network)
	name := p.title(n.ID)
	switch {
	case n.Unfiltered:
		return open("network %s is not filtered", name)
	case in(n, p.From):
		return open("both are in network %s", name)
	}
	if o, ok := p.opening(s.Fleet); ok {
		return open("%s", describe(o))
	}
	return closed("network %s is closed to %s, which is not on it", name, p.From)
}
