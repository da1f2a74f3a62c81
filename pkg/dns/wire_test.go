package dns

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"gotest.tools/v3/assert"
	"pgregory.net/rapid"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// dual is a fleet with IPv6 and a service that has an address of its own.
func dual(t testing.TB) *Handler {
	t.Helper()
	x := NewIndex(quiet)
	x.ApplyNetworks(store.Change{Reset: true, Puts: []store.Raw{
		raw(t, "a", record.Network{ID: "a", Subnet: "10.208.0.0/20", Subnet6: "fd12:3456:789a:1::/64", DNS: []string{"192.0.2.53"}}),
		raw(t, "b", record.Network{ID: "b", Subnet6: "fd12:3456:789a:2::/64"}),
	}})
	replica := func(service string, slot int, nets map[string]record.NamedAddress) store.Raw {
		return raw(t, fmt.Sprint(service, slot), record.NameRecord{App: "shop", Service: service, Replica: fmt.Sprintf("shop-%s-%d", service, slot),
			Networks: nets, Ports: []model.Port{{ContainerPort: 80, Protocol: "tcp"}}})
	}
	x.ApplyNames(store.Change{Reset: true, Puts: []store.Raw{
		replica("web", 1, map[string]record.NamedAddress{"a": {Address: "10.208.0.2", Address6: "fd12:3456:789a:1::2", Aliases: []string{"www"}}}),
		replica("web", 2, map[string]record.NamedAddress{"a": {Address: "10.208.0.3", Address6: "fd12:3456:789a:1::3", Aliases: []string{"www"}}}),
		replica("db", 1, map[string]record.NamedAddress{"a": {Address: "10.208.0.4"}, "b": {Address6: "fd12:3456:789a:2::4"}}),
		raw(t, "plain", record.NameRecord{Replica: "Plain", Networks: map[string]record.NamedAddress{"a": {Address: "10.208.0.9", Aliases: []string{"0123456789ab", "pl"}}}}),
		raw(t, "twin1", record.NameRecord{Replica: "twin", Networks: map[string]record.NamedAddress{"a": {Address: "10.208.0.10"}}}),
		raw(t, "twin2", record.NameRecord{Replica: "twin", Networks: map[string]record.NamedAddress{"a": {Address: "10.208.0.11"}}}),
	}})
	x.ApplyServices(store.Change{Reset: true, Puts: []store.Raw{
		raw(t, "/clocker/f/net/services/a/10.208.0.200", record.Service{App: "shop", Service: "web", Address: "10.208.0.200", Address6: "fd12:3456:789a:1::200"}),
		raw(t, "/clocker/f/net/services/a/10.208.0.201", record.Service{App: "shop", Service: "idle", Address: "10.208.0.201"}),
	}})
	x.rebuild()
	return &Handler{Index: x, Forward: forwarded, Intn: rand.New(rand.NewPCG(1, 2)).IntN}
}

