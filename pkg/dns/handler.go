package dns

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Zone is the fleet's own domain: what is not found in it does not exist.
const Zone = "clocker"

// ttl is how long, in seconds, an answer may be kept. It is as short as it can
// be: who keeps a name longer goes on asking a replica that has died. Zero
// would be shorter, but some resolvers take it for an error.
const ttl = 1

// Handler answers queries from an index, and forwards the rest.
type Handler struct {
	Index *Index
	// Forward answers what is not the fleet's; nil means that nothing is
	// forwarded.
	Forward func(w dns.ResponseWriter, r *dns.Msg)
	// Intn gives a random number below n, for the order of answers.
	Intn func(n int) int
}

var _ dns.Handler = (*Handler)(nil)

// ServeDNS implements [dns.Handler].
func (h *Handler) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	if len(r.Question) != 1 || r.Opcode != dns.OpcodeQuery || r.Question[0].Qclass != dns.ClassINET {
		h.reply(w, r, dns.RcodeNotImplemented)
		return
	}
	s := h.Index.current.Load()
	src := sourceOf(w.RemoteAddr())
	q := r.Question[0]
	name := canonical(q.Name)
	if q.Qtype == dns.TypePTR {
		if addr, ok := reversed(name); ok {
			h.reverse(w, r, s, addr, src)
			return
		}
	}
	name, own := inZone(name)
	port, proto, base := service(name, q.Qtype)
	a := s.lookup(base, src)
	switch {
	case a != nil && base != name:
		h.srv(w, r, a, port, proto)
	case a != nil:
		h.answer(w, r, a)
	case own, !strings.Contains(name, ".") && name != "":
		h.reply(w, r, dns.RcodeNameError)
	default:
		h.forward(w, r)
	}
}

func (h *Handler) forward(w dns.ResponseWriter, r *dns.Msg) {
	if h.Forward == nil {
		h.reply(w, r, dns.RcodeServerFailure)
		return
	}
	h.Forward(w, r)
}

func (h *Handler) reply(w dns.ResponseWriter, r *dns.Msg, code int) {
	m := new(dns.Msg)
	m.SetRcode(r, code)
	m.RecursionAvailable = true
	_ = w.WriteMsg(m) // a client that is gone asks again, or not
}

// answer tells where a name is. Types that no name of the fleet has give an
// answer without records, never NXDOMAIN: a client that asks for AAAA first
// would take that for the end.
func (h *Handler) answer(w dns.ResponseWriter, r *dns.Msg, a *answer) {
	switch r.Question[0].Qtype {
	case dns.TypeA, dns.TypeANY:
	case dns.TypeSRV:
		h.srv(w, r, a, 0, "")
		return
	default:
		h.send(w, r, nil, nil)
		return
	}
	n := len(a.addrs)
	records := make([]dns.A, n)
	ips := make([]byte, 4*n)
	out := make([]dns.RR, n)
	first := 0
	if n > 1 {
		first = h.Intn(n)
	}
	for i := range out {
		ip := ips[4*i : 4*i+4 : 4*i+4]
		b := a.addrs[(first+i)%n].As4()
		copy(ip, b[:])
		records[i] = dns.A{Hdr: header(r.Question[0].Name, dns.TypeA), A: ip}
		out[i] = &records[i]
	}
	// The first is random, the rest are shuffled: turning the list alone
	// would give the neighbour of a dead replica twice its share.
	for i := n - 1; i > 1; i-- {
		j := 1 + h.Intn(i)
		out[i], out[j] = out[j], out[i]
	}
	h.send(w, r, out, nil)
}

// srv lists the ports of a name's replicas (RFC 2782): those with the given
// number and protocol, or all when they are zero.
func (h *Handler) srv(w dns.ResponseWriter, r *dns.Msg, a *answer, port uint16, proto string) {
	var out, extra []dns.RR
	for _, t := range a.targets {
		listed := false
		for _, p := range t.ports {
			if port != 0 && p.ContainerPort != port || proto != "" && p.Protocol != proto {
				continue
			}
			listed = true
			out = append(out, &dns.SRV{Hdr: header(r.Question[0].Name, dns.TypeSRV), Port: p.ContainerPort, Target: t.name})
		}
		if listed {
			extra = append(extra, &dns.A{Hdr: header(t.name, dns.TypeA), A: t.addr.AsSlice()})
		}
	}
	for i := len(out) - 1; i > 0; i-- {
		j := h.Intn(i + 1)
		out[i], out[j] = out[j], out[i]
	}
	h.send(w, r, out, extra)
}

// reverse names the replica at an address. Addresses of the fleet's networks
// are never asked for outside.
func (h *Handler) reverse(w dns.ResponseWriter, r *dns.Msg, s *snapshot, addr, src netip.Addr) {
	if t, ok := s.reverse[addr]; ok {
		nets := s.from(src)
		visible := len(nets) == 0
		for _, n := range nets {
			visible = visible || n == t.net
		}
		if visible {
			h.send(w, r, []dns.RR{&dns.PTR{Hdr: header(r.Question[0].Name, dns.TypePTR), Ptr: t.name}}, nil)
			return
		}
	}
	if _, ours := s.network(addr); ours {
		h.reply(w, r, dns.RcodeNameError)
		return
	}
	h.forward(w, r)
}

func (h *Handler) send(w dns.ResponseWriter, r *dns.Msg, records, extra []dns.RR) {
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative, m.RecursionAvailable = true, true
	m.Answer, m.Extra = records, extra
	if w.LocalAddr().Network() == "udp" && len(records) > 8 {
		size := dns.MinMsgSize
		if o := r.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		m.Truncate(size)
	}
	_ = w.WriteMsg(m) // a client that is gone asks again, or not
}

func header(name string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
}

// canonical gives a name in lower case, without the dot at its end.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// inZone takes the fleet's own domain off a name.
func inZone(name string) (rest string, own bool) {
	if name == Zone {
		return "", true
	}
	return strings.CutSuffix(name, "."+Zone)
}

// service takes "_80._tcp." off a name that SRV is asked for.
func service(name string, qtype uint16) (port uint16, proto, base string) {
	if qtype != dns.TypeSRV || !strings.HasPrefix(name, "_") {
		return 0, "", name
	}
	p, rest, ok := strings.Cut(name[1:], ".")
	proto, base, ok2 := strings.Cut(strings.TrimPrefix(rest, "_"), ".")
	n, err := strconv.ParseUint(p, 10, 16)
	if !ok || !ok2 || err != nil || n == 0 {
		return 0, "", name
	}
	return uint16(n), proto, base
}

// reversed reads the address of a name in in-addr.arpa.
func reversed(name string) (netip.Addr, bool) {
	s, ok := strings.CutSuffix(name, ".in-addr.arpa")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(s, ".")
	if len(parts) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return a, err == nil
}

func sourceOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
