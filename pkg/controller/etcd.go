package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/store"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// etcdAccess is how this controller, and the hosts, reach etcd.
type etcdAccess struct {
	client *clientv3.Client
	// kind is "embedded" or "external".
	kind string
	// urls are what hosts connect to.
	urls []string
	// auth says that hosts are etcd users of their own.
	auth bool
	// hostCA, hostCert and hostKey are PEM for hosts, when the fleet's own
	// certificates do not serve.
	hostCA, hostCert, hostKey string
}

func startEtcd(ctx context.Context, cfg *controllerconfig.Config, o Options) (etcdAccess, func(), error) {
	if len(cfg.Etcd) > 0 {
		return externalEtcd(ctx, cfg, o)
	}
	return embeddedEtcd(ctx, cfg, o)
}

// embeddedEtcd starts an etcd of one member in this process. Clients must
// show a certificate of the fleet; its CN is their etcd user.
func embeddedEtcd(ctx context.Context, cfg *controllerconfig.Config, o Options) (etcdAccess, func(), error) {
	var none etcdAccess
	config := func(name string) string { return filepath.Join(o.ConfigDir, name) }
	files := transport.TLSInfo{
		CertFile:       config(controllerconfig.CertFile),
		KeyFile:        config(controllerconfig.KeyFile),
		TrustedCAFile:  config(ca.CertificateFile),
		ClientCertAuth: true,
	}
	at := func(host string, port int) url.URL {
		return url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port))}
	}
	e := embed.NewConfig()
	e.Name = cfg.Name
	e.Dir = filepath.Join(o.DataDir, "etcd")
	e.ListenClientUrls = []url.URL{at("0.0.0.0", cfg.EtcdPort)}
	e.AdvertiseClientUrls = []url.URL{at(cfg.Advertise, cfg.EtcdPort)}
	e.ListenPeerUrls = []url.URL{at("0.0.0.0", cfg.EtcdPeerPort)}
	e.AdvertisePeerUrls = []url.URL{at(cfg.Advertise, cfg.EtcdPeerPort)}
	e.InitialCluster = e.InitialClusterFromName(e.Name)
	e.InitialClusterToken = "clocker-" + cfg.Fleet
	e.ClientTLSInfo, e.PeerTLSInfo = files, files
	e.AutoCompactionMode, e.AutoCompactionRetention = "periodic", "1h"
	e.QuotaBackendBytes = 2 << 30
	e.LogLevel = "error"
	e.LogOutputs = []string{"stderr"}
	server, err := embed.StartEtcd(e)
	if err != nil {
		return none, nil, fmt.Errorf("start etcd: %w", err)
	}
	stop := func() { closeEtcd(server) }
	select {
	case <-server.Server.ReadyNotify():
	case err := <-server.Err():
		stop()
		return none, nil, fmt.Errorf("start etcd: %w", err)
	case <-ctx.Done():
		stop()
		return none, nil, ctx.Err()
	}
	root, err := controllerconfig.RootTLS(o.ConfigDir)
	if err != nil {
		stop()
		return none, nil, err
	}
	local := at("127.0.0.1", cfg.EtcdPort)
	client, err := dialEtcd([]string{local.String()}, root)
	if err != nil {
		stop()
		return none, nil, err
	}
	stop = func() { client.Close(); closeEtcd(server) } //nolint:errcheck // it ends here
	if err := enableAuth(ctx, client); err != nil {
		stop()
		return none, nil, err
	}
	advertised := at(cfg.Advertise, cfg.EtcdPort)
	return etcdAccess{client: client, kind: "embedded", urls: []string{advertised.String()}, auth: true}, stop, nil
}

// closeTime is how long etcd may take to end in order.
const closeTime = time.Second

// closeEtcd ends the server. In order it would wait seconds for the watches
// of agents and plugins, which never end by themselves; whatever is committed
// is on disk, so a server that ends in the middle of that loses nothing.
func closeEtcd(server *embed.Etcd) {
	closed := make(chan struct{})
	go func() {
		server.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeTime):
	}
}

func dialEtcd(urls []string, t *tls.Config) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: urls, TLS: t, Logger: zap.NewNop(),
		DialTimeout: 5 * time.Second, DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		DialOptions: []grpc.DialOption{store.Redial()},
	})
	if err != nil {
		return nil, fmt.Errorf("connect etcd: %w", err)
	}
	return c, nil
}

// enableAuth makes the bearer of the root certificate etcd's superuser, and
// everybody else a user who may do nothing until granted. It is safe to
// repeat: each step tolerates that it has been done.
func enableAuth(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if s, err := c.AuthStatus(ctx); err == nil && s.Enabled {
		return nil
	}
	if _, err := c.UserAddWithOptions(ctx, ca.CommonNameRoot, "", &clientv3.UserAddOptions{NoPassword: true}); err != nil && !errors.Is(err, rpctypes.ErrUserAlreadyExist) {
		return fmt.Errorf("secure etcd: %w", err)
	}
	if _, err := c.RoleAdd(ctx, "root"); err != nil && !errors.Is(err, rpctypes.ErrRoleAlreadyExist) {
		return fmt.Errorf("secure etcd: %w", err)
	}
	if _, err := c.UserGrantRole(ctx, ca.CommonNameRoot, "root"); err != nil {
		return fmt.Errorf("secure etcd: %w", err)
	}
	if _, err := c.AuthEnable(ctx); err != nil {
		return fmt.Errorf("secure etcd: %w", err)
	}
	return nil
}

// externalEtcd reaches a cluster of the user's own. Hosts get the same
// credentials the controller was given: the cluster's users are not ours to
// manage.
func externalEtcd(ctx context.Context, cfg *controllerconfig.Config, o Options) (etcdAccess, func(), error) {
	a := etcdAccess{kind: "external", urls: cfg.Etcd}
	var t *tls.Config
	pick := func(option, name string) string {
		if option != "" {
			return option
		}
		return filepath.Join(o.ConfigDir, name)
	}
	if cfg.EtcdTLS || o.EtcdCA != "" {
		caFile := pick(o.EtcdCA, controllerconfig.EtcdCAFile)
		pool, err := controllerconfig.Pool(caFile)
		if err != nil {
			return a, nil, err
		}
		t = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if a.hostCA, err = readPEM(caFile); err != nil {
			return a, nil, err
		}
	}
	if cfg.EtcdClientCert || o.EtcdCert != "" {
		certFile, keyFile := pick(o.EtcdCert, controllerconfig.EtcdCertFile), pick(o.EtcdKey, controllerconfig.EtcdKeyFile)
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return a, nil, fmt.Errorf("read etcd certificate: %w", err)
		}
		if t == nil {
			t = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.Certificates = []tls.Certificate{pair}
		if a.hostCert, err = readPEM(certFile); err != nil {
			return a, nil, err
		}
		if a.hostKey, err = readPEM(keyFile); err != nil {
			return a, nil, err
		}
	}
	client, err := dialEtcd(cfg.Etcd, t)
	if err != nil {
		return a, nil, err
	}
	a.client = client
	checkCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := client.Get(checkCtx, "/clocker/"); err != nil {
		client.Close() //nolint:errcheck // the other error counts
		return a, nil, fmt.Errorf("reach etcd at %v: %w", cfg.Etcd, err)
	}
	return a, func() { client.Close() }, nil //nolint:errcheck // it ends here
}

func readPEM(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read etcd certificate: %w", err)
	}
	return string(b), nil
}
