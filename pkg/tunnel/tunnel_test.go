package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"gotest.tools/v3/assert"
)

var quiet = slog.New(slog.DiscardHandler)

// authority signs certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleet"}, IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	assert.NilError(t, err)
	a := &authority{t: t, key: key, pool: x509.NewCertPool()}
	a.cert, err = x509.ParseCertificate(der)
	assert.NilError(t, err)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) issue(cn, org string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(a.t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: cn, Organization: []string{org}},
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	assert.NilError(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) client(cn, org string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{a.issue(cn, org)}}
}

// controller serves a hub with mutual TLS.
func (a *authority) controller(h *Hub) *httptest.Server {
	s := httptest.NewUnstartedServer(http.NewServeMux())
	s.Config.Handler.(*http.ServeMux).Handle(Path, h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{a.issue("controller", "clocker:controller")}, ClientCAs: a.pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	s.StartTLS()
	a.t.Cleanup(func() { h.Close(); s.Close() })
	return s
}

// agent runs an agent's side until the returned function is called.
func (a *authority) agent(h http.Handler, host string, urls ...string) func() {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Agent{Controllers: urls, TLS: a.client(HostPrefix+host, HostOrganization), Handler: h, Log: quiet}
	done := make(chan struct{})
	go func() { defer close(done); g.Run(ctx) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	a.t.Cleanup(stop)
	return stop
}

func get(t *testing.T, h *Hub, host, path string) string {
	t.Helper()
	body, err := try(t, h, host, path)
	assert.NilError(t, err)
	return body
}

func try(t *testing.T, h *Hub, host, path string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+path, nil)
	assert.NilError(t, err)
	res, err := h.Transport(host).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

func TestRequestsReachTheRightAgent(t *testing.T) {
	a := newAuthority(t)
	one, two := NewHub(quiet), NewHub(quiet)
	s1, s2 := a.controller(one), a.controller(two)
	for _, host := range []string{"a", "b"} {
		a.agent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = fmt.Fprintf(w, "%s answers %s", host, r.URL.Path)
		}), host, s1.URL, s2.URL)
	}
	for _, h := range []*Hub{one, two} {
		for _, host := range []string{"a", "b"} {
			body := get(t, h, host, "/x")
			assert.Equal(t, body, host+" answers /x")
			assert.Assert(t, h.Connected(host))
		}
	}
	_, err := one.Dial(t.Context(), "c")
	assert.ErrorIs(t, err, ErrNoTunnel)
}

func TestTunnelComesBack(t *testing.T) {
	a := newAuthority(t)
	h := NewHub(quiet)
	s := a.controller(h)
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	stop := a.agent(ok, "a", s.URL)
	get(t, h, "a", "/")
	h.Close() // as if the connection broke
	get(t, h, "a", "/")
	// An agent that is replaced: the newest tunnel counts.
	a.agent(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "new") }), "a", s.URL)
	stop()
	for end := time.Now().Add(60 * time.Second); ; {
		// While two agents take turns, a request may meet the one that goes.
		if body, err := try(t, h, "a", "/"); err == nil && body == "new" {
			break
		}
		assert.Assert(t, time.Now().Before(end))
	}
}

func TestOnlyHostsMayDig(t *testing.T) {
	a := newAuthority(t)
	h := NewHub(quiet)
	s := a.controller(h)
	for _, c := range []struct{ cn, org, upgrade, want string }{
		{"mary", "clocker:admin", upgrade, "403"},
		{"host-a", "clocker:admin", upgrade, "403"},
		{"host-", HostOrganization, upgrade, "403"},
		{"host-a", HostOrganization, "", "426"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+Path, nil)
		assert.NilError(t, err)
		if c.upgrade != "" {
			req.Header.Set("Connection", "Upgrade")
			req.Header.Set("Upgrade", c.upgrade)
		}
		tr := &http.Transport{TLSClientConfig: a.client(c.cn, c.org)}
		res, err := tr.RoundTrip(req)
		assert.NilError(t, err)
		_ = res.Body.Close()
		assert.Assert(t, strings.HasPrefix(res.Status, c.want), "%s of %s: %s", c.cn, c.org, res.Status)
		tr.CloseIdleConnections()
	}
	assert.Assert(t, !h.Connected("a"))
}

// hijack takes a connection over and gives it to f.
func hijack(f func(c net.Conn, r *bufio.Reader)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
		f(c, buf.Reader)
		_ = c.Close()
	})
}

func takeOver(t *testing.T, h *Hub, host string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := h.Dial(t.Context(), host)
	assert.NilError(t, err)
	_, err = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")
	assert.NilError(t, err)
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	assert.NilError(t, err)
	assert.Equal(t, res.StatusCode, http.StatusSwitchingProtocols)
	return c, r
}

func TestHalvesEndOneByOne(t *testing.T) {
	a := newAuthority(t)
	h := NewHub(quiet)
	s := a.controller(h)
	// Answers only when its input has ended.
	a.agent(hijack(func(c net.Conn, r *bufio.Reader) {
		b, err := io.ReadAll(r)
		_, _ = fmt.Fprintf(c, "%d %v", len(b), err)
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}), "a", s.URL)
	c, r := takeOver(t, h, "a")
	defer func() { _ = c.Close() }()
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	n, err := c.Write(data)
	assert.NilError(t, err)
	assert.Equal(t, n, len(data))
	assert.NilError(t, c.(*Conn).CloseWrite())
	_, err = c.Write([]byte("x"))
	assert.ErrorIs(t, err, net.ErrClosed)
	b, err := io.ReadAll(r)
	assert.NilError(t, err)
	assert.Equal(t, string(b), "1000000 <nil>")
}

func TestWhoGoesAwayIsNoticed(t *testing.T) {
	a := newAuthority(t)
	h := NewHub(quiet)
	s := a.controller(h)
	ended := make(chan error, 1)
	a.agent(hijack(func(c net.Conn, r *bufio.Reader) {
		go func() { // output that nobody asked to end
			for {
				if _, err := c.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}()
		_, err := io.Copy(io.Discard, r)
		ended <- err
	}), "a", s.URL)
	c, r := takeOver(t, h, "a")
	_, err := r.Peek(1)
	assert.NilError(t, err)
	assert.NilError(t, c.Close())
	assert.ErrorIs(t, <-ended, ErrBroken)
}

func TestRequestsEndWithTheirCaller(t *testing.T) {
	a := newAuthority(t)
	h := NewHub(quiet)
	s := a.controller(h)
	began, ended := make(chan struct{}), make(chan error, 1)
	a.agent(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		close(began)
		<-r.Context().Done()
		ended <- r.Context().Err()
	}), "a", s.URL)
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://a/logs", nil)
	assert.NilError(t, err)
	res, err := h.Transport("a").RoundTrip(req)
	assert.NilError(t, err)
	<-began
	cancel()
	_ = res.Body.Close()
	select {
	case err := <-ended:
		assert.Assert(t, errors.Is(err, context.Canceled))
	case <-time.After(60 * time.Second):
		t.Fatal("the request goes on without its caller")
	}
}

func BenchmarkStream(b *testing.B) {
	one, two := net.Pipe()
	defer func() { _ = one.Close(); _ = two.Close() }()
	near, err := yamux.Client(one, config(quiet))
	assert.NilError(b, err)
	far, err := yamux.Server(two, config(quiet))
	assert.NilError(b, err)
	stream, err := near.OpenStream()
	assert.NilError(b, err)
	client := newConn(stream)
	server, err := listener{far}.Accept()
	assert.NilError(b, err)
	go func() { _, _ = io.Copy(io.Discard, server) }()
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
