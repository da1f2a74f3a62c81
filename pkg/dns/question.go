package dns

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Zone is the fleet's own domain: what is not found in it does not exist.
const Zone = "clocker"

// canonical gives a name in lower case, without the dot at its end.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// inZone takes the fleet's own domain off a name.
func inZone(name string) (rest string, own bool) {
	if name == Zone {
		return "", true
	}
	return strings.CutSuffix(name, "."+Zone)
}

// ported is a name with labels of ports before it (RFC 2782): "_80._tcp.web"
// has all three fields, "_tcp.web" no port.
type ported struct {
	port  uint16
	proto string
	base  string
}

// splitPort reads the labels before a name that start with "_"; ok is false
// for a name that has none, or others than those of RFC 2782.
func splitPort(name string) (p ported, ok bool) {
	first, rest, _ := strings.Cut(name, ".")
	if !strings.HasPrefix(first, "_") {
		return p, false
	}
	if n, err := strconv.ParseUint(first[1:], 10, 16); err == nil && n > 0 {
		p.port = uint16(n)
		first, rest, _ = strings.Cut(rest, ".")
	}
	p.proto, ok = strings.CutPrefix(first, "_")
	p.base = rest
	return p, ok && rest != "" && !strings.HasPrefix(rest, "_")
}

// has reports whether a target listens on what p names.
func (p ported) has(t target) bool {
	for _, port := range t.ports {
		if (p.port == 0 || port.ContainerPort == p.port) && (p.proto == "" || port.Protocol == p.proto) {
			return true
		}
	}
	return false
}

// reversed reads the address, or the first bits of one, of a name under
// in-addr.arpa (RFC 1035, section 3.5) or ip6.arpa (RFC 3596, section 2.5).
// zone is how many labels at the end of the name are taken for its zone.
func reversed(name string) (addr netip.Addr, bits, zone int, ok bool) {
	if s, is4 := strings.CutSuffix(name, ".in-addr.arpa"); is4 {
		parts := strings.Split(s, ".")
		var b [4]byte
		if len(parts) > len(b) {
			return addr, 0, 0, false
		}
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil || p != strconv.Itoa(int(n)) {
				return addr, 0, 0, false
			}
			b[len(parts)-1-i] = byte(n)
		}
		return netip.AddrFrom4(b), 8 * len(parts), 3, true
	}
	s, is6 := strings.CutSuffix(name, ".ip6.arpa")
	if !is6 || len(s)%2 == 0 || len(s) > 63 {
		return addr, 0, 0, false
	}
	digits := []byte(strings.Repeat("0", 32))
	n := (len(s) + 1) / 2
	for i := range n {
		if i > 0 && s[2*i-1] != '.' {
			return addr, 0, 0, false
		}
		digits[n-1-i] = s[2*i]
	}
	var b [16]byte
	if _, err := hex.Decode(b[:], digits); err != nil {
		return addr, 0, 0, false
	}
	return netip.AddrFrom16(b), 4 * n, min(4, n+2), true
}

// aboutZones are the types that ask about zones and not about hosts: what
// resolvers want to know of a domain that has the name of one of ours.
func aboutZones(qtype uint16) bool {
	switch qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY:
		return true
	}
	return false
}
