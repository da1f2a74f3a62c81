package controller

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
	"gotest.tools/v3/assert"
)

func TestAChangeOfTheAuthorityWaitsForWhoMustComeAlong(t *testing.T) {
	want := sets{both: "new+old", to: "new"}
	ctl := func(name, started, files, serves string) standing {
		return standing{kind: "controller", name: name, well: true, held: held{Started: started, Files: files, Serves: serves, Root: serves}}
	}
	host := func(name, by string) standing { return standing{kind: "host", name: name, by: by} }
	away := func(s standing) standing { s.away = true; return s }
	ill := func(s standing) standing { s.well = false; return s }
	user := standing{kind: "user", name: "ann", by: "old"}
	for _, tc := range []struct {
		name  string
		r     rotation
		all   []standing
		stage string
		turn  string
		waits string
	}{
		{"the leader is last", rotation{Stage: stageTrust}, []standing{ctl("a", "old", "new+old", "old"), ctl("b", "old", "new+old", "old")}, "", "b", "controller b starts"},
		{"then the leader", rotation{Stage: stageTrust, Turn: "b"}, []standing{ctl("a", "old", "new+old", "old"), ctl("b", "new+old", "new+old", "old")}, "", "a", "controller a starts"},
		{"a turn is given once", rotation{Stage: stageTrust, Turn: "b"}, []standing{ctl("a", "old", "new+old", "old"), ctl("b", "old", "new+old", "old")}, "", "", "controller b starts"},
		{"none starts while another is down", rotation{Stage: stageTrust}, []standing{ctl("a", "old", "new+old", "old"), away(ctl("b", "old", "new+old", "old"))}, "", "", "controller b is down"},
		{"none starts while a member is not well", rotation{Stage: stageDrop}, []standing{ctl("a", "new+old", "new", "new"), ill(ctl("b", "new", "new", "new"))}, "", "", "not well"},
		{"files first", rotation{Stage: stageTrust}, []standing{ctl("a", "old", "old", "old")}, "", "", "not taken the authorities over"},
		{"all trust both", rotation{Stage: stageTrust}, []standing{ctl("a", "new+old", "new+old", "old"), host("h", "old")}, stageIssue, "", ""},
		{"a host lags", rotation{Stage: stageIssue}, []standing{host("h", "old"), host("i", "new")}, "", "", "host h has no new"},
		{"a host that is up is always waited for", rotation{Stage: stageIssue, Finish: true}, []standing{host("h", "old"), user}, "", "", "host h has no new"},
		{"a host that is away", rotation{Stage: stageIssue}, []standing{away(host("h", "old"))}, "", "", "host h is away"},
		{"without those who are away", rotation{Stage: stageIssue, Finish: true}, []standing{away(host("h", "old")), user}, stageServe, "", ""},
		{"a user lags", rotation{Stage: stageIssue}, []standing{host("h", "new"), user}, "", "", "user ann has not called"},
		{"controllers show the new one", rotation{Stage: stageServe}, []standing{ctl("a", "new+old", "new+old", "old"), host("h", "new")}, "", "", "controller a has no new"},
		{"a controller that is down is always waited for", rotation{Stage: stageServe, Finish: true}, []standing{away(ctl("a", "", "", ""))}, "", "", "controller a is down"},
		{"nobody lags", rotation{Stage: stageServe}, []standing{ctl("a", "new+old", "new+old", "new"), host("h", "new")}, stageDrop, "", ""},
		{"the old one goes", rotation{Stage: stageDrop}, []standing{ctl("a", "new+old", "new", "new")}, "", "a", "controller a starts"},
		{"one that was added from before starts again", rotation{Stage: stageIssue}, []standing{ctl("a", "new+old", "new+old", "old"), ctl("b", "old", "new+old", "old"), host("h", "old")}, "", "b", "controller b starts"},
		{"even when it is not well for that", rotation{Stage: stageServe}, []standing{ctl("a", "new+old", "new+old", "new"), ill(ctl("b", "old", "new+old", "old"))}, "", "b", "controller b starts"},
		{"taken back, it does not", rotation{Stage: stageServe, Back: true}, []standing{ctl("a", "old", "new+old", "new")}, stageDrop, "", ""},
		{"one that is away holds it up", rotation{Stage: stageServe}, []standing{ctl("a", "old", "new+old", "new"), away(ctl("b", "", "", ""))}, "", "", "controller b is down"},
		{"one that was restored from before the end starts again", rotation{Stage: stageDone}, []standing{ctl("a", "new+old", "new", "new")}, "", "a", ""},
		{"after the end there is nothing to do", rotation{Stage: stageDone}, []standing{ctl("a", "new", "new", "new")}, "", "", ""},
		{"it is over", rotation{Stage: stageDrop}, []standing{ctl("a", "new", "new", "new")}, stageDone, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := nextMove(tc.r, tc.all, want, "new", "a")
			assert.Equal(t, m.stage, tc.stage)
			assert.Equal(t, m.turn, tc.turn)
			assert.Assert(t, strings.Contains(strings.Join(m.waits, "; "), tc.waits), "%v", m.waits)
		})
	}
}

