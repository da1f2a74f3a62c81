package dns

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// What nearly all clients ask, addresses of a name, is answered on the bytes
// of the query: its question is kept as it came (a client that mixes upper and
// lower case wants that back), and records are put behind it. Everything that
// is out of the ordinary is left to [Handler.ServeDNS].

const (
	headerLen = 12

	flagQR, flagAA, flagTC, flagRD, flagRA = 1 << 15, 1 << 10, 1 << 9, 1 << 8, 1 << 7
	flagCD                                 = 1 << 4
	opcodeMask                             = 0xf << 11
	flagDO                                 = 1 << 15
)

// query is what a query on the wire asks, if it is an ordinary one.
type query struct {
	name  string // lower case, without the dot at its end
	qtype uint16
	end   int // of the question
	// labels are where the last labels of the name start, the last first.
	labels [4]int
	edns   bool
	do     bool
	size   int // what the client takes over UDP
}

// parse reads a query with one question of class IN, a plain name and nothing
// else but, perhaps, an OPT record (RFC 6891).
func parse(b []byte) (q query, ok bool) {
	if len(b) < headerLen+5 || len(b) > dns.DefaultMsgSize {
		return q, false
	}
	flags := binary.BigEndian.Uint16(b[2:])
	extra := binary.BigEndian.Uint16(b[10:])
	if flags&(flagQR|opcodeMask|flagTC) != 0 || binary.BigEndian.Uint16(b[4:]) != 1 ||
		binary.BigEndian.Uint32(b[6:]) != 0 || extra > 1 {
		return q, false
	}
	at, ok := q.readName(b)
	if !ok || at+4 > len(b) || binary.BigEndian.Uint16(b[at+2:]) != dns.ClassINET {
		return q, false
	}
	q.qtype, q.end, q.size = binary.BigEndian.Uint16(b[at:]), at+4, dns.MinMsgSize
	if extra == 0 {
		return q, q.end == len(b)
	}
	err := q.readOPT(b[q.end:])
	return q, err
}

// readName reads the name of the question; at is where it ends.
func (q *query) readName(b []byte) (at int, ok bool) {
	var name [256]byte
	n := 0
	for at = headerLen; at < len(b); {
		length := int(b[at])
		if length == 0 {
			if n > 0 {
				n-- // the last dot
			}
			q.name = string(name[:n])
			return at + 1, true
		}
		if length > 63 || at+1+length >= len(b) || n+length+1 > len(name)-1 {
			return at, false
		}
		copy(q.labels[1:], q.labels[:3])
		q.labels[0] = at
		for _, c := range b[at+1 : at+1+length] {
			switch {
			case c >= 'A' && c <= 'Z':
				c += 'a' - 'A'
			case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			default:
				return at, false
			}
			name[n] = c
			n++
		}
		name[n] = '.'
		n++
		at += 1 + length
	}
	return at, false
}

// readOPT reads b, which must be one OPT record of version 0.
func (q *query) readOPT(b []byte) bool {
	if len(b) < 11 || b[0] != 0 || binary.BigEndian.Uint16(b[1:]) != dns.TypeOPT || b[5] != 0 || b[6] != 0 ||
		int(binary.BigEndian.Uint16(b[9:])) != len(b)-11 {
		return false
	}
	q.edns, q.do = true, binary.BigEndian.Uint16(b[7:])&flagDO != 0
	q.size = min(max(q.size, int(binary.BigEndian.Uint16(b[3:]))), maxUDP)
	return true
}

// quick answers a query over UDP into out, which has room for maxUDP bytes and
// is not b. False means that it is not an ordinary one.
func (h *Handler) quick(b []byte, src netip.Addr, out []byte) (n int, ok bool) {
	q, ok := parse(b)
	if !ok {
		return 0, false
	}
	v := resolve(h.Index.current.Load(), q.name, q.qtype, src)
	if v.kind != addresses && v.kind != negative {
		return 0, false
	}
	w := reply{q: &q, out: out[:0]}
	w.out = append(w.out, b[:q.end]...)
	if v.kind == addresses {
		w.addresses(h.Intn, v.addrs)
	} else {
		w.soa(v.zone)
	}
	return w.finish(v.rcode), true
}

