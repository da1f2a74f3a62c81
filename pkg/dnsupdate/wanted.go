package dnsupdate

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"clocker.io/clocker/pkg/record"
)

// ttl is that of the records in seconds: a resolver between may keep a name of
// something that has gone for as long.
const ttl = 5

// Records are what names are made from; see [record.NameRecord] and
// [record.Service].
type Records struct {
	Names    []record.NameRecord
	Services []record.Service
}

// Set is the records of a zone that are ours, by owner, each in its textual
// form and sorted.
type Set map[string][]string

// wanted says what should be in a zone and its reverse zones. A service is
// <service>.<app>.<zone>, with its own address where it has one, else with those
// of its replicas; a replica is <replica>.<app>.<zone>. Names that are no host
// names (RFC 952, RFC 1123) are made so: "_" becomes "-".
func wanted(c Config, r Records) Set {
	w := &want{Config: c, set: Set{}}
	type service struct{ app, name string }
	vips := map[service]bool{}
	for _, s := range r.Services {
		if s.App == "" || s.Service == "" {
			continue
		}
		vips[service{s.App, s.Service}] = true
		w.addresses(w.name(s.Service, s.App), true, s.Address, s.Address6)
	}
	for _, n := range r.Names {
		if n.App == "" || n.Service == "" {
			continue // of no application
		}
		service, replica := w.name(n.Service, n.App), w.name(n.Replica, n.App)
		for _, a := range n.Networks {
			w.addresses(replica, true, a.Address, a.Address6)
			if !vips[struct{ app, name string }{n.App, n.Service}] {
				w.addresses(service, false, a.Address, a.Address6)
			}
		}
		for _, p := range n.Ports {
			w.add(&dns.SRV{
				Hdr:  header("_"+portName(p.ContainerPort)+"._"+p.Protocol+"."+service, dns.TypeSRV),
				Port: p.ContainerPort, Target: replica,
			})
		}
	}
	for owner, rrs := range w.set {
		slices.Sort(rrs)
		w.set[owner] = slices.Compact(rrs)
	}
	return w.set
}

type want struct {
	Config
	set Set
}

func (w *want) name(first, app string) string {
	return label(first) + "." + label(app) + "." + w.Zone
}

func (w *want) add(rr dns.RR) {
	owner := rr.Header().Name
	if _, ok := dns.IsDomainName(owner); !ok || len(owner) > 254 {
		return
	}
	w.set[owner] = append(w.set[owner], rr.String())
}

// addresses adds those of a name, and pointers back where a zone is there for
// them.
func (w *want) addresses(owner string, pointers bool, texts ...string) {
	for _, text := range texts {
		text, _, _ = strings.Cut(text, "/")
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		if a.Is4() {
			w.add(&dns.A{Hdr: header(owner, dns.TypeA), A: a.AsSlice()})
		} else {
			w.add(&dns.AAAA{Hdr: header(owner, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
		reverse, err := dns.ReverseAddr(a.String())
		if err != nil || !pointers {
			continue
		}
		for _, z := range w.Reverse {
			if dns.IsSubDomain(z, reverse) {
				w.add(&dns.PTR{Hdr: header(reverse, dns.TypePTR), Ptr: owner})
				break
			}
		}
	}
}

func header(owner string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

// label makes a name of ours one label of a host name.
func label(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s)
	return strings.Trim(s[:min(len(s), 63)], "-")
}

func portName(p uint16) string {
	const digits = "0123456789"
	if p < 10 {
		return digits[p : p+1]
	}
	return portName(p/10) + digits[p%10:p%10+1]
}
