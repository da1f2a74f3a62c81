package dns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// verdict is what a question is to be answered with.
type verdict struct {
	kind kind
	// rcode is NXDOMAIN for a name that does not exist, of a negative answer.
	rcode int
	// zone is how many labels at the end of the question are the owner of the
	// SOA record.
	zone int
	// addrs is for addresses, targets and ports for services, name for a
	// pointer.
	addrs   []netip.Addr
	targets []target
	ports   ported
	name    string
	// nets are the asker's networks.
	nets []int
}

type kind uint8

const (
	forward   kind = iota // not ours
	addresses             // A or AAAA records
	services              // SRV records, with addresses beside them
	point                 // a PTR record
	authority             // the SOA record itself
	anything              // what RFC 8482 says to ANY
	negative              // no records: NODATA, or NXDOMAIN by rcode
)

// resolve says what a question of class IN means to an asker. The name is in
// lower case, without the dot at its end.
func resolve(s *snapshot, name string, qtype uint16, src netip.Addr) verdict {
	nets := s.from(src)
	if strings.HasSuffix(name, ".arpa") {
		if addr, bits, zone, ok := reversed(name); ok {
			return s.reversed(addr, bits, zone, qtype, nets)
		}
	}
	base, own := inZone(name)
	if own && base == "" { // the domain itself, which has names below it
		switch qtype {
		case dns.TypeSOA:
			return verdict{kind: authority, zone: 1}
		case dns.TypeANY:
			return verdict{kind: anything}
		}
		return verdict{kind: negative, zone: 1}
	}
	if a := s.lookup(base, nets); a != nil {
		return a.records(qtype)
	}
	if p, ok := splitPort(base); ok {
		if a := s.lookup(p.base, nets); a != nil && !a.empty() {
			return a.portRecords(p, qtype)
		}
	}
	single := !strings.Contains(base, ".")
	switch {
	case own:
		return verdict{kind: negative, rcode: dns.RcodeNameError, zone: 1}
	case single && base != "" && !aboutZones(qtype):
		return verdict{kind: negative, rcode: dns.RcodeNameError}
	}
	return verdict{kind: forward, nets: nets}
}

// records answers for a name. Types that no name of the fleet has give an
// answer without records, never NXDOMAIN: a client that asks for AAAA first
// would take that for the end.
func (a *answer) records(qtype uint16) verdict {
	v := verdict{kind: addresses, zone: 1}
	switch qtype {
	case dns.TypeA:
		v.addrs = a.a
	case dns.TypeAAAA:
		v.addrs = a.aaaa
	case dns.TypeANY:
		v.kind = anything
	case dns.TypeSRV:
		v.kind, v.targets = services, a.targets
	}
	if v.kind == addresses && len(v.addrs) == 0 || v.kind == services && !listed(v.targets, ported{}) {
		v.kind = negative
	}
	return v
}

// portRecords answers for a name with labels of ports before it. With a port
// that no replica has it does not exist.
func (a *answer) portRecords(p ported, qtype uint16) verdict {
	v := verdict{kind: negative, zone: 1}
	switch {
	case !listed(a.targets, p):
		v.rcode = dns.RcodeNameError
	case qtype == dns.TypeANY && p.port != 0:
		v.kind = anything
	case qtype == dns.TypeSRV && p.port != 0:
		v.kind, v.targets, v.ports = services, a.targets, p
	}
	return v
}

func listed(ts []target, p ported) bool {
	for _, t := range ts {
		if p.has(t) {
			return true
		}
	}
	return false
}

// reversed names what is at an address. Addresses of the fleet's networks are
// never asked for outside.
func (s *snapshot) reversed(addr netip.Addr, bits, zone int, qtype uint16, nets []int) verdict {
	whole := bits == addr.BitLen()
	p, named := s.reverse[addr]
	if whole && named && visible(p.net, nets) {
		switch qtype {
		case dns.TypePTR:
			return verdict{kind: point, name: p.name}
		case dns.TypeANY:
			return verdict{kind: anything}
		}
		return verdict{kind: negative, zone: zone}
	}
	if _, ours := s.within(addr, bits); !ours {
		return verdict{kind: forward, nets: nets}
	}
	v := verdict{kind: negative, zone: zone}
	if whole {
		v.rcode = dns.RcodeNameError
	}
	return v
}

// visible says whether somebody in the given networks, or outside, sees names
// of a network.
func visible(net int, nets []int) bool {
	for _, n := range nets {
		if n == net {
			return true
		}
	}
	return len(nets) == 0
}
