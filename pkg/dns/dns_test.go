package dns

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/model"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

var quiet = slog.New(slog.DiscardHandler)

func raw(t testing.TB, key string, v any) store.Raw {
	t.Helper()
	return rawOf(key, v)
}

// fleet has two applications: shop on networks a and b, blog on c.
func fleet(t testing.TB) *Index {
	t.Helper()
	x := NewIndex(quiet)
	x.ApplyNetworks(store.Change{Reset: true, Puts: []store.Raw{
		raw(t, "a", record.Network{ID: "a", Subnet: "10.208.0.0/20"}),
		raw(t, "b", record.Network{ID: "b", Subnet: "10.208.16.0/20"}),
		raw(t, "c", record.Network{ID: "c", Subnet: "10.208.32.0/24"}),
	}})
	named := func(app, service string, slot int, nets map[string]record.NamedAddress) store.Raw {
		replica := fmt.Sprintf("%s-%s-%d", app, service, slot)
		return raw(t, "names/h1/"+replica, record.NameRecord{App: app, Service: service, Replica: replica, Networks: nets,
			Ports: []model.Port{{ContainerPort: 80, Protocol: "tcp"}, {ContainerPort: 53, Protocol: "udp"}}})
	}
	x.ApplyNames(store.Change{Reset: true, Puts: []store.Raw{
		named("shop", "web", 1, map[string]record.NamedAddress{"a": {Address: "10.208.0.2", Aliases: []string{"WWW", "web"}}}),
		named("shop", "web", 2, map[string]record.NamedAddress{"a": {Address: "10.208.0.3", Aliases: []string{"WWW"}}}),
		named("shop", "web", 3, map[string]record.NamedAddress{"a": {Address: "10.208.0.4"}}),
		named("shop", "db", 1, map[string]record.NamedAddress{"a": {Address: "10.208.0.9"}, "b": {Address: "10.208.16.9/20"}}),
		named("shop", "back", 1, map[string]record.NamedAddress{"b": {Address: "10.208.16.2"}}),
		named("blog", "web", 1, map[string]record.NamedAddress{"c": {Address: "10.208.32.2"}}),
	}})
	x.rebuild()
	return x
}

// writer stands for a connection from a client.
type writer struct {
	src netip.Addr
	tcp bool
	msg *dns.Msg
}

func (w *writer) LocalAddr() net.Addr { return w.addr(netip.MustParseAddr("169.254.53.53")) }

func (w *writer) RemoteAddr() net.Addr { return w.addr(w.src) }

func (w *writer) addr(a netip.Addr) net.Addr {
	if w.tcp {
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 53))
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 53))
}

func (w *writer) WriteMsg(m *dns.Msg) error { w.msg = m; return nil }

func (w *writer) Write([]byte) (int, error) { return 0, nil }
func (w *writer) Close() error              { return nil }
func (w *writer) TsigStatus() error         { return nil }
func (w *writer) TsigTimersOnly(bool)       {}
func (w *writer) Hijack()                   {}

func ask(h *Handler, src, name string, typ uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), typ)
	w := &writer{src: netip.MustParseAddr(src)}
	h.ServeDNS(w, m)
	return w.msg
}

// forwarded marks answers that came from outside.
func forwarded(w dns.ResponseWriter, r *dns.Msg, _ []string) {
	m := new(dns.Msg)
	m.SetRcode(r, dns.RcodeRefused)
	_ = w.WriteMsg(m)
}