// alone is a controller with an etcd of its own on loopback, whose process a
// restart policy starts again.
type alone struct {
	o    Options
	cfg  *controllerconfig.Config
	old  *ca.Authority
	home string // of the user
	stop func()
	mu   sync.Mutex
	runs int // guarded by mu
}

func startAlone(t *testing.T) *alone {
	t.Helper()
	cfg, o := home(t)
	a := &alone{o: o, cfg: cfg, home: t.TempDir()}
	old, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	a.old = old
	sealed, err := old.Seal()
	assert.NilError(t, err)
	assert.NilError(t, sealed.Save(o.ConfigDir, o.DataDir))
	cfg.APIPort, cfg.SANs = port(t), []string{"127.0.0.1"}
	text, err := json.Marshal(cfg)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(o.ConfigDir, controllerconfig.File), text, 0o600))
	pair := func(cert, key string, issue func([]byte) ([]byte, error)) {
		k, csr, err := ca.NewKey()
		assert.NilError(t, err)
		c, err := issue(csr)
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(o.ConfigDir, cert), c, 0o600))
		assert.NilError(t, os.WriteFile(filepath.Join(o.ConfigDir, key), k, 0o600))
	}
	pair(controllerconfig.RootCertFile, controllerconfig.RootKeyFile, old.IssueRoot)
	pair(controllerconfig.CertFile, controllerconfig.KeyFile, func(csr []byte) ([]byte, error) { return old.IssueController(csr, cfg.SANs) })
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	cert, err := old.IssueUser(csr, "ann")
	assert.NilError(t, err)
	p := &fleet.Profile{Name: "f", Controllers: []string{fmt.Sprintf("https://127.0.0.1:%d", cfg.APIPort)}, User: "ann", CA: old.Certificate(), Cert: cert, Key: key}
	assert.NilError(t, p.Save(a.home))

	a.start(t)
	return a
}

func (a *alone) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			a.mu.Lock()
			a.runs++
			a.mu.Unlock()
			if err := Run(ctx, a.o); err != nil && !errors.Is(err, errAuthority) && ctx.Err() == nil {
				t.Log("controller ended:", err)
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		}
	})
	a.stop = func() { cancel(); running.Wait() }
	t.Cleanup(a.stop)
}

// count is how often the controller has started.
func (a *alone) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.runs
}

// as calls f as the user, as the command does: with the profile as it is by
// now, which is brought up to date after that.
func (a *alone) as(t *testing.T, f func(context.Context, *api.Client) error) error {
	t.Helper()
	p, err := fleet.Open(a.home, "f")
	assert.NilError(t, err)
	c, err := p.Client()
	assert.NilError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f(ctx, c); err != nil {
		return err
	}
	_, err = p.Refresh(ctx, a.home, c, time.Now())
	return err
}

