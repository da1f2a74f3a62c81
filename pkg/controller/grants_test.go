package controller

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"clocker.io/clocker/ipam/registry"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
)

// secured is a controller with an etcd of its own that lets in who shows a
// certificate of the fleet, as in a real fleet.
type secured struct {
	*Controller
	t               *testing.T
	config, data    string
	api, etcd, peer int
}

func newSecured(t *testing.T) *secured {
	t.Helper()
	s := &secured{t: t, config: t.TempDir(), data: t.TempDir(), api: freePort(t), etcd: freePort(t), peer: freePort(t)}
	authority, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	sealed, err := authority.Seal()
	assert.NilError(t, err)
	assert.NilError(t, sealed.Save(s.config, s.data))
	cfg := controllerconfig.Config{
		Fleet: "f", Name: "c1", Advertise: "127.0.0.1", APIPort: s.api, EtcdPort: s.etcd, EtcdPeerPort: s.peer,
		SANs: []string{"127.0.0.1", "localhost"}, CreatedAt: time.Now().UTC(),
	}
	text, err := json.Marshal(cfg)
	assert.NilError(t, err)
	s.write(controllerconfig.File, text)
	for _, f := range []struct {
		cert, key string
		issue     func([]byte) ([]byte, error)
	}{
		{controllerconfig.CertFile, controllerconfig.KeyFile, func(csr []byte) ([]byte, error) { return authority.IssueController(csr, cfg.SANs) }},
		{controllerconfig.RootCertFile, controllerconfig.RootKeyFile, authority.IssueRoot},
	} {
		key, csr, err := ca.NewKey()
		assert.NilError(t, err)
		cert, err := f.issue(csr)
		assert.NilError(t, err)
		s.write(f.key, key)
		s.write(f.cert, cert)
	}
	c, stop, err := open(t.Context(), Options{ConfigDir: s.config, DataDir: s.data, Log: slog.New(slog.DiscardHandler)})
	assert.NilError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx, "") }()
	t.Cleanup(func() { cancel(); <-ended; stop() })
	s.Controller = c
	c.awaitLead(t)
	return s
}

func (s *secured) write(name string, data []byte) {
	s.t.Helper()
	assert.NilError(s.t, os.WriteFile(filepath.Join(s.config, name), data, 0o600))
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// host adds a host and returns what whoever has its certificate can do with.
func (s *secured) host(id string) (*tls.Config, *clientv3.Client) {
	s.t.Helper()
	assert.NilError(s.t, s.grantHost(s.t.Context(), id))
	_, err := s.store.Txn().Put(s.store.Keys.HostSpec(id), record.Host{ID: id, Name: id}).Commit(s.t.Context())
	assert.NilError(s.t, err)
	key, csr, err := ca.NewKey()
	assert.NilError(s.t, err)
	cert, err := s.authority.IssueHost(csr, id, nil)
	assert.NilError(s.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	assert.NilError(s.t, err)
	cfg := &tls.Config{RootCAs: s.authority.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
	c, err := dialEtcd(s.Controller.etcd.urls, cfg)
	assert.NilError(s.t, err)
	s.t.Cleanup(func() { _ = c.Close() })
	return cfg, c
}

// TestStolenHostCertificate: whoever has a host's certificate can do what that
// host must do, and nothing beyond.
func TestStolenHostCertificate(t *testing.T) {
	s := newSecured(t)
	_, thief := s.host("h1")
	s.host("h2")
	ctx, k := t.Context(), s.store.Keys
	for _, key := range []string{
		k.HostSpec("h2"), k.HostFacts("h2"), k.HostSpec("h1"), k.HostMembership("h1"), k.HostHealth("h1"),
		k.Assignment("h2", "t"), k.Assignment("h1", "t"), k.Observed("h2", "t"),
		k.Name("h2", "t"), k.Underlay("h2"), k.Live("h2"),
		k.Service("n", "10.0.0.1"), k.Published("tcp", 80), k.Attached("n", "h1"), k.Rule("r"), k.Pool("p"),
		k.AppCurrent("shop"), k.ReleasePart("shop", 1, 0), k.User("mallory"), k.Token("t"), k.AuditEntry("a"), k.Authority(),
		k.Controller("c1"), k.Provider("p"), k.Machine("m"), k.PlacementPolicy(), k.Schema(), k.Term(), k.Election() + "/x", "/elsewhere",
	} {
		_, err := thief.Put(ctx, key, "{}")
		assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied, "write %s", key)
		_, err = thief.Delete(ctx, key)
		assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied, "delete %s", key)
	}
	for _, key := range []string{
		k.HostSpec("h2"), k.HostMembership("h2"), k.Assignment("h2", "t"), k.Observed("h2", "t"), k.AppCurrent("shop"), k.ReleasePart("shop", 1, 0),
		k.User("tester"), k.Token("t"), k.AuditEntry("a"), k.Authority(), k.Provider("p"), k.Machine("m"), k.Event("e"),
	} {
		_, err := thief.Get(ctx, key)
		assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied, "read %s", key)
	}
	_, err := thief.Get(ctx, k.Prefix(), clientv3.WithPrefix())
	assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
	_, err = thief.UserList(ctx)
	assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
	_, err = thief.MemberAdd(ctx, []string{"https://192.0.2.1:7482"})
	assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
	_, err = thief.AuthDisable(ctx)
	assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied)
	_, err = thief.Snapshot(ctx)
	if err == nil {
		r, _ := thief.Snapshot(ctx)
		_, err = r.Read(make([]byte, 1))
		_ = r.Close()
	}
	assert.ErrorContains(t, err, "permission denied")

	// What it must do, it can.
	for _, key := range []string{k.HostFacts("h1"), k.HostUsage("h1"), k.HostLease("h1"), k.Observed("h1", "t"), k.Name("h1", "t"), k.Underlay("h1"), k.Live("h1"), k.Event("e")} {
		_, err := thief.Put(ctx, key, "{}")
		assert.NilError(t, err, "write %s", key)
	}
	for _, key := range []string{k.Hosts() + "h1/", k.HostAssignments("h1"), k.Net(), k.Names(), k.Services()} {
		_, err := thief.Get(ctx, key, clientv3.WithPrefix())
		assert.NilError(t, err, "read %s", key)
	}
	st := store.New(thief, "f")
	n, err := registry.Create(ctx, st, time.Now(), registry.Request{Name: "byhand", UsedBy: "h1", ByHand: true})
	assert.NilError(t, err)
	assert.NilError(t, registry.Delete(ctx, st, n.ID))
}

