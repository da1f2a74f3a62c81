package storetest

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Cluster is an etcd of several members, each of which a test may stop and
// start again with its data kept.
type Cluster struct {
	Members []*Server
	client  *clientv3.Client
}

// StartCluster starts an etcd of n members that ends with the test.
func StartCluster(t testing.TB, n int) *Cluster {
	t.Helper()
	c, dir := &Cluster{}, t.TempDir()
	var all, urls []string
	for i := range n {
		s := &Server{t: t, name: fmt.Sprintf("m%d", i), dir: filepath.Join(dir, fmt.Sprint(i)), peer: "http://" + freePort(t), address: "127.0.0.1:0"}
		all = append(all, s.name+"="+s.peer)
		c.Members = append(c.Members, s)
	}
	for _, s := range c.Members {
		s.cluster = strings.Join(all, ",")
		t.Cleanup(s.Stop)
		s.Restart()
		urls = append(urls, s.URL())
	}
	for _, s := range c.Members {
		s.Ready()
	}
	c.client = newClient(t, urls...)
	return c
}

// Client returns a client of all members.
func (c *Cluster) Client() *clientv3.Client { return c.client }

// freePort is an address of this machine that nothing listens on: members must
// know each other's before they start.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("find a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().String()
}