func (a *alone) change(t *testing.T, action string) (api.CA, error) {
	t.Helper()
	var out api.CA
	err := a.as(t, func(ctx context.Context, c *api.Client) (err error) {
		out, err = c.ChangeCA(ctx, api.CARequest{Action: action})
		return err
	})
	return out, err
}

// reached waits until the change is at a stage.
func (a *alone) reached(t *testing.T, stage string) api.CA {
	t.Helper()
	var last api.CA
	await(t, func() bool {
		err := a.as(t, func(ctx context.Context, c *api.Client) (err error) {
			last, err = c.CA(ctx)
			return err
		})
		return err == nil && last.Stage == stage
	})
	return last
}

func (a *alone) begin(t *testing.T) {
	t.Helper()
	await(t, func() bool { _, err := a.change(t, api.CARotate); return err == nil })
}

// lets tries to reach etcd with a certificate, trusting whoever answers.
func (a *alone) lets(t *testing.T, pair tls.Certificate) error {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{fmt.Sprintf("https://127.0.0.1:%d", a.cfg.EtcdPort)}, DialTimeout: 3 * time.Second,
		TLS: &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}, //nolint:gosec // it is the client's certificate that is looked at
	})
	assert.NilError(t, err)
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = c.Get(ctx, store.NewKeys("f").Schema())
	return err
}

func rootPair(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, controllerconfig.RootCertFile), filepath.Join(dir, controllerconfig.RootKeyFile))
	assert.NilError(t, err)
	return pair
}

// A fleet with one controller, whose etcd reads its authorities only at the
// start, gets another authority: API and etcd refuse the old one then.
func TestTheAuthorityIsReplaced(t *testing.T) {
	a := startAlone(t)
	stale, err := fleet.Open(a.home, "f")
	assert.NilError(t, err)
	oldRoot := rootPair(t, a.o.ConfigDir)
	a.begin(t)
	await(t, func() bool { return a.lets(t, oldRoot) == nil })
	it := a.reached(t, "")
	assert.Equal(t, len(it.Authorities), 1)
	sum, err := ca.Fingerprint(a.old.Certificate())
	assert.NilError(t, err)
	assert.Assert(t, it.Authorities[0].Fingerprint != sum && it.Authorities[0].Signs && it.Authorities[0].Serves)

	now, err := ca.Load(a.o.ConfigDir, a.o.DataDir, nil)
	assert.NilError(t, err)
	assert.Equal(t, now.KeyID(), it.Authorities[0].ID)
	assert.Equal(t, string(now.Bundle()), string(now.Certificate()))
	assert.NilError(t, a.lets(t, rootPair(t, a.o.ConfigDir)))
	assert.Assert(t, a.lets(t, oldRoot) != nil, "etcd lets a certificate of the old authority in")
	pair, err := tls.X509KeyPair(stale.Cert, stale.Key)
	assert.NilError(t, err)
	c := api.NewClient(stale.Controllers, &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true}) //nolint:gosec // as above
	defer c.Close()
	_, err = c.Info(t.Context())
	assert.ErrorContains(t, err, "joins again with another token", "the API lets a certificate of the old authority in")
	late, err := stale.Client()
	assert.NilError(t, err)
	defer late.Close()
	_, err = late.Info(t.Context())
	assert.ErrorContains(t, err, "joins again with another token")

	// What the record holds is no key, and the next change begins from here.
	assert.Equal(t, a.count(), 3)
	a.begin(t)
	again := a.reached(t, "")
	assert.Assert(t, again.Authorities[0].ID != it.Authorities[0].ID)
}

