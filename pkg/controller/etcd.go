package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
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

// embedded is the kind of etcd that runs in this process.
const embedded = "embedded"

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
	// member is the id of the embedded etcd's member, ended is closed when it
	// ends; 0 and nil for another etcd.
	member uint64
	ended  <-chan struct{}
}

func startEtcd(ctx context.Context, cfg *controllerconfig.Config, o Options) (etcdAccess, func(), error) {
	if len(cfg.Etcd) > 0 {
		return externalEtcd(ctx, cfg, o)
	}
	return embeddedEtcd(ctx, cfg, o)
}

// embeddedEtcd runs a member of etcd in this process: what a restore or a
// recovery has left to do is done first. Clients must show a certificate of
// the fleet; its CN is their etcd user.
func embeddedEtcd(ctx context.Context, cfg *controllerconfig.Config, o Options) (etcdAccess, func(), error) {
	var none etcdAccess
	if err := prepareEtcd(ctx, cfg, o); err != nil {
		return none, nil, err
	}
	m, err := startMember(ctx, cfg, o, memberMode{})
	if err != nil {
		return none, nil, err
	}
	if err := m.awaitVote(ctx, o.Log); err != nil {
		m.close()
		return none, nil, err
	}
	if err := enableAuth(ctx, m.client); err != nil {
		m.close()
		return none, nil, err
	}
	advertised := etcdURL(cfg.Advertise, cfg.EtcdPort)
	return etcdAccess{
		client: m.client, kind: embedded, urls: []string{advertised.String()}, auth: true,
		member: uint64(m.server.Server.MemberID()), ended: m.server.Server.StopNotify(),
	}, m.close, nil
}

// member is a running member of etcd with a superuser's client.
type member struct {
	server *embed.Etcd
	client *clientv3.Client
}

func (m *member) close() {
	if m.client != nil {
		m.client.Close() //nolint:errcheck // it ends here
	}
	closeEtcd(m.server)
}

// memberMode says how a member is started.
type memberMode struct {
	// private lets nobody but this process in.
	private bool
	// alone drops every other member first (etcd's --force-new-cluster).
	alone bool
}

func etcdURL(host string, port int) url.URL {
	return url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port))}
}

// etcdDir is where the member's data is.
func etcdDir(o Options) string { return filepath.Join(o.DataDir, "etcd") }

func memberConfig(cfg *controllerconfig.Config, o Options, mode memberMode) *embed.Config {
	config := func(name string) string { return filepath.Join(o.ConfigDir, name) }
	files := transport.TLSInfo{
		CertFile:       config(controllerconfig.CertFile),
		KeyFile:        config(controllerconfig.KeyFile),
		TrustedCAFile:  config(ca.CertificateFile),
		ClientCertAuth: true,
	}
	listen := "0.0.0.0"
	if mode.private {
		listen = "127.0.0.1"
	}
	e := embed.NewConfig()
	e.Name = cfg.Name
	e.Dir = etcdDir(o)
	e.ListenClientUrls = []url.URL{etcdURL(listen, cfg.EtcdPort)}
	e.AdvertiseClientUrls = []url.URL{etcdURL(cfg.Advertise, cfg.EtcdPort)}
	e.ListenPeerUrls = []url.URL{etcdURL(listen, cfg.EtcdPeerPort)}
	e.AdvertisePeerUrls = []url.URL{etcdURL(cfg.Advertise, cfg.EtcdPeerPort)}
	e.InitialCluster = e.InitialClusterFromName(e.Name)
	if cfg.Cluster != "" {
		e.InitialCluster, e.ClusterState = cfg.Cluster, embed.ClusterStateFlagExisting
	}
	e.InitialClusterToken = clusterToken(cfg.Fleet)
	e.ForceNewCluster = mode.alone
	e.ClientTLSInfo, e.PeerTLSInfo = files, files
	e.AutoCompactionMode, e.AutoCompactionRetention = "periodic", "1h"
	e.QuotaBackendBytes = 2 << 30
	e.LogLevel = "error"
	e.LogOutputs = []string{"stderr"}
	return e
}

func clusterToken(fleet string) string { return "clocker-" + fleet }

// slowStart is when a member that does not serve yet says what it waits for.
const slowStart = 10 * time.Second

// startMember starts the member and waits until it serves, for ever: one of
// several needs a majority for that.
func startMember(ctx context.Context, cfg *controllerconfig.Config, o Options, mode memberMode) (*member, error) {
	if err := checkData(o); err != nil {
		return nil, err
	}
	server, err := embed.StartEtcd(memberConfig(cfg, o, mode))
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	m := &member{server: server}
	slow := time.NewTicker(slowStart)
	defer slow.Stop()
	for ready := false; !ready; {
		select {
		case <-server.Server.ReadyNotify():
			ready = true
		case err := <-server.Err():
			m.close()
			return nil, fmt.Errorf("start etcd: %w", err)
		case <-server.Server.StopNotify():
			m.close()
			return nil, errMemberEnded
		case <-ctx.Done():
			m.close()
			return nil, ctx.Err()
		case <-slow.C:
			o.Log.Warn("etcd waits for a majority of its members: start the other controllers; if they are lost, docker clocker controller recover goes on with this one alone")
		}
	}
	if err := noteMember(o, uint64(server.Server.MemberID())); err != nil {
		m.close()
		return nil, err
	}
	root, err := controllerconfig.RootTLS(o.ConfigDir)
	if err == nil {
		local := etcdURL("127.0.0.1", cfg.EtcdPort)
		m.client, err = dialEtcd([]string{local.String()}, root)
	}
	if err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// errMemberEnded means that etcd has ended by itself, as it does when its
// member was removed.
var errMemberEnded = errors.New("etcd has ended: was this controller removed from the fleet (docker clocker controller ls)? Then remove its container, too")

// awaitVote waits until a member that has joined as a learner votes: before
// that it answers nothing. The leading controller promotes it.
func (m *member) awaitVote(ctx context.Context, log *slog.Logger) error {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for said := false; m.server.Server.IsLearner(); {
		if !said {
			said = true
			log.Info("etcd catches up; the leading controller lets it vote then")
		}
		select {
		case <-t.C:
		case <-m.server.Server.StopNotify():
			return errMemberEnded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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
