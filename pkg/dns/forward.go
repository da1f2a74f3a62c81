package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Forwarder asks other servers for what the fleet does not know: those of the
// asker's network, or the host's own. It keeps no answers: the host's servers
// do that, for everybody on the host.
type Forwarder struct {
	// File names the host's servers, in the form of resolv.conf(5).
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
	// silent has when a server last did not answer; guarded by mu.
	silent map[string]time.Time
	flying map[flight]*asked // guarded by mu
}

// maxFlying bounds the questions that wait for other servers.
const maxFlying = 512

// embedded is the engine's own server in every container, which asks us.
const embedded = "127.0.0.11"

// sulk is for how long a server that did not answer is asked last.
const sulk = 10 * time.Second

// flight is a question under way. Each is asked once at a time, however many
// ask it: also when one of the servers asks us again, which then ends when that
// server's time is up instead of going round and round.
type flight struct {
	name       string
	qtype      uint16
	network    string
	edns, do   bool
	cd, rd     bool
	size       uint16
	serverList string
}

// asked is the outcome of a flight.
type asked struct {
	done chan struct{}
	msg  *dns.Msg // nil when nobody answered
}

// Serve asks one server after another and hands on what the first says. With
// none that answers the reply is SERVFAIL, at once when there is none to ask.
// Without servers those of the host are asked.
func (f *Forwarder) Serve(w dns.ResponseWriter, r *dns.Msg, servers []string) {
	m := f.join(r, w.LocalAddr().Network(), servers)
	if m == nil {
		m = new(dns.Msg)
		m.SetRcode(r, dns.RcodeServerFailure)
		m.RecursionAvailable = true
	} else {
		m = m.Copy()
		// The question as it was asked: capitals and all.
		m.Id, m.Question = r.Id, r.Question
	}
	_ = w.WriteMsg(m) // a client that is gone asks again, or not
}

// join asks, or waits for somebody else who asks the same.
func (f *Forwarder) join(r *dns.Msg, network string, servers []string) *dns.Msg {
	q := r.Question[0]
	key := flight{
		name: strings.ToLower(q.Name), qtype: q.Qtype, network: network, cd: r.CheckingDisabled, rd: r.RecursionDesired,
		serverList: strings.Join(servers, " "),
	}
	if o := r.IsEdns0(); o != nil {
		key.edns, key.do, key.size = true, o.Do(), o.UDPSize()
	}
	f.mu.Lock()
	if f.flying == nil {
		f.flying, f.silent = map[flight]*asked{}, map[string]time.Time{}
	}
	if a := f.flying[key]; a != nil {
		f.mu.Unlock()
		<-a.done
		return a.msg
	}
	if len(f.flying) >= maxFlying {
		f.mu.Unlock()
		return nil
	}
	a := &asked{done: make(chan struct{})}
	f.flying[key] = a
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.flying, key)
		f.mu.Unlock()
		close(a.done)
	}()
	a.msg = f.askAll(r, network, servers)
	return a.msg
}

// askAll asks one server after another: those first that have answered lately.
// A server that cannot say (SERVFAIL, REFUSED) is passed over while there is
// another.
func (f *Forwarder) askAll(r *dns.Msg, network string, servers []string) *dns.Msg {
	list := f.list()
	if len(servers) > 0 {
		list = usable(servers, f.Skip)
	}
	var last *dns.Msg
	for _, server := range f.order(list) {
		m, err := f.ask(r, network, server)
		f.note(server, err)
		if err != nil {
			f.Log.Debug("name server does not answer", "server", server, "error", err)
			continue
		}
		if last = m; m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused {
			break
		}
	}
	return last
}

// order puts servers last that did not answer lately.
func (f *Forwarder) order(servers []string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var good, bad []string
	for _, s := range servers {
		if at, ok := f.silent[s]; ok && f.Now().Sub(at) < sulk {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}

func (f *Forwarder) note(server string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		delete(f.silent, server)
	} else {
		f.silent[server] = f.Now()
	}
}

// errOther is the answer to another question.
var errOther = errors.New("answer to another question")

func (f *Forwarder) ask(r *dns.Msg, network, server string) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout)
	defer cancel()
	q := r.Copy()
	q.Id = dns.Id()
	c := &dns.Client{Net: network, Timeout: f.Timeout, UDPSize: dns.MaxMsgSize}
	m, _, err := c.ExchangeContext(ctx, q, server)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", server, err)
	}
	if len(m.Question) != 1 || !strings.EqualFold(m.Question[0].Name, q.Question[0].Name) || m.Question[0].Qtype != q.Question[0].Qtype {
		return nil, fmt.Errorf("ask %s: %w", server, errOther)
	}
	return m, nil
}

// list gives the host's servers, read anew when the file has changed; it is
// looked at once a second at most.
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

// usable leaves out servers that are us, or would ask us, and what is no
// address.
func usable(servers, skip []string) []string {
	var out []string
	for _, s := range servers {
		host, port := s, "53"
		if h, p, err := net.SplitHostPort(s); err == nil {
			host, port = h, p
		}
		if _, err := netip.ParseAddr(host); err != nil || host == embedded || slices.Contains(skip, host) {
			continue
		}
		out = append(out, net.JoinHostPort(host, port))
	}
	return out
}