// Taken back while hosts and users get certificates of the new authority, what
// was given out is replaced before the new one goes.
func TestAChangeOfTheAuthorityIsTakenBack(t *testing.T) {
	a := startAlone(t)
	_, err := a.change(t, api.CAAbort)
	for err != nil && !errors.Is(err, api.ErrConflict) {
		_, err = a.change(t, api.CAAbort)
	}
	assert.ErrorIs(t, err, api.ErrConflict)
	// Somebody who never calls holds the change up.
	root, err := controllerconfig.RootTLS(a.o.ConfigDir)
	assert.NilError(t, err)
	client, err := dialEtcd([]string{fmt.Sprintf("https://127.0.0.1:%d", a.cfg.EtcdPort)}, root)
	assert.NilError(t, err)
	defer func() { _ = client.Close() }()
	s := store.New(client, "f")
	_, err = s.Txn().Put(s.Keys.User("ben"), record.User{Name: "ben", Role: record.RoleRead, Until: time.Now().Add(time.Hour)}).Commit(t.Context())
	assert.NilError(t, err)
	a.begin(t)
	it := a.reached(t, stageIssue)
	await(t, func() bool {
		it = a.reached(t, stageIssue)
		return len(it.Waits) == 1 && strings.Contains(it.Waits[0], "user ben")
	})
	assert.Equal(t, len(it.Authorities), 2)

	_, err = a.change(t, api.CAAbort)
	assert.NilError(t, err)
	await(t, func() bool {
		it = a.reached(t, stageServe)
		return len(it.Waits) == 1 && strings.Contains(it.Waits[0], "user ben")
	})
	await(t, func() bool { _, err = a.change(t, api.CAFinish); return err == nil })
	it = a.reached(t, "")
	sum, err := ca.Fingerprint(a.old.Certificate())
	assert.NilError(t, err)
	assert.Equal(t, it.Authorities[0].Fingerprint, sum)
	assert.Equal(t, len(it.Authorities), 1)
}

// A controller that was made from files of a moment before the end of a change
// takes what is left of it away, and starts again to trust one authority only.
func TestWhatIsLeftOfAChangeIsTakenAway(t *testing.T) {
	a := startAlone(t)
	a.begin(t)
	a.reached(t, "")
	a.stop()
	now, err := ca.Load(a.o.ConfigDir, a.o.DataDir, nil)
	assert.NilError(t, err)
	identity, err := os.ReadFile(filepath.Join(a.o.ConfigDir, ca.IdentityFile))
	assert.NilError(t, err)
	both, err := ca.SealTo(identity, now, a.old)
	assert.NilError(t, err)
	assert.NilError(t, ca.Adopt(a.o.ConfigDir, a.o.DataDir, now.Trusting(a.old).Bundle(), both))
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	cert, err := a.old.IssueRoot(csr)
	assert.NilError(t, err)
	oldRoot, err := tls.X509KeyPair(cert, key)
	assert.NilError(t, err)

	a.start(t)
	it := a.reached(t, "")
	await(t, func() bool { return len(a.reached(t, "").Authorities) == 1 })
	await(t, func() bool { return a.lets(t, rootPair(t, a.o.ConfigDir)) == nil && a.lets(t, oldRoot) != nil })
	assert.Equal(t, it.Authorities[0].ID, now.KeyID())
	left, err := ca.Load(a.o.ConfigDir, a.o.DataDir, nil)
	assert.NilError(t, err)
	assert.Equal(t, string(left.Bundle()), string(now.Certificate()))
	a.begin(t) // the next one is possible
}