func values(m *dns.Msg) string {
	var got []string
	for _, rr := range m.Answer {
		got = append(got, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(got)
	return strings.Join(got, ", ")
}

func TestFamiliesAndServices(t *testing.T) {
	h := dual(t)
	const in4, in6, inB = "10.208.0.77", "fd12:3456:789a:1::77", "fd12:3456:789a:2::77"
	for _, c := range []struct {
		src, name string
		typ       uint16
		code      int
		want      string
	}{
		{in4, "web", dns.TypeA, 0, "10.208.0.200"},
		{in6, "web", dns.TypeA, 0, "10.208.0.200"},
		{in4, "web", dns.TypeAAAA, 0, "fd12:3456:789a:1::200"},
		{in4, "web.shop.clocker", dns.TypeA, 0, "10.208.0.200"},
		{in4, "www", dns.TypeA, 0, "10.208.0.200"},
		{in4, "tasks.web", dns.TypeA, 0, "10.208.0.2, 10.208.0.3"},
		{in4, "tasks.web", dns.TypeAAAA, 0, "fd12:3456:789a:1::2, fd12:3456:789a:1::3"},
		{in4, "tasks.web.shop", dns.TypeA, 0, "10.208.0.2, 10.208.0.3"},
		{in4, "shop-web-1", dns.TypeAAAA, 0, "fd12:3456:789a:1::2"},
		{in4, "_80._tcp.web", dns.TypeSRV, 0, "0 0 80 shop-web-1., 0 0 80 shop-web-2."},
		{in4, "idle", dns.TypeA, 0, "10.208.0.201"}, // no replica can be reached at the moment
		{in4, "idle", dns.TypeAAAA, 0, ""},
		{in4, "tasks.idle", dns.TypeA, dns.RcodeRefused, ""},
		{in4, "tasks.idle.clocker", dns.TypeA, dns.RcodeNameError, ""},
		{in4, "plain", dns.TypeA, 0, "10.208.0.9"},
		{in4, "PL", dns.TypeA, 0, "10.208.0.9"},
		{in4, "0123456789ab", dns.TypeA, 0, "10.208.0.9"},
		{in4, "twin", dns.TypeA, 0, "10.208.0.10, 10.208.0.11"},
		{in4, "db", dns.TypeAAAA, 0, ""},
		{inB, "db", dns.TypeAAAA, 0, "fd12:3456:789a:2::4"},
		{inB, "web", dns.TypeA, dns.RcodeNameError, ""},
		{in4, "web", dns.TypeANY, 0, `"RFC8482" ""`},
		{in4, "200.0.208.10.in-addr.arpa", dns.TypePTR, 0, "web.shop."},
		{in4, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa", dns.TypePTR, 0, "shop-web-1."},
		{inB, "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa", dns.TypePTR, dns.RcodeNameError, ""},
		{in4, "1.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa", dns.TypePTR, 0, ""},
		{in4, "a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa", dns.TypePTR, dns.RcodeRefused, ""},
	} {
		t.Run(fmt.Sprintf("%s asks %s %s", c.src, c.name, dns.TypeToString[c.typ]), func(t *testing.T) {
			m := ask(h, c.src, c.name, c.typ)
			assert.Equal(t, dns.RcodeToString[m.Rcode], dns.RcodeToString[c.code])
			assert.Equal(t, values(m), c.want)
			if len(m.Answer) == 0 && m.Rcode != dns.RcodeRefused {
				assert.Equal(t, len(m.Ns), 1, "a negative answer says how long it holds")
				assert.Assert(t, dns.IsSubDomain(m.Ns[0].Header().Name, dns.Fqdn(c.name)))
			}
		})
	}
}

func TestANetworksOwnServersAreAsked(t *testing.T) {
	h := dual(t)
	var via []string
	h.Forward = func(w dns.ResponseWriter, r *dns.Msg, servers []string) { via = servers; forwarded(w, r, nil) }
	ask(h, "10.208.0.77", "example.com", dns.TypeA)
	assert.DeepEqual(t, via, []string{"192.0.2.53"})
	ask(h, "fd12:3456:789a:2::77", "example.com", dns.TypeA)
	assert.Equal(t, len(via), 0)
}

// On the bytes of a query and on its message the same must be answered.
func TestQuickAnswersAsTheRest(t *testing.T) {
	h := dual(t)
	quicks := 0
	rapid.Check(t, func(t *rapid.T) {
		src := rapid.SampledFrom([]string{"10.208.0.77", "fd12:3456:789a:2::77", "192.0.2.1"}).Draw(t, "src")
		name := rapid.SampledFrom([]string{"web", "wEb", "Web.Shop", "web.shop.clocker", "nobody", "nobody.CLOCKER", "clocker", "tasks.web", "db", "twin",
			"shop", "plain", "example.com", "2.0.208.10.in-addr.arpa", "0.208.10.in-addr.arpa", "9.9.208.10.in-addr.arpa", "_tcp.web", "_80._tcp.web", "org"}).Draw(t, "name")
		typ := rapid.SampledFrom([]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX, dns.TypeSRV, dns.TypePTR, dns.TypeNS, dns.TypeANY}).Draw(t, "type")
		q := new(dns.Msg)
		q.SetQuestion(dns.Fqdn(name), typ)
		q.RecursionDesired = rapid.Bool().Draw(t, "rd")
		q.CheckingDisabled = rapid.Bool().Draw(t, "cd")
		if rapid.Bool().Draw(t, "edns") {
			q.SetEdns0(uint16(rapid.SampledFrom([]int{0, 512, 1232, 65535}).Draw(t, "size")), rapid.Bool().Draw(t, "do"))
		}
		b, err := q.Pack()
		assert.NilError(t, err)
		w := &writer{src: netip.MustParseAddr(src)}
		h.ServeDNS(w, q)
		out := make([]byte, maxUDP)
		n, ok := h.quick(b, w.src, out)
		if !ok {
			return
		}
		quicks++
		got := new(dns.Msg)
		assert.NilError(t, got.Unpack(out[:n]))
		for _, m := range []*dns.Msg{got, w.msg} {
			slices.SortFunc(m.Answer, func(a, b dns.RR) int { return strings.Compare(a.String(), b.String()) })
		}
		assert.Equal(t, got.String(), w.msg.String())
	})
	assert.Assert(t, quicks > 10, "only %d were answered quickly", quicks)
}

func TestQuickKeepsToTheSize(t *testing.T) {
	x := NewIndex(quiet)
	x.ApplyNetworks(store.Change{Reset: true, Puts: []store.Raw{raw(t, "a", record.Network{ID: "a", Subnet: "10.208.0.0/20"})}})
	var c store.Change
	for i := range 400 {
		c.Puts = append(c.Puts, raw(t, fmt.Sprint(i), record.NameRecord{App: "shop", Service: "web", Replica: fmt.Sprintf("shop-web-%d", i),
			Networks: map[string]record.NamedAddress{"a": {Address: fmt.Sprintf("10.208.%d.%d", 1+i/200, i%200)}}}))
	}
	x.ApplyNames(c)
	x.rebuild()
	h := &Handler{Index: x, Intn: rand.IntN}
	for _, size := range []uint16{0, 512, 1232, 4096, 65535} {
		q := new(dns.Msg)
		q.SetQuestion("web.", dns.TypeA)
		limit := dns.MinMsgSize
		if size > 0 {
			q.SetEdns0(size, false)
			limit = max(limit, min(int(size), maxUDP))
		}
		b, err := q.Pack()
		assert.NilError(t, err)
		out := make([]byte, maxUDP)
		n, ok := h.quick(b, netip.MustParseAddr("10.208.0.2"), out)
		assert.Assert(t, ok)
		m := new(dns.Msg)
		assert.NilError(t, m.Unpack(out[:n]))
		assert.Assert(t, m.Truncated && n <= limit && n > limit-20, "%d of %d", n, limit)
		seen := map[string]bool{}
		for _, rr := range m.Answer {
			seen[rr.(*dns.A).A.String()] = true
		}
		assert.Equal(t, len(seen), len(m.Answer), "no address twice")
	}
}

func TestWhatIsNoQuestionIsRefused(t *testing.T) {
	h := dual(t)
	for _, c := range []struct {
		change func(*dns.Msg)
		code   int
	}{
		{func(m *dns.Msg) { m.Question = nil }, dns.RcodeFormatError},
		{func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
		{func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, dns.RcodeNotImplemented},
		{func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		{func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }, dns.RcodeBadVers},
	} {
		m := new(dns.Msg)
		m.SetQuestion("web.", dns.TypeA)
		c.change(m)
		b, err := m.Pack()
		assert.NilError(t, err)
		_, ok := h.quick(b, netip.MustParseAddr("10.208.0.77"), make([]byte, maxUDP))
		assert.Assert(t, !ok)
		w := &writer{src: netip.MustParseAddr("10.208.0.77")}
		h.ServeDNS(w, m)
		b, err = w.msg.Pack()
		assert.NilError(t, err)
		r := new(dns.Msg)
		assert.NilError(t, r.Unpack(b))
		assert.Equal(t, r.Rcode, c.code)
	}
	m := new(dns.Msg)
	m.SetQuestion("web.", dns.TypeA)
	m.Response = true
	w := &writer{src: netip.MustParseAddr("10.208.0.77")}
	h.ServeDNS(w, m)
	assert.Assert(t, w.msg == nil, "an answer is not answered")
}

func FuzzQuick(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("wEb.shop.clocker.", dns.TypeAAAA)
	q.SetEdns0(1232, true)
	b, err := q.Pack()
	assert.NilError(f, err)
	f.Add(b)
	h := dual(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		out := make([]byte, maxUDP)
		n, ok := h.quick(b, netip.MustParseAddr("10.208.0.77"), out)
		if !ok {
			return
		}
		m := new(dns.Msg)
		if err := m.Unpack(out[:n]); err != nil {
			t.Fatal(err)
		}
		if m.Id != binary.BigEndian.Uint16(b) || !m.Response || len(m.Question) != 1 {
			t.Fatalf("answer %v", m)
		}
	})
}
