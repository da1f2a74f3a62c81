package dns

import (
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"

	"github.com/miekg/dns"
)

// readers is how many sockets share an address.
func readers() int { return min(runtime.GOMAXPROCS(0), 4) }

// serveUDP answers what comes in on a socket until it is closed. Ordinary
// queries are answered one after the other: that takes less than handing them
// to somebody.
func (h *Handler) serveUDP(c *net.UDPConn, slow *slow) error {
	in, out := make([]byte, dns.MaxMsgSize), make([]byte, maxUDP)
	for {
		n, from, err := c.ReadFromUDPAddrPort(in)
		if err != nil {
			return err
		}
		if n < headerLen {
			continue
		}
		src := from.Addr().Unmap().WithZone("")
		if n, ok := h.quick(in[:n], src, out); ok {
			_, _ = c.WriteToUDPAddrPort(out[:n], from) // a client that is gone asks again, or not
			continue
		}
		slow.serve(c, slices.Clone(in[:n]), from)
	}
}

// maxSlow bounds the queries that are not ordinary, most of which wait for
// other servers.
const maxSlow = 1024

// slow answers what is not ordinary, each in a goroutine of its own.
type slow struct {
	handler *Handler
	slots   chan struct{}
	wg      sync.WaitGroup
}

func newSlow(h *Handler) *slow { return &slow{handler: h, slots: make(chan struct{}, maxSlow)} }

func (s *slow) serve(c *net.UDPConn, b []byte, from netip.AddrPort) {
	select {
	case s.slots <- struct{}{}:
	default:
		return // a client asks again
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer func() { <-s.slots }()
		r := new(dns.Msg)
		w := &udpWriter{conn: c, from: from}
		if err := r.Unpack(b); err != nil {
			if !r.Response {
				m := new(dns.Msg)
				m.SetRcodeFormatError(r)
				_ = w.WriteMsg(m) // a client that is gone asks again, or not
			}
			return
		}
		s.handler.ServeDNS(w, r)
	}()
}

// wait returns when all are answered.
func (s *slow) wait() { s.wg.Wait() }

// udpWriter answers one query over UDP.
type udpWriter struct {
	conn *net.UDPConn
	from netip.AddrPort
}

var _ dns.ResponseWriter = (*udpWriter)(nil)

func (w *udpWriter) LocalAddr() net.Addr  { return w.conn.LocalAddr() }
func (w *udpWriter) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(w.from) }

func (w *udpWriter) WriteMsg(m *dns.Msg) error {
	b, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func (w *udpWriter) Write(b []byte) (int, error) { return w.conn.WriteToUDPAddrPort(b, w.from) }

func (w *udpWriter) Close() error        { return nil }
func (w *udpWriter) TsigStatus() error   { return nil }
func (w *udpWriter) TsigTimersOnly(bool) {}
func (w *udpWriter) Hijack()             {}