func TestAnswers(t *testing.T) {
	h := &Handler{Index: fleet(t), Forward: forwarded, Intn: rand.New(rand.NewPCG(1, 2)).IntN}
	const inA, inB, inC, outside = "10.208.0.200", "10.208.16.200", "10.208.32.200", "192.0.2.7"
	for _, c := range []struct {
		src, name string
		typ       uint16
		code      int
		want      string
	}{
		{inA, "web", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{inA, "WEB", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{inA, "www", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3"},
		{inA, "shop-web-2", dns.TypeA, dns.RcodeSuccess, "10.208.0.3"},
		{inA, "web.shop", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{inA, "web.clocker", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{inA, "web.shop.clocker", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{inA, "web", dns.TypeAAAA, dns.RcodeSuccess, ""},
		{inA, "web", dns.TypeMX, dns.RcodeSuccess, ""},
		{inA, "back", dns.TypeA, dns.RcodeNameError, ""},
		{inA, "nobody", dns.TypeAAAA, dns.RcodeNameError, ""},
		{inA, "nobody.clocker", dns.TypeA, dns.RcodeNameError, ""},
		{inA, "clocker", dns.TypeSOA, dns.RcodeSuccess, ""},
		{inA, "example.com", dns.TypeA, dns.RcodeRefused, ""},
		{inA, "web.blog", dns.TypeA, dns.RcodeRefused, ""},
		{inA, ".", dns.TypeNS, dns.RcodeRefused, ""},
		{inB, "db", dns.TypeA, dns.RcodeSuccess, "10.208.16.9"},
		{inB, "web", dns.TypeA, dns.RcodeNameError, ""},
		{"10.208.0.9", "web", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{"10.208.0.9", "back", dns.TypeA, dns.RcodeSuccess, "10.208.16.2"},
		{"10.208.16.9", "web", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{inC, "web", dns.TypeA, dns.RcodeSuccess, "10.208.32.2"},
		{outside, "web", dns.TypeA, dns.RcodeNameError, ""},
		{outside, "web.blog", dns.TypeA, dns.RcodeSuccess, "10.208.32.2"},
		{outside, "web.blog.clocker", dns.TypeA, dns.RcodeSuccess, "10.208.32.2"},
		{outside, "shop-web-1", dns.TypeA, dns.RcodeNameError, ""},
		{inA, "2.0.208.10.in-addr.arpa", dns.TypePTR, dns.RcodeSuccess, "shop-web-1."},
		{inC, "2.0.208.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, ""},
		{inA, "77.0.208.10.in-addr.arpa", dns.TypePTR, dns.RcodeNameError, ""},
		{inA, "8.8.8.8.in-addr.arpa", dns.TypePTR, dns.RcodeRefused, ""},
		{inA, "x.8.8.8.in-addr.arpa", dns.TypePTR, dns.RcodeRefused, ""},
		{inA, "db", dns.TypeSRV, dns.RcodeSuccess, "shop-db-1.:53 shop-db-1.:80"},
		{inA, "_80._tcp.web", dns.TypeSRV, dns.RcodeSuccess, "shop-web-1.:80 shop-web-2.:80 shop-web-3.:80"},
		{inA, "_80._udp.web", dns.TypeSRV, dns.RcodeNameError, ""},
		{inA, "_tcp.web", dns.TypeSRV, dns.RcodeSuccess, ""},
		{inA, "_sctp.web", dns.TypeSRV, dns.RcodeNameError, ""},
		{inA, "_80._tcp.web", dns.TypeTXT, dns.RcodeSuccess, ""},
		{inA, "shop", dns.TypeA, dns.RcodeSuccess, ""},
		{inA, "blog", dns.TypeA, dns.RcodeNameError, ""},
		{inA, "tasks.web", dns.TypeA, dns.RcodeSuccess, "10.208.0.2 10.208.0.3 10.208.0.4"},
		{outside, "tasks.web.blog", dns.TypeA, dns.RcodeSuccess, "10.208.32.2"},
		{inA, "org", dns.TypeNS, dns.RcodeRefused, ""},
		{inA, "0.208.10.in-addr.arpa", dns.TypePTR, dns.RcodeSuccess, ""},
		{inA, "10.in-addr.arpa", dns.TypePTR, dns.RcodeRefused, ""},
		{inA, "_80._tcp.nobody.clocker", dns.TypeSRV, dns.RcodeNameError, ""},
		{inA, "_ldap._tcp.example.com", dns.TypeSRV, dns.RcodeRefused, ""},
	} {
		t.Run(fmt.Sprintf("%s asks %s %s", c.src, c.name, dns.TypeToString[c.typ]), func(t *testing.T) {
			m := ask(h, c.src, c.name, c.typ)
			assert.Equal(t, dns.RcodeToString[m.Rcode], dns.RcodeToString[c.code])
			var got []string
			for _, rr := range m.Answer {
				assert.Equal(t, rr.Header().Ttl, uint32(ttl))
				switch rr := rr.(type) {
				case *dns.A:
					got = append(got, rr.A.String())
				case *dns.PTR:
					got = append(got, rr.Ptr)
				case *dns.SRV:
					got = append(got, fmt.Sprintf("%s:%d", rr.Target, rr.Port))
				}
			}
			slices.Sort(got)
			assert.Equal(t, strings.Join(got, " "), c.want)
		})
	}
}

func TestContainersWithoutNamesMayAsk(t *testing.T) {
	x := fleet(t)
	h := &Handler{Index: x, Intn: rand.New(rand.NewPCG(1, 2)).IntN}
	assert.Equal(t, ask(h, "10.208.0.50", "back", dns.TypeA).Rcode, dns.RcodeNameError)
	x.SetLocal(map[netip.Addr][]string{netip.MustParseAddr("10.208.0.50"): {"a", "b"}})
	x.rebuild()
	assert.Equal(t, ask(h, "10.208.0.50", "back", dns.TypeA).Rcode, dns.RcodeSuccess)
	assert.Equal(t, ask(h, "10.208.0.50", "web", dns.TypeA).Rcode, dns.RcodeSuccess)
}

func TestTheDeadLeave(t *testing.T) {
	x := fleet(t)
	go x.Run(t.Context())
	h := &Handler{Index: x, Intn: rand.New(rand.NewPCG(1, 2)).IntN}
	x.ApplyNames(store.Change{Deletes: []string{"names/h1/shop-web-1", "names/h1/shop-web-3"}})
	for start := time.Now(); ; {
		m := ask(h, "10.208.0.200", "web", dns.TypeA)
		if len(m.Answer) == 1 {
			assert.Equal(t, m.Answer[0].(*dns.A).A.String(), "10.208.0.3")
			break
		}
		assert.Assert(t, time.Since(start) < 60*time.Second, "%v", m.Answer)
	}
	assert.Equal(t, ask(h, "10.208.0.200", "2.0.208.10.in-addr.arpa", dns.TypePTR).Rcode, dns.RcodeNameError)
}

// Each order of the answers is as likely as any other.
func TestAnswersAreShuffled(t *testing.T) {
	h := &Handler{Index: fleet(t), Intn: rand.New(rand.NewPCG(3, 4)).IntN}
	const rounds = 6000
	orders := map[string]int{}
	for range rounds {
		var s string
		for _, rr := range ask(h, "10.208.0.200", "web", dns.TypeA).Answer {
			s += rr.(*dns.A).A.String() + " "
		}
		orders[s]++
	}
	assert.Equal(t, len(orders), 6)
	for o, n := range orders {
		assert.Assert(t, n > rounds/6*8/10 && n < rounds/6*12/10, "%s: %d of %d", o, n, rounds)
	}
}

func TestManyReplicasFitOrSaySo(t *testing.T) {
	x := NewIndex(quiet)
	x.ApplyNetworks(store.Change{Reset: true, Puts: []store.Raw{raw(t, "a", record.Network{ID: "a", Subnet: "10.208.0.0/20"})}})
	var c store.Change
	for i := range 100 {
		c.Puts = append(c.Puts, raw(t, fmt.Sprint(i), record.NameRecord{App: "shop", Service: "web", Replica: fmt.Sprintf("shop-web-%d", i),
			Networks: map[string]record.NamedAddress{"a": {Address: fmt.Sprintf("10.208.1.%d", i)}}}))
	}
	x.ApplyNames(c)
	x.rebuild()
	h := &Handler{Index: x, Intn: rand.New(rand.NewPCG(1, 2)).IntN}
	query := func(tcp bool, edns uint16) *dns.Msg {
		m := new(dns.Msg)
		m.SetQuestion("web.", dns.TypeA)
		if edns > 0 {
			m.SetEdns0(edns, false)
		}
		w := &writer{src: netip.MustParseAddr("10.208.0.2"), tcp: tcp}
		h.ServeDNS(w, m)
		return w.msg
	}
	small := query(false, 0)
	assert.Assert(t, small.Truncated && small.Len() <= dns.MinMsgSize && len(small.Answer) > 10, "%d", small.Len())
	assert.Equal(t, len(query(false, 4096).Answer), 100)
	assert.Equal(t, len(query(true, 0).Answer), 100)
}

// upstream is a server that answers every name with one address.
func upstream(t *testing.T, asked *atomic.Int32) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(t, err)
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		asked.Add(1)
		m := new(dns.Msg)
		m.SetReply(r)
		m.Answer = append(m.Answer, &dns.A{Hdr: header(r.Question[0].Name, dns.TypeA), A: net.IPv4(192, 0, 2, 80)})
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	return pc.LocalAddr().String()
}

func TestForward(t *testing.T) {
	var asked atomic.Int32
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { _ = silent.Close() }()
	f := &Forwarder{Timeout: time.Second, Log: quiet, Now: time.Now}
	f.servers, f.looked = []string{silent.LocalAddr().String(), upstream(t, &asked)}, time.Now().Add(time.Hour)
	h := &Handler{Index: fleet(t), Forward: f.Serve, Intn: rand.IntN}
	m := new(dns.Msg)
	m.SetQuestion("Example.com.", dns.TypeA)
	w := &writer{src: netip.MustParseAddr("10.208.0.2")}
	h.ServeDNS(w, m)
	assert.Equal(t, w.msg.Rcode, dns.RcodeSuccess)
	assert.Equal(t, w.msg.Id, m.Id)
	assert.Equal(t, w.msg.Answer[0].(*dns.A).A.String(), "192.0.2.80")
	assert.Equal(t, asked.Load(), int32(1))
	// Names of one label never get out.
	assert.Equal(t, ask(h, "10.208.0.2", "secret", dns.TypeA).Rcode, dns.RcodeNameError)
	assert.Equal(t, asked.Load(), int32(1))
}

func TestForwardWithoutServersFailsAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	now := time.Now()
	f := &Forwarder{File: file, Skip: []string{"169.254.53.53"}, Timeout: 5 * time.Second, Log: quiet, Now: func() time.Time { return now }}
	h := &Handler{Index: fleet(t), Forward: f.Serve, Intn: rand.IntN}
	start := time.Now()
	assert.Equal(t, ask(h, "10.208.0.2", "example.com", dns.TypeA).Rcode, dns.RcodeServerFailure)
	assert.NilError(t, os.WriteFile(file, []byte("nameserver 127.0.0.11\nnameserver 169.254.53.53\n"), 0o600))
	now = now.Add(2 * time.Second)
	assert.Equal(t, ask(h, "10.208.0.2", "example.com", dns.TypeA).Rcode, dns.RcodeServerFailure)
	assert.Assert(t, time.Since(start) < f.Timeout)
	assert.NilError(t, os.WriteFile(file, []byte("search x\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), 0o600))
	assert.NilError(t, os.Chtimes(file, now, now.Add(time.Hour)))
	now = now.Add(2 * time.Second)
	assert.DeepEqual(t, f.list(), []string{"192.0.2.1:53", "[2001:db8::1]:53"})
}

func TestServer(t *testing.T) {
	s := &Server{Address: "127.0.0.1", Port: freePort(t), Handler: &Handler{Index: fleet(t), Intn: rand.IntN}, Log: quiet}
	done := make(chan struct{})
	go func() { defer close(done); s.Run(t.Context()) }()
	t.Cleanup(func() { <-done })
	for _, network := range []string{"udp", "tcp"} {
		c := &dns.Client{Net: network, Timeout: time.Second}
		q := new(dns.Msg)
		q.SetQuestion("web.blog.", dns.TypeA)
		var m *dns.Msg
		var err error
		for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
			if m, _, err = c.Exchange(q, fmt.Sprintf("127.0.0.1:%d", s.Port)); err == nil {
				break
			}
		}
		assert.NilError(t, err)
		assert.Equal(t, m.Answer[0].(*dns.A).A.String(), "10.208.32.2")
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func FuzzHandler(f *testing.F) {
	q := new(dns.Msg)
	q.SetQuestion("_80._tcp.web.shop.clocker.", dns.TypeSRV)
	b, err := q.Pack()
	assert.NilError(f, err)
	f.Add(b)
	h := &Handler{Index: fleet(f), Intn: rand.IntN}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		w := &writer{src: netip.MustParseAddr("10.208.0.2")}
		h.ServeDNS(w, m)
		if w.msg == nil {
			t.Fatal("no reply")
		}
		_, _ = w.msg.Pack() // may refuse names that only the wire can have, not more
	})
}

func BenchmarkHandler(b *testing.B) {
	h := &Handler{Index: fleet(b), Forward: forwarded, Intn: rand.New(rand.NewPCG(1, 2)).IntN}
	for _, c := range []struct {
		name, query string
		typ         uint16
	}{{"A", "web.", dns.TypeA}, {"replica", "shop-db-1.", dns.TypeA}, {"AAAA", "web.", dns.TypeAAAA}, {"unknown", "nobody.", dns.TypeA}} {
		b.Run(c.name, func(b *testing.B) {
			q := new(dns.Msg)
			q.SetQuestion(c.query, c.typ)
			wire, err := q.Pack()
			assert.NilError(b, err)
			w := &writer{src: netip.MustParseAddr("10.208.0.200")}
			buf := make([]byte, dns.DefaultMsgSize)
			b.ReportAllocs()
			for b.Loop() {
				m := new(dns.Msg)
				if err := m.Unpack(wire); err != nil {
					b.Fatal(err)
				}
				h.ServeDNS(w, m)
				if _, err := w.msg.PackBuffer(buf); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
		})
	}
}

func BenchmarkRebuild(b *testing.B) {
	for _, count := range []int{1000, 10000} {
		names := map[string]record.NameRecord{}
		for i := range count {
			names[fmt.Sprint(i)] = record.NameRecord{App: fmt.Sprint("app", i%100), Service: fmt.Sprint("s", i%10), Replica: fmt.Sprint("r", i),
				Networks: map[string]record.NamedAddress{fmt.Sprint("n", i%100): {Address: fmt.Sprintf("10.%d.%d.%d", 208+i>>16, i>>8&255, i&255)}}}
		}
		b.Run(fmt.Sprint("names=", count), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				build(Records{Names: names})
			}
		})
	}
}