// reply is an answer being written.
type reply struct {
	q               *query
	out             []byte
	records, author uint16
	truncated       bool
}

const optLen = 11

// room says how many more bytes may be written.
func (w *reply) room() int {
	n := w.q.size - len(w.out)
	if w.q.edns {
		n -= optLen
	}
	return n
}

// pointTo writes a name that starts in the question (RFC 1035, section 4.1.4).
func (w *reply) pointTo(at int) {
	w.out = binary.BigEndian.AppendUint16(w.out, 0xc000|uint16(at)) //nolint:gosec // inside a query
}

// record writes what follows a record's name.
func (w *reply) record(typ uint16, length int) {
	w.out = binary.BigEndian.AppendUint16(w.out, typ)
	w.out = binary.BigEndian.AppendUint16(w.out, dns.ClassINET)
	w.out = binary.BigEndian.AppendUint32(w.out, ttl)
	w.out = binary.BigEndian.AppendUint16(w.out, uint16(length)) //nolint:gosec // a record's length
}

// addresses writes addresses in random order, as many as there is room for.
func (w *reply) addresses(intn func(int) int, addrs []netip.Addr) {
	n := len(addrs)
	var few [64]uint16
	order := few[:0]
	if n > len(few) {
		order = make([]uint16, 0, n)
	}
	for i := range n {
		order = append(order, uint16(i)) //nolint:gosec // a message has no room for more
	}
	for i := range n {
		// The order comes to be as far as it is needed (Fisher and Yates).
		if left := n - i; left > 1 {
			j := i + intn(left)
			order[i], order[j] = order[j], order[i]
		}
		addr := addrs[order[i]]
		length := addr.BitLen() / 8
		if w.room() < 12+length {
			w.truncated = true
			return
		}
		w.pointTo(headerLen)
		if length == 4 {
			w.record(dns.TypeA, length)
			a := addr.As4()
			w.out = append(w.out, a[:]...)
		} else {
			w.record(dns.TypeAAAA, length)
			a := addr.As16()
			w.out = append(w.out, a[:]...)
		}
		w.records++
	}
}

// soaData is the SOA's content: see soa.
var soaData = func() []byte {
	b := make([]byte, 256)
	start := 11 // the root as the owner takes 1 byte, the rest of the header 10
	n, err := dns.PackRR(soa("."), b, 0, nil, false)
	if err != nil {
		panic("dns: SOA record cannot be written: " + err.Error()) // it is constant
	}
	return b[start:n]
}()

// soa writes the SOA record of the last labels of the question.
func (w *reply) soa(labels int) {
	if w.room() < 12+len(soaData) {
		return // the answer says the same without it
	}
	if labels == 0 {
		w.out = append(w.out, 0)
	} else {
		w.pointTo(max(w.q.labels[labels-1], headerLen))
	}
	w.record(dns.TypeSOA, len(soaData))
	w.out = append(w.out, soaData...)
	w.author++
}

// finish writes the OPT record and the header.
func (w *reply) finish(rcode int) int {
	extra := uint16(0)
	if w.q.edns {
		flags := uint16(0)
		if w.q.do {
			flags = flagDO
		}
		w.out = append(w.out, 0)
		w.out = binary.BigEndian.AppendUint16(w.out, dns.TypeOPT)
		w.out = binary.BigEndian.AppendUint16(w.out, maxUDP)
		w.out = append(w.out, 0, 0)
		w.out = binary.BigEndian.AppendUint16(w.out, flags)
		w.out = append(w.out, 0, 0)
		extra = 1
	}
	flags := binary.BigEndian.Uint16(w.out[2:])&(flagRD|flagCD) | flagQR | flagAA | flagRA | uint16(rcode) //nolint:gosec // 0 or 3
	if w.truncated {
		flags |= flagTC
	}
	binary.BigEndian.PutUint16(w.out[2:], flags)
	binary.BigEndian.PutUint16(w.out[6:], w.records)
	binary.BigEndian.PutUint16(w.out[8:], w.author)
	binary.BigEndian.PutUint16(w.out[10:], extra)
	return len(w.out)
}
