package controller

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	"gotest.tools/v3/assert"
)

// home makes a controller's two directories on loopback, with real
// certificates.
func home(t *testing.T) (*controllerconfig.Config, Options) {
	t.Helper()
	a, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	return homeUnder(t, a, "c1")
}

// homeUnder makes those of one of several controllers.
func homeUnder(t *testing.T, a *ca.Authority, name string) (*controllerconfig.Config, Options) {
	t.Helper()
	o := Options{DataDir: t.TempDir(), ConfigDir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	write := func(name string, data []byte) {
		assert.NilError(t, os.WriteFile(filepath.Join(o.ConfigDir, name), data, 0o600))
	}
	write(ca.CertificateFile, a.Certificate())
	for _, c := range []struct {
		cert, key string
		issue     func([]byte) ([]byte, error)
	}{
		{controllerconfig.CertFile, controllerconfig.KeyFile, func(csr []byte) ([]byte, error) {
			return a.IssueController(csr, []string{"127.0.0.1"})
		}},
		{controllerconfig.RootCertFile, controllerconfig.RootKeyFile, a.IssueRoot},
	} {
		key, csr, err := ca.NewKey()
		assert.NilError(t, err)
		cert, err := c.issue(csr)
		assert.NilError(t, err)
		write(c.cert, cert)
		write(c.key, key)
	}
	return &controllerconfig.Config{Fleet: "f", Name: name, Advertise: "127.0.0.1", EtcdPort: port(t), EtcdPeerPort: port(t)}, o
}

func port(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// serve starts the member, calls f, and stops the member to its end.
func serve(t *testing.T, cfg *controllerconfig.Config, o Options, f func(context.Context, *store.Store)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	assert.NilError(t, prepareEtcd(ctx, cfg, o))
	m, err := startMember(ctx, cfg, o, memberMode{})
	assert.NilError(t, err)
	defer func() { m.client.Close(); m.server.Close() }()
	assert.NilError(t, enableAuth(ctx, m.client))
	f(ctx, store.New(m.client, "f"))
}

func TestARestoredMemberMarksEveryHost(t *testing.T) {
	cfg, o := home(t)
	snapshot := filepath.Join(o.DataDir, controllerconfig.SnapshotFile)
	var cluster uint64
	var before int64
	serve(t, cfg, o, func(ctx context.Context, s *store.Store) {
		for _, key := range []string{s.Keys.HostSpec("h1"), s.Keys.HostSpec("h2"), s.Keys.HostFacts("h1"), s.Keys.Controller("old")} {
			_, err := s.Txn().Put(key, struct{}{}).Commit(ctx)
			assert.NilError(t, err)
		}
		r, err := s.Client().Get(ctx, s.Keys.Schema())
		assert.NilError(t, err)
		cluster, before = r.Header.ClusterId, r.Header.Revision
		in, err := s.Client().Snapshot(ctx)
		assert.NilError(t, err)
		out, err := os.Create(snapshot)
		assert.NilError(t, err)
		_, err = io.Copy(out, in)
		assert.NilError(t, errors.Join(err, in.Close(), out.Close()))
		_, err = s.Txn().Put(s.Keys.HostSpec("later"), struct{}{}).Commit(ctx)
		assert.NilError(t, err)
	})

	// A wiped member never begins anew.
	assert.NilError(t, os.RemoveAll(etcdDir(o)))
	_, err := startMember(t.Context(), cfg, o, memberMode{})
	assert.ErrorContains(t, err, "never begun anew")

	order := func(name string) {
		b, err := json.Marshal(controllerconfig.Restore{ID: "r1", At: time.Unix(2, 0)})
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(o.DataDir, name), b, 0o600))
	}
	check := func(ctx context.Context, s *store.Store) {
		for _, id := range []string{"h1", "h2"} {
			it, err := store.Get[record.Restored](ctx, s, s.Keys.HostRestored(id))
			assert.NilError(t, err)
			assert.Equal(t, it.Value.ID, "r1")
		}
		_, err := store.Get[struct{}](ctx, s, s.Keys.Controller("old"))
		assert.ErrorIs(t, err, store.ErrNotFound)
		for _, f := range []string{controllerconfig.RestoreFile, controllerconfig.RecoverFile, controllerconfig.SnapshotFile} {
			_, err := os.Stat(filepath.Join(o.DataDir, f))
			assert.ErrorIs(t, err, fs.ErrNotExist)
		}
	}
	order(controllerconfig.RestoreFile)
	// An attempt before was interrupted in the middle of writing.
	assert.NilError(t, os.MkdirAll(filepath.Join(etcdDir(o)+".new", "member"), 0o700))
	serve(t, cfg, o, func(ctx context.Context, s *store.Store) {
		check(ctx, s)
		_, err := store.Get[struct{}](ctx, s, s.Keys.HostSpec("later"))
		assert.ErrorIs(t, err, store.ErrNotFound)
		r, err := s.Client().Get(ctx, s.Keys.Schema())
		assert.NilError(t, err)
		assert.Assert(t, r.Header.ClusterId != cluster, "another cluster, so that plugins notice")
		assert.Assert(t, r.Header.Revision > before+revisionBump/2, "no revision comes again")
		for _, key := range []string{s.Keys.HostRestored("h1"), s.Keys.HostRestored("h2")} {
			_, err := s.Txn().Delete(key).Put(s.Keys.Controller("old"), struct{}{}).Commit(ctx)
			assert.NilError(t, err)
		}
	})
	// Its data is kept when it goes on alone, and the hosts are told again.
	order(controllerconfig.RecoverFile)
	serve(t, cfg, o, check)
}

func TestARecoveryNeedsData(t *testing.T) {
	cfg, o := home(t)
	assert.NilError(t, os.WriteFile(filepath.Join(o.DataDir, controllerconfig.RecoverFile), []byte(`{"id":"r"}`), 0o600))
	assert.ErrorContains(t, prepareEtcd(t.Context(), cfg, o), "no data to go on with")
}
