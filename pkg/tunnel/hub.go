package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// What a host's certificate says: its common name is HostPrefix and the host's
// id, its organization HostOrganization.
const (
	HostPrefix       = "host-"
	HostOrganization = "clocker:host"
)

// ErrNoTunnel means that a host's agent is not connected to this controller.
var ErrNoTunnel = errors.New("host's agent is not connected to this controller")

// patience is how long a call waits for an agent that is just coming back.
const patience = 3 * time.Second

// Hub is a controller's side: it takes tunnels at [Path] and reaches hosts
// through them. The server that it is mounted on must ask for certificates
// and verify them.
type Hub struct {
	log *slog.Logger

	mu       sync.Mutex
	sessions map[string]*yamux.Session  // by host id; guarded by mu
	news     chan struct{}              // closed and replaced at each new tunnel; guarded by mu
	rounds   map[string]*http.Transport // by host id; guarded by mu
}

// NewHub returns a hub without tunnels.
func NewHub(log *slog.Logger) *Hub {
	return &Hub{
		log: log, sessions: map[string]*yamux.Session{}, news: make(chan struct{}),
		rounds: map[string]*http.Transport{},
	}
}

var _ http.Handler = (*Hub)(nil)

// ServeHTTP takes a tunnel and returns when it ends. A host's newest tunnel
// replaces its former one.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, err := hostOf(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	if !strings.EqualFold(r.Header.Get("Upgrade"), upgrade) {
		w.Header().Set("Upgrade", upgrade)
		http.Error(w, "this path takes tunnels of agents", http.StatusUpgradeRequired)
		return
	}
	rc := http.NewResponseController(w)
	conn, buf, err := rc.Hijack()
	if err != nil {
		http.Error(w, "connection cannot be upgraded", http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Time{})
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgrade)
	if err != nil {
		return
	}
	session, err := yamux.Client(&buffered{Conn: conn, r: buf.Reader}, config(h.log))
	if err != nil {
		h.log.Error("tunnel cannot be taken", "host", host, "error", err)
		return
	}
	h.add(host, session)
	h.log.Info("tunnel stands", "host", host, "from", r.RemoteAddr)
	<-session.CloseChan()
	h.drop(host, session)
	h.log.Info("tunnel ended", "host", host)
}

func hostOf(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", errors.New("a tunnel needs a host's certificate")
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	id, ok := strings.CutPrefix(subject.CommonName, HostPrefix)
	if !ok || id == "" || !slices.Contains(subject.Organization, HostOrganization) {
		return "", fmt.Errorf("a tunnel needs a host's certificate, not that of %q", subject.CommonName)
	}
	return id, nil
}

func (h *Hub) add(host string, s *yamux.Session) {
	h.mu.Lock()
	old := h.sessions[host]
	h.sessions[host] = s
	close(h.news)
	h.news = make(chan struct{})
	h.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
}

func (h *Hub) drop(host string, s *yamux.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[host] == s {
		delete(h.sessions, host)
	}
}

// Connected reports whether a host has a tunnel here.
func (h *Hub) Connected(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sessions[host] != nil
}

// Dial opens a connection to the HTTP server of a host's agent; the caller
// closes it. It can be closed by halves (CloseWrite). It returns [ErrNoTunnel],
// after a moment's patience, when there is no way to the host.
func (h *Hub) Dial(ctx context.Context, host string) (net.Conn, error) {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		h.mu.Lock()
		s, news := h.sessions[host], h.news
		h.mu.Unlock()
		if s != nil {
			stream, err := s.OpenStream()
			if err == nil {
				return newConn(stream), nil
			}
			if !s.IsClosed() {
				return nil, fmt.Errorf("reach host %s: %w", host, err)
			}
			h.drop(host, s)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reach host %s: %w", host, context.Cause(ctx))
		case <-late.C:
			return nil, fmt.Errorf("reach host %s: %w", host, ErrNoTunnel)
		case <-news:
		}
	}
}

// Transport carries requests to the agent of a host. The host part of their
// URLs is of no meaning; their scheme is http.
func (h *Hub) Transport(host string) http.RoundTripper {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.rounds[host]
	if t == nil {
		t = &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return h.Dial(ctx, host) },
			DisableCompression: true,
			// A stream costs less than finding out that an idle one is dead.
			DisableKeepAlives: true,
		}
		h.rounds[host] = t
	}
	return t
}

// Close ends every tunnel.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		_ = s.Close()
	}
}