// TestGrantsOfOlderProgramsAreNarrowed: a fleet that was made with wider
// permissions has the narrow ones once a controller of this program leads.
func TestGrantsOfOlderProgramsAreNarrowed(t *testing.T) {
	s := newSecured(t)
	_, thief := s.host("h1")
	ctx, k := t.Context(), s.store.Keys
	for _, p := range []string{k.Hosts() + "h1/", k.Net(), k.Events()} {
		_, err := s.Controller.etcd.client.RoleGrantPermission(ctx, ca.HostCommonName("h1"), p, clientv3.GetPrefixRangeEnd(p), clientv3.PermissionType(clientv3.PermReadWrite))
		assert.NilError(t, err)
	}
	_, err := thief.Put(ctx, k.Rule("r"), "{}")
	assert.NilError(t, err)
	await(t, func() bool { return s.KnownHost(ctx, "h1") == nil })
	s.grantHosts(ctx)
	for _, key := range []string{k.Rule("r"), k.HostSpec("h1"), k.Name("h2", "t")} {
		_, err = thief.Put(ctx, key, "{}")
		assert.ErrorIs(t, err, rpctypes.ErrPermissionDenied, key)
	}
	_, err = thief.Put(ctx, k.HostFacts("h1"), "{}")
	assert.NilError(t, err)
	role, err := s.Controller.etcd.client.RoleGet(ctx, ca.HostCommonName("h1"))
	assert.NilError(t, err)
	assert.Equal(t, len(role.Perm), len(hostGrants(k, "h1")))
}

// TestHostUsesNewCertificatesWithoutRestart: a client of etcd that is refused
// comes in with the certificate that is put into the host's files meanwhile, and
// so does the API's own side.
func TestHostUsesNewCertificatesWithoutRestart(t *testing.T) {
	s := newSecured(t)
	s.host("h1")
	stranger, err := ca.Create("other", time.Now)
	assert.NilError(t, err)
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	bad, err := stranger.IssueHost(csr, "h1", nil)
	assert.NilError(t, err)
	good, err := s.authority.IssueHost(csr, "h1", nil)
	assert.NilError(t, err)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca.pem": s.authority.Bundle(), "cert.pem": bad, "key.pem": key} {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	cfg := &hostconfig.Config{Fleet: "f", HostID: "h1", Etcd: s.Controller.etcd.urls, CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem", Dir: dir}
	assert.NilError(t, cfg.Save())
	cl, err := cfg.EtcdClient()
	assert.NilError(t, err)
	defer func() { _ = cl.Close() }()
	ask := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := cl.Get(ctx, s.store.Keys.HostSpec("h1"))
		return err
	}
	assert.Assert(t, ask() != nil)
	assert.NilError(t, cfg.SaveIdentity(good, key))
	await(t, func() bool { return ask() == nil })

	// The API shows the certificate that is in its files by now.
	pair, err := tls.X509KeyPair(good, key)
	assert.NilError(t, err)
	shown := func() string {
		c, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.api)), &tls.Config{
			RootCAs: s.authority.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
		})
		assert.NilError(t, err)
		defer func() { _ = c.Close() }()
		assert.Equal(t, len(c.ConnectionState().PeerCertificates), 2, "the authority comes along")
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
	}
	first := shown()
	key, csr, err = ca.NewKey()
	assert.NilError(t, err)
	next, err := s.authority.IssueController(csr, s.Controller.config.SANs)
	assert.NilError(t, err)
	s.write(controllerconfig.KeyFile, key)
	assert.Equal(t, shown(), first, "half a pair is not used")
	s.write(controllerconfig.CertFile, next)
	await(t, func() bool { return shown() != first })
}
