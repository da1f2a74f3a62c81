package hostconfig

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"clocker.io/clocker/pkg/store"
)

// Now reads host.json again: the agent brings it, and the files that it names,
// to what the fleet is by now. What cannot be read leaves c as it is.
func (c *Config) Now() *Config {
	next, err := Load(c.Dir)
	if err != nil || next.HostID != c.HostID || next.Fleet != c.Fleet {
		return c
	}
	return next
}

// EtcdClient connects to the fleet's etcd. It does not wait for an answer:
// calls fail until etcd can be reached, and work from then on. Each connection
// is made with the certificates that are there at that moment, and to the
// members that host.json names by then.
func (c *Config) EtcdClient() (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Endpoints:            c.Etcd,
		DialTimeout:          3 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.NewNop(),
		DialOptions:          []grpc.DialOption{store.Redial()},
	}
	if c.overTLS() {
		t, err := c.etcdTLS()
		if err != nil {
			return nil, err
		}
		cfg.TLS = t
		cfg.DialOptions = append(cfg.DialOptions, grpc.WithTransportCredentials(fresh{c}))
	}
	cl, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect etcd: %w", err)
	}
	if c.Dir != "" {
		go c.followEndpoints(cl)
	}
	return cl, nil
}

func (c *Config) overTLS() bool { return len(c.Etcd) > 0 && strings.HasPrefix(c.Etcd[0], "https") }

func (c *Config) etcdTLS() (*tls.Config, error) {
	if c.EtcdCAFile == "" {
		return c.TLS()
	}
	return c.tls(c.EtcdCAFile, c.EtcdCertFile, c.EtcdKeyFile)
}

// endpointsEvery is how often a client looks whether etcd has other members.
const endpointsEvery = 2 * time.Second

// followEndpoints keeps a client with the members that host.json names, until
// the client is closed.
func (c *Config) followEndpoints(cl *clientv3.Client) {
	t := time.NewTicker(endpointsEvery)
	defer t.Stop()
	for {
		select {
		case <-cl.Ctx().Done():
			return
		case <-t.C:
		}
		if now := c.Now(); len(now.Etcd) > 0 && now.overTLS() == c.overTLS() && !slices.Equal(now.Etcd, cl.Endpoints()) {
			cl.SetEndpoints(now.Etcd...)
		}
	}
}

// fresh shakes hands with the certificates that are there at that moment.
type fresh struct{ c *Config }

var _ credentials.TransportCredentials = fresh{}

func (f fresh) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, err := f.c.Now().etcdTLS()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(t).ClientHandshake(ctx, authority, raw)
}

func (f fresh) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("a host serves no gRPC")
}

func (f fresh) Info() credentials.ProtocolInfo { return credentials.NewTLS(&tls.Config{}).Info() } //nolint:gosec // names the protocol only

func (f fresh) Clone() credentials.TransportCredentials { return f }

func (f fresh) OverrideServerName(string) error { return nil }
