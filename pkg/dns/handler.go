package dns

import (
	"net"
	"net/netip"

	"github.com/miekg/dns"
)

// ttl is how long, in seconds, an answer may be kept. It is as short as it can
// be: who keeps a name longer goes on asking a replica that has died. Zero
// would be shorter, but some resolvers take it for an error.
const ttl = 1

// maxUDP is the largest answer over UDP, for who says that it takes as much: an
// answer goes no further than from a host to its own containers.
const maxUDP = 4096

// Handler answers queries from an index, and forwards the rest.
type Handler struct {
	Index *Index
	// Forward answers what is not the fleet's, by the servers of the asker's
	// network; none means those of the host. A nil Forward means that nothing
	// is forwarded.
	Forward func(w dns.ResponseWriter, r *dns.Msg, servers []string)
	// Intn gives a random number below n, for the order of answers.
	Intn func(n int) int
}

var _ dns.Handler = (*Handler)(nil)

// ServeDNS implements [dns.Handler].
func (h *Handler) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	if r.Response {
		return // an answer to an answer would go on for ever
	}
	if code := acceptable(r); code != dns.RcodeSuccess {
		h.send(w, r, code, nil, nil, nil)
		return
	}
	s := h.Index.current.Load()
	q := r.Question[0]
	v := resolve(s, canonical(q.Name), q.Qtype, sourceOf(w.RemoteAddr()))
	switch v.kind {
	case forward:
		if h.Forward == nil {
			h.send(w, r, dns.RcodeServerFailure, nil, nil, nil)
			return
		}
		h.Forward(w, r, s.upstream(v.nets))
	case addresses:
		h.send(w, r, 0, h.addresses(q, v.addrs), nil, nil)
	case services:
		records, extra := h.services(q.Name, v)
		h.send(w, r, 0, records, nil, extra)
	case point:
		h.send(w, r, 0, []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: dns.Fqdn(v.name)}}, nil, nil)
	case authority:
		h.send(w, r, 0, []dns.RR{soa(q.Name)}, nil, nil)
	case anything:
		h.send(w, r, 0, []dns.RR{&dns.HINFO{Hdr: header(q.Name, dns.TypeHINFO), Cpu: "RFC8482"}}, nil, nil)
	default:
		h.send(w, r, v.rcode, nil, []dns.RR{soa(lastLabels(q.Name, v.zone))}, nil)
	}
}

// acceptable says with which code a query is refused; RcodeSuccess means not.
func acceptable(r *dns.Msg) int {
	switch {
	case r.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented
	case len(r.Question) != 1: // RFC 9619
		return dns.RcodeFormatError
	case r.Question[0].Qclass != dns.ClassINET:
		return dns.RcodeRefused
	}
	if o := r.IsEdns0(); o != nil && o.Version() != 0 {
		return dns.RcodeBadVers
	}
	return dns.RcodeSuccess
}

func (h *Handler) addresses(q dns.Question, addrs []netip.Addr) []dns.RR {
	out := make([]dns.RR, len(addrs))
	for i, a := range addrs {
		if a.Is4() {
			out[i] = &dns.A{Hdr: header(q.Name, dns.TypeA), A: a.AsSlice()}
		} else {
			out[i] = &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: a.AsSlice()}
		}
	}
	shuffle(h.Intn, out)
	return out
}

// shuffle brings answers into a random order: turning the list alone would
// give the neighbour of a dead replica twice its share.
func shuffle[T any](intn func(int) int, list []T) {
	for i := len(list) - 1; i > 0; i-- {
		j := intn(i + 1)
		list[i], list[j] = list[j], list[i]
	}
}

// services lists the ports of a name's replicas (RFC 2782), and beside them
// the replicas' addresses.
func (h *Handler) services(name string, v verdict) (out, extra []dns.RR) {
	for _, t := range v.targets {
		if !v.ports.has(t) {
			continue
		}
		host := dns.Fqdn(t.name)
		for _, p := range t.ports {
			if v.ports.port != 0 && p.ContainerPort != v.ports.port || v.ports.proto != "" && p.Protocol != v.ports.proto {
				continue
			}
			out = append(out, &dns.SRV{Hdr: header(name, dns.TypeSRV), Port: p.ContainerPort, Target: host})
		}
		if t.a.IsValid() {
			extra = append(extra, &dns.A{Hdr: header(host, dns.TypeA), A: t.a.AsSlice()})
		}
		if t.aaaa.IsValid() {
			extra = append(extra, &dns.AAAA{Hdr: header(host, dns.TypeAAAA), AAAA: t.aaaa.AsSlice()})
		}
	}
	shuffle(h.Intn, out)
	return out, extra
}

func (h *Handler) send(w dns.ResponseWriter, r *dns.Msg, code int, records, auth, extra []dns.RR) {
	m := new(dns.Msg)
	m.SetRcode(r, code)
	m.Authoritative = code == dns.RcodeSuccess || code == dns.RcodeNameError
	m.RecursionAvailable = true
	m.Answer, m.Ns, m.Extra = records, auth, extra
	size := dns.MinMsgSize
	if o := r.IsEdns0(); o != nil {
		size = min(max(size, int(o.UDPSize())), maxUDP)
		m.SetEdns0(maxUDP, o.Do())
	}
	if w.LocalAddr().Network() == "udp" {
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // a client that is gone asks again, or not
}

func header(name string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

// soa says for how long a negative answer may be kept (RFC 2308): as long as
// any other.
func soa(owner string) dns.RR {
	return &dns.SOA{
		Hdr: header(owner, dns.TypeSOA), Ns: primary, Mbox: mailbox,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

const (
	primary = "ns." + Zone + "."
	mailbox = "hostmaster." + Zone + "."
)

// lastLabels are the last n labels of a name.
func lastLabels(name string, n int) string {
	at := dns.Split(name)
	if n == 0 || len(at) == 0 {
		return "."
	}
	return name[at[max(0, len(at)-n)]:]
}

func sourceOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
