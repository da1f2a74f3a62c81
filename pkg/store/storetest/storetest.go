// Package storetest starts a real etcd inside a test's own process, for the
// tests of everything that keeps state in it. It listens on loopback only, on
// ports the kernel picks, keeps its data in the test's temporary directory
// and stops when the test ends. It never runs outside tests.
//
// Design page: docs/design/state.md.
package storetest

import (
	"fmt"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Start starts an etcd of one member and returns a client of it. Both are
// closed when the test ends.
func Start(t testing.TB) *clientv3.Client {
	t.Helper()
	return StartServer(t).Client()
}

// Server is an etcd of one member that a test may stop and start again with
// its data kept.
type Server struct {
	t      testing.TB
	dir    string
	client *clientv3.Client
	// address is the client listener's host:port, the same in every run.
	address string
	etcd    *embed.Etcd // nil while stopped
}

// StartServer starts an etcd of one member that ends with the test.
func StartServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, dir: filepath.Join(t.TempDir(), "etcd"), address: "127.0.0.1:0"}
	t.Cleanup(s.Stop)
	s.Start()
	s.client = s.NewClient()
	return s
}

// Client returns the server's first client.
func (s *Server) Client() *clientv3.Client { return s.client }

// URL is the address of the server's clients, such as http://127.0.0.1:41327.
func (s *Server) URL() string { return "http://" + s.address }

// NewClient returns another client, closed when the test ends.
func (s *Server) NewClient() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            []string{s.URL()},
		DialTimeout:          3 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.NewNop(),
	})
	if err != nil {
		s.t.Fatalf("connect etcd: %v", err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// Start starts a stopped server again, on the same address and data, and
// waits until it serves.
func (s *Server) Start() {
	s.t.Helper()
	if s.etcd != nil {
		return
	}
	e, err := embed.StartEtcd(s.config())
	if err != nil {
		s.t.Fatalf("start etcd: %v", err)
	}
	s.etcd = e
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		s.t.Fatalf("start etcd: %v", err)
	case <-time.After(30 * time.Second):
		s.t.Fatal("start etcd: not ready after 30 s")
	}
	s.address = e.Clients[0].Addr().String()
}

// Stop stops the server; calls of its clients fail until [Server.Start].
func (s *Server) Stop() {
	if s.etcd == nil {
		return
	}
	s.etcd.Close()
	s.etcd = nil
}

func (s *Server) config() *embed.Config {
	client, peer := parse("http://"+s.address), parse("http://127.0.0.1:0")
	c := embed.NewConfig()
	c.Name = "test"
	c.Dir = s.dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = fmt.Sprintf("%s=%s", c.Name, peer.String())
	// One member elects itself: there is nobody to wait for.
	c.TickMs, c.ElectionMs = 10, 100
	// Tests lose nothing when the machine does.
	c.UnsafeNoFsync = true
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	return c
}

func parse(s string) url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err) // Only addresses made above come here.
	}
	return *u
}
