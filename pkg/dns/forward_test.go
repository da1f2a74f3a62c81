package dns

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"gotest.tools/v3/assert"
)

func forwarder() *Forwarder {
	return &Forwarder{File: "/nonexistent", Timeout: time.Second, Log: quiet, Now: time.Now}
}

func query1(f *Forwarder, name string, servers ...string) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	w := &writer{src: netip.MustParseAddr("10.208.0.2")}
	f.Serve(w, m, servers)
	return w.msg
}

// A server that asks us again, as a host's resolver may, must not make it go
// round and round: the same question is asked once at a time.
func TestForwardEndsLoops(t *testing.T) {
	f := forwarder()
	var asked atomic.Int32
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(t, err)
	addr := pc.LocalAddr().String()
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		asked.Add(1)
		f.Serve(w, r, []string{addr})
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	start := time.Now()
	m := query1(f, "Example.COM.", addr)
	assert.Equal(t, m.Rcode, dns.RcodeServerFailure)
	assert.Equal(t, m.Question[0].Name, "Example.COM.")
	assert.Equal(t, asked.Load(), int32(1))
	assert.Assert(t, time.Since(start) < 5*time.Second)
}

// Many who ask the same are one question to the server, and each gets its own
// spelling and number back.
func TestForwardAsksOnce(t *testing.T) {
	f := forwarder()
	f.Timeout = 5 * time.Second
	asked, hold := make(chan struct{}, 3), make(chan struct{})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(t, err)
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		asked <- struct{}{}
		<-hold
		m := new(dns.Msg)
		m.SetReply(r)
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	names := []string{"example.com.", "EXAMPLE.com.", "example.COM."}
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Add(1)
		go func() {
			defer wg.Done()
			m := query1(f, name, pc.LocalAddr().String())
			assert.Check(t, m.Rcode == dns.RcodeSuccess && m.Question[0].Name == name, "%v", m)
		}()
	}
	<-asked
	select {
	case <-asked:
		t.Error("the server was asked twice")
	case <-time.After(100 * time.Millisecond):
	}
	close(hold)
	wg.Wait()
}

// A server that says nothing is asked last for a while; one that cannot say is
// passed over.
func TestForwardPrefersWhoAnswers(t *testing.T) {
	f := forwarder()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { _ = silent.Close() }()
	var good, bad atomic.Int32
	sorry, err := net.ListenPacket("udp", "127.0.0.1:0")
	assert.NilError(t, err)
	s := &dns.Server{PacketConn: sorry, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		bad.Add(1)
		m := new(dns.Msg)
		m.SetRcode(r, dns.RcodeRefused)
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
	servers := []string{silent.LocalAddr().String(), sorry.LocalAddr().String(), upstream(t, &good)}
	assert.Equal(t, query1(f, "one.example.", servers...).Rcode, dns.RcodeSuccess)
	start := time.Now()
	for _, name := range strings.Fields("two.example. three.example. four.example.") {
		assert.Equal(t, query1(f, name, servers...).Rcode, dns.RcodeSuccess)
	}
	assert.Assert(t, time.Since(start) < f.Timeout, "the silent server is asked last")
	assert.Equal(t, good.Load(), int32(4))
	assert.Equal(t, bad.Load(), int32(4))
}
