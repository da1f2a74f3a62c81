package dns

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Forwarder asks the host's own servers for what the fleet does not know.
type Forwarder struct {
	// File names the servers, in the form of resolv.conf(5).
	File string
	// Skip are addresses that would ask us again.
	Skip []string
	// Timeout is how long one server may take.
	Timeout time.Duration
	Log     *slog.Logger
	// Now is the clock.
	Now func() time.Time

	mu      sync.Mutex
	servers []string // guarded by mu
	stamp   time.Time
	looked  time.Time
	flying  chan struct{}
	once    sync.Once
}

// maxFlying bounds the queries that wait for other servers.
const maxFlying = 512

// embedded is the engine's own server in every container, which asks us.
const embedded = "127.0.0.11"

// Serve asks one server after another and hands on what the first says. With
// none that answers the reply is SERVFAIL, at once when there is none to ask.
func (f *Forwarder) Serve(w dns.ResponseWriter, r *dns.Msg) {
	f.once.Do(func() { f.flying = make(chan struct{}, maxFlying) })
	fail := func() {
		m := new(dns.Msg)
		m.SetRcode(r, dns.RcodeServerFailure)
		_ = w.WriteMsg(m) // a client that is gone asks again, or not
	}
	select {
	case f.flying <- struct{}{}:
		defer func() { <-f.flying }()
	default:
		fail()
		return
	}
	network := w.LocalAddr().Network()
	for _, server := range f.list() {
		m, err := f.ask(r, network, server)
		if err != nil {
			f.Log.Debug("name server does not answer", "server", server, "error", err)
			continue
		}
		m.Id = r.Id
		_ = w.WriteMsg(m) // as above
		return
	}
	fail()
}

func (f *Forwarder) ask(r *dns.Msg, network, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout)
	defer cancel()
	q := r.Copy()
	q.Id = dns.Id()
	c := &dns.Client{Net: network, Timeout: f.Timeout, UDPSize: dns.MaxMsgSize}
	m, _, err := c.ExchangeContext(ctx, q, server)
	return m, err
}

// list gives the servers, read anew when the file has changed; it is looked
// at once a second at most.
func (f *Forwarder) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Now().Sub(f.looked) < time.Second {
		return f.servers
	}
	f.looked = f.Now()
	s, err := os.Stat(f.File)
	if err != nil {
		f.servers = nil
		return nil
	}
	if s.ModTime().Equal(f.stamp) {
		return f.servers
	}
	f.stamp, f.servers = s.ModTime(), nil
	c, err := dns.ClientConfigFromFile(f.File)
	if err != nil {
		f.Log.Warn("host's name servers cannot be read", "file", f.File, "error", err)
		return nil
	}
	f.servers = usable(c.Servers, f.Skip)
	return f.servers
}

// usable leaves out servers that are us, or would ask us.
func usable(servers, skip []string) []string {
	var out []string
	for _, s := range servers {
		if s == embedded || slices.Contains(skip, s) {
			continue
		}
		if strings.Contains(s, ":") && net.ParseIP(strings.SplitN(s, "%", 2)[0]) == nil {
			continue
		}
		out = append(out, net.JoinHostPort(s, "53"))
	}
	return out
}
