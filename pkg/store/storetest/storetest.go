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
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"clocker.io/clocker/pkg/store"
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
	// name, peer and cluster are the member's name, its address for other
	// members and all members as etcd's --initial-cluster has them; empty for
	// an etcd of one member.
	name, peer, cluster string
	etcd                *embed.Etcd // nil while stopped
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
	return newClient(s.t, s.URL())
}

func newClient(t testing.TB, urls ...string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            urls,
		DialTimeout:          3 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions:          []grpc.DialOption{store.Redial()},
	})
	if err != nil {
		t.Fatalf("connect etcd: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Start starts a stopped server again, on the same address and data, and
// waits until it serves.
func (s *Server) Start() {
	s.t.Helper()
	if s.etcd != nil {
		return
	}
	s.Restart()
	s.Ready()
}

// Restart starts a stopped server and does not wait until it serves, as one
// of several cannot alone.
func (s *Server) Restart() {
	s.t.Helper()
	e, err := embed.StartEtcd(s.config())
	if err != nil {
		s.t.Fatalf("start etcd: %v", err)
	}
	s.etcd = e
	s.address = e.Clients[0].Addr().String()
}

// Ready waits until the server serves.
func (s *Server) Ready() {
	s.t.Helper()
	select {
	case <-s.etcd.Server.ReadyNotify():
	case err := <-s.etcd.Err():
		s.t.Fatalf("start etcd: %v", err)
	case <-time.After(30 * time.Second):
		s.t.Fatal("start etcd: not ready after 30 s")
	}
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
	if s.cluster != "" {
		c.Name, peer = s.name, parse(s.peer)
	}
	c.Dir = s.dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.InitialCluster = fmt.Sprintf("%s=%s", c.Name, peer.String())
	// One member elects itself: there is nobody to wait for.
	c.TickMs, c.ElectionMs = 10, 100
	if s.cluster != "" {
		c.InitialCluster = s.cluster
		c.TickMs, c.ElectionMs = 50, 500
	}
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

// Save keeps what a stopped server has stored, to be put back by what it
// returns: an etcd restored from an old copy.
func (s *Server) Save() (restore func()) {
	s.t.Helper()
	kept := filepath.Join(s.t.TempDir(), "saved")
	if err := os.CopyFS(kept, os.DirFS(s.dir)); err != nil {
		s.t.Fatalf("save etcd: %v", err)
	}
	return func() {
		s.t.Helper()
		if err := os.RemoveAll(s.dir); err != nil {
			s.t.Fatalf("restore etcd: %v", err)
		}
		if err := os.CopyFS(s.dir, os.DirFS(kept)); err != nil {
			s.t.Fatalf("restore etcd: %v", err)
		}
	}
}