// A controller whose certificates have had most of their time shows others, to
// callers of its API, too, while it answers them.
func TestTheAPIShowsRenewedCertificates(t *testing.T) {
	a := startAlone(t)
	a.begin(t) // every controller and user has one of today then
	a.reached(t, "")
	now, err := ca.Load(a.o.ConfigDir, a.o.DataDir, func() time.Time { return time.Now().Add(-ca.ControllerLifetime * 3 / 4) })
	assert.NilError(t, err)
	runs := a.count()
	p, err := fleet.Open(a.home, "f")
	assert.NilError(t, err)
	mutual, err := p.TLS()
	assert.NilError(t, err)
	shown := func(port int, with *tls.Config) string {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), with)
		assert.NilError(t, err)
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
	}
	// It gets a certificate of long ago.
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	aged, err := now.IssueController(csr, a.cfg.SANs)
	assert.NilError(t, err)
	cert, err := ca.ParseCertificate(aged)
	assert.NilError(t, err)
	was := shown(a.cfg.APIPort, mutual)
	ctx, cancel := context.WithCancel(t.Context())
	answered, failed := make(chan int, 1), make(chan error, 1)
	go func() {
		n := 0
		for ctx.Err() == nil {
			c := api.NewClient(p.Controllers, mutual) // a new handshake each time
			if _, err := c.Info(ctx); err != nil && ctx.Err() == nil {
				failed <- err
				break
			}
			c.Close()
			n++
		}
		answered <- n
	}()
	assert.NilError(t, ca.SavePair(a.o.ConfigDir, controllerconfig.CertFile, controllerconfig.KeyFile, aged, key))
	for _, port := range []int{a.cfg.APIPort, a.cfg.EtcdPort} {
		await(t, func() bool {
			s := shown(port, mutual)
			return s != was && s != cert.SerialNumber.Text(16)
		})
	}
	cancel()
	n := <-answered
	select {
	case err := <-failed:
		t.Errorf("after %d calls: %v", n, err)
	default:
	}
	assert.Assert(t, n > 0)
	assert.Equal(t, a.count(), runs, "it has started again")
}

// Two thirds through its time, a controller makes itself certificates of the
// authority that it holds; etcd and the API show them without a restart.
func TestAControllerRenewsItself(t *testing.T) {
	var mu sync.Mutex
	var later time.Duration
	cfg, o := home(t)
	sealed, err := ca.Create("f", time.Now)
	assert.NilError(t, err)
	at, err := sealed.Seal()
	assert.NilError(t, err)
	assert.NilError(t, at.Save(o.ConfigDir, o.DataDir))
	cfg.SANs = []string{"127.0.0.1"}
	c := &Controller{config: cfg, configDir: o.ConfigDir, dataDir: o.DataDir, authority: sealed, log: o.Log,
		now: func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(later) }}
	// Those that are there are of another authority.
	assert.NilError(t, c.renewOwn())
	shown := func() string {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", cfg.EtcdPort), &tls.Config{
			InsecureSkipVerify: true, Certificates: []tls.Certificate{rootPair(t, o.ConfigDir)}, //nolint:gosec // it is looked at below
		})
		assert.NilError(t, err)
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
	}
	serve(t, cfg, o, func(ctx context.Context, s *store.Store) {
		first := shown()
		assert.NilError(t, c.renewOwn())
		assert.Equal(t, shown(), first, "a certificate that holds is kept")
		mu.Lock()
		later = ca.ControllerLifetime * 2 / 3
		mu.Unlock()
		assert.NilError(t, c.renewOwn())
		assert.Assert(t, shown() != first, "etcd does not read its certificate again")
		// The authorities are not read again: what etcd has not started with it
		// refuses. This is why a controller starts again.
		other, err := ca.Create("f", time.Now)
		assert.NilError(t, err)
		key, csr, err := ca.NewKey()
		assert.NilError(t, err)
		cert, err := other.IssueRoot(csr)
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(filepath.Join(o.ConfigDir, ca.CertificateFile), sealed.Trusting(other).Bundle(), 0o600))
		pair, err := tls.X509KeyPair(cert, key)
		assert.NilError(t, err)
		a := &alone{cfg: cfg}
		assert.Assert(t, a.lets(t, pair) != nil)
		assert.NilError(t, a.lets(t, rootPair(t, o.ConfigDir)))
	})
}
