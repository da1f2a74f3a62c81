package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store/storetest"

	"gotest.tools/v3/assert"
)

// people is a controller that leads, behind its API with real certificates.
type people struct {
	*Controller
	t     *testing.T
	fleet *apitest.Fleet
	url   string

	mu    sync.Mutex // guards the following field
	later time.Duration
}

// pass lets the controller's clock go on.
func (p *people) pass(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.later += d
}

func newPeople(t *testing.T) *people {
	p := &people{t: t, fleet: apitest.NewFleet(t)}
	var handler http.Handler // set before anybody asks
	p.url = p.fleet.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) })).URL
	p.Controller, _ = newControllerWith(t, storetest.Start(t), "c1", func(c *Controller) {
		c.url, c.authority = p.url, p.fleet.Authority()
		c.now = func() time.Time {
			p.mu.Lock()
			defer p.mu.Unlock()
			return time.Now().Add(p.later)
		}
	})
	p.awaitLead(t)
	handler = api.NewHandler(p.Controller, nil, slog.New(slog.DiscardHandler))
	return p
}

// admin is a client of the fleet's first user, whose certificate init made.
func (p *people) admin() *api.Client {
	c := api.NewClient([]string{p.url}, p.fleet.TLS())
	p.t.Cleanup(c.Close)
	return c
}

// join uses a token up and returns a client of the new user.
func (p *people) join(text string) (*api.Client, api.UserCredentials, error) {
	p.t.Helper()
	tok, err := token.Parse(text)
	assert.NilError(p.t, err)
	key, csr, err := ca.NewKey()
	assert.NilError(p.t, err)
	cred, err := api.JoinUser(p.t.Context(), tok, csr)
	if err != nil {
		return nil, cred, err
	}
	return p.as(cred, key), cred, nil
}

func (p *people) as(cred api.UserCredentials, key []byte) *api.Client {
	p.t.Helper()
	return p.client([]byte(cred.CA), []byte(cred.Certificate), key)
}

func (p *people) client(authority, cert, key []byte) *api.Client {
	p.t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	assert.NilError(p.t, err)
	pool := x509.NewCertPool()
	assert.Assert(p.t, pool.AppendCertsFromPEM(authority))
	c := api.NewClient([]string{p.url}, &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13})
	p.t.Cleanup(c.Close)
	return c
}

func (p *people) user(name, role string, apps ...string) api.IssuedToken {
	p.t.Helper()
	t, err := p.admin().CreateToken(p.t.Context(), api.TokenRequest{Kind: record.TokenUser, User: name, Role: role, Apps: apps})
	assert.NilError(p.t, err)
	return t
}

func (p *people) audited(want ...string) {
	p.t.Helper()
	var got []record.AuditEntry
	has := func(w string) bool {
		return slices.ContainsFunc(got, func(e record.AuditEntry) bool {
			return strings.Contains(strings.Join([]string{e.User, e.Action, e.Subject, e.Result, e.Reason}, "|"), w)
		})
	}
	await(p.t, func() bool {
		got = nil
		err := p.AuditLog(p.t.Context(), api.AuditQuery{}, func(e record.AuditEntry) error { got = append(got, e); return nil })
		assert.NilError(p.t, err)
		return !slices.ContainsFunc(want, func(w string) bool { return !has(w) })
	})
}

func TestFirstUserIsRecordedAtFirstSight(t *testing.T) {
	p := newPeople(t)
	users, err := p.admin().Users(t.Context())
	assert.NilError(t, err)
	_ = users // the first call is what records
	await(t, func() bool {
		users, err = p.admin().Users(t.Context())
		assert.NilError(t, err)
		return len(users) == 1
	})
	assert.Equal(t, users[0].Name, "tester")
	assert.Equal(t, users[0].Role, record.RoleAdmin)
	assert.Equal(t, len(users[0].SerialNumbers), 1)
	err = p.admin().RemoveUser(t.Context(), "tester")
	assert.ErrorIs(t, err, api.ErrConflict)
	assert.ErrorContains(t, err, "only administrator")
}

func TestTokenIsGoodOnce(t *testing.T) {
	p := newPeople(t)
	issued := p.user("ann", record.RoleDeploy, "web-*")
	tok, err := token.Parse(issued.Text)
	assert.NilError(t, err)
	// Ten machines try at the same moment.
	var wg sync.WaitGroup
	var mu sync.Mutex
	in, out := 0, map[string]int{}
	for range 10 {
		_, csr, err := ca.NewKey()
		assert.NilError(t, err)
		wg.Go(func() {
			_, err := api.JoinUser(t.Context(), tok, csr)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				in++
			} else {
				out[err.Error()]++
			}
		})
	}
	wg.Wait()
	assert.Equal(t, in, 1, "%v", out)
	_, _, err = p.join(issued.Text)
	assert.ErrorIs(t, err, api.ErrForbidden)
	assert.ErrorContains(t, err, "was used before")
	p.audited("join as user|ann|ok", "was used before", "token create|user ann|ok")
}

// TestAnswerOfJoinMayBeLost: the same key gets another answer for a while, and
// no other does.
func TestAnswerOfJoinMayBeLost(t *testing.T) {
	p := newPeople(t)
	tok, err := token.Parse(p.user("ann", record.RoleRead).Text)
	assert.NilError(t, err)
	_, csr, err := ca.NewKey()
	assert.NilError(t, err)
	for range 2 {
		_, err = api.JoinUser(t.Context(), tok, csr)
		assert.NilError(t, err)
	}
	p.pass(repeatTime + time.Second)
	_, err = api.JoinUser(t.Context(), tok, csr)
	assert.ErrorContains(t, err, "was used before")
}

func TestTokensThatAreRefused(t *testing.T) {
	p := newPeople(t)
	issued := p.user("ann", record.RoleRead)
	good, err := token.Parse(issued.Text)
	assert.NilError(t, err)
	_, csr, err := ca.NewKey()
	assert.NilError(t, err)
	wrong := good
	wrong.Secret = strings.Repeat("00", 20)
	_, err = api.JoinUser(t.Context(), wrong, csr)
	assert.ErrorContains(t, err, "secret of token")
	unknown := good
	unknown.ID = "0000000000000000"
	_, err = api.JoinUser(t.Context(), unknown, csr)
	assert.ErrorContains(t, err, "is not known")
	_, err = p.JoinUser(t.Context(), api.UserJoin{Token: api.TokenProof{ID: good.ID, Secret: good.Secret, Fingerprint: "ff"}, CSR: string(csr)})
	assert.ErrorContains(t, err, "of another fleet")
	_, err = p.JoinHost(t.Context(), api.HostJoin{Token: api.TokenProof{ID: good.ID, Secret: good.Secret, Fingerprint: good.CAFingerprint}, Host: api.HostRequest{CSR: string(csr)}})
	assert.ErrorContains(t, err, "is for a user, not for a host")
	_, err = api.JoinUser(t.Context(), good, []byte("no request"))
	assert.ErrorIs(t, err, api.ErrInvalid)
	p.pass(25 * time.Hour)
	_, err = api.JoinUser(t.Context(), good, csr)
	assert.ErrorContains(t, err, "has expired")
	assert.NilError(t, p.admin().RemoveToken(t.Context(), issued.ID))
	_, err = api.JoinUser(t.Context(), good, csr)
	assert.ErrorContains(t, err, "is not known")
	p.audited("refused|the secret of token", "refused|token 0000000000000000 is not known", "has expired")
}

func TestRemovedUserIsOutAtOnce(t *testing.T) {
	p := newPeople(t)
	ann, _, err := p.join(p.user("ann", record.RoleAdmin).Text)
	assert.NilError(t, err)
	_, err = ann.Users(t.Context())
	assert.NilError(t, err)
	// A second certificate of hers goes with the first.
	pending := p.user("ann", record.RoleAdmin)
	laptop, _, err := p.join(p.user("ann", record.RoleAdmin).Text)
	assert.NilError(t, err)
	assert.NilError(t, p.admin().RemoveUser(t.Context(), "ann"))
	for _, c := range []*api.Client{ann, laptop} {
		_, err = c.Info(t.Context())
		assert.ErrorIs(t, err, api.ErrForbidden)
		assert.ErrorContains(t, err, "any more")
	}
	_, _, err = p.join(pending.Text)
	assert.ErrorContains(t, err, "is not known")
	// Whoever gets the name next does not revive the old certificates.
	again, _, err := p.join(p.user("ann", record.RoleRead).Text)
	assert.NilError(t, err)
	_, err = again.Info(t.Context())
	assert.NilError(t, err)
	_, err = ann.Info(t.Context())
	assert.ErrorIs(t, err, api.ErrForbidden)
	p.audited("tester|user rm|ann|ok", "ann|GET info|")
}

// TestRemovedFirstUserNeedsTheEngine: the certificate that init made is refused
// once its user is removed; one that init makes later is good.
func TestRemovedFirstUserNeedsTheEngine(t *testing.T) {
	p := newPeople(t)
	first := p.admin()
	_, err := first.Info(t.Context())
	assert.NilError(t, err)
	ann, _, err := p.join(p.user("ann", record.RoleAdmin).Text)
	assert.NilError(t, err)
	assert.NilError(t, ann.RemoveUser(t.Context(), "tester"))
	_, err = first.Info(t.Context())
	assert.ErrorIs(t, err, api.ErrForbidden)
	// Certificates tell their beginning in seconds: the next one's is good.
	await(t, func() bool {
		key, csr, err := ca.NewKey()
		assert.NilError(t, err)
		cert, err := p.authority.IssueUser(csr, "tester")
		assert.NilError(t, err)
		_, err = p.client(p.fleet.CA, cert, key).Info(t.Context())
		return err == nil
	})
	_, err = first.Info(t.Context())
	assert.ErrorIs(t, err, api.ErrForbidden)
}

func TestRenewedCertificateIsGoodAndHasTheSameRights(t *testing.T) {
	p := newPeople(t)
	ann, _, err := p.join(p.user("ann", record.RoleDeploy, "web-*").Text)
	assert.NilError(t, err)
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	r, err := ann.Renew(t.Context(), csr)
	assert.NilError(t, err)
	next := p.client([]byte(r.CA), []byte(r.Certificate), key)
	_, err = next.Info(t.Context())
	assert.NilError(t, err)
	_, err = next.Users(t.Context())
	assert.ErrorIs(t, err, api.ErrForbidden)
	cert, err := ca.ParseCertificate([]byte(r.Certificate))
	assert.NilError(t, err)
	assert.Equal(t, cert.Subject.CommonName, "ann")
}

func TestHostJoinsWithOneToken(t *testing.T) {
	p := newPeople(t)
	issue := func() token.Token {
		issued, err := p.admin().CreateToken(t.Context(), api.TokenRequest{Kind: record.TokenHost, Labels: map[string]string{"zone": "b"}})
		assert.NilError(t, err)
		tok, err := token.Parse(issued.Text)
		assert.NilError(t, err)
		return tok
	}
	tok := issue()
	_, csr, err := ca.NewKey()
	assert.NilError(t, err)
	bad := api.HostRequest{Name: "NO NAME", Address: "192.0.2.1", CSR: string(csr), EngineID: "E1"}
	_, err = api.JoinHost(t.Context(), tok, bad)
	assert.ErrorIs(t, err, api.ErrConflict)
	good := api.HostRequest{Name: "h1", Address: "192.0.2.1", CSR: string(csr), EngineID: "E1", Labels: map[string]string{"zone": "a", "disk": "ssd"}}
	cred, err := api.JoinHost(t.Context(), tok, good)
	assert.NilError(t, err)
	again, err := api.JoinHost(t.Context(), tok, good)
	assert.NilError(t, err)
	assert.Equal(t, again.ID, cred.ID)
	h, err := p.Host(t.Context(), "h1")
	assert.NilError(t, err)
	assert.DeepEqual(t, h.Labels, map[string]string{"zone": "b", "disk": "ssd"})
	// A token does not let its bearer take the place of a host that works.
	_, err = p.store.Txn().Put(p.store.Keys.HostFacts(cred.ID), record.HostFacts{CPUs: 1}).Commit(t.Context())
	assert.NilError(t, err)
	await(t, func() bool { return p.joined(good) == "h1" })
	_, other, err := ca.NewKey()
	assert.NilError(t, err)
	thief := good
	thief.CSR = string(other)
	_, err = api.JoinHost(t.Context(), issue(), thief)
	assert.ErrorIs(t, err, api.ErrConflict)
	assert.ErrorContains(t, err, "in the fleet already")
	_, err = api.JoinHost(t.Context(), tok, thief)
	assert.ErrorContains(t, err, "was used before")
	p.audited("join as host|h1|ok", "join as host|NO NAME|refused")
}

func TestRefusalsDoNotFillTheAuditLog(t *testing.T) {
	p := newPeople(t)
	for range auditRefusals + 500 {
		p.Audit(record.AuditEntry{User: "mallory", Action: "GET users", Result: "refused"})
	}
	p.Audit(record.AuditEntry{User: "ann", Action: "deploy", Subject: "shop", Result: "ok"})
	p.audited("ann|deploy|shop|ok")
	n := 0
	assert.NilError(t, p.AuditLog(t.Context(), api.AuditQuery{User: "mallory"}, func(record.AuditEntry) error { n++; return nil }))
	assert.Equal(t, n, auditRefusals)
	leases, err := p.etcd.client.Leases(t.Context())
	assert.NilError(t, err)
	assert.Assert(t, len(leases.Leases) < 5, "entries share a lease: %d", len(leases.Leases))
}

func TestAuditFollowsAndBeginsWhereAsked(t *testing.T) {
	p := newPeople(t)
	p.Audit(record.AuditEntry{User: "ann", Action: "one", Result: "ok"})
	p.audited("one")
	p.pass(time.Hour)
	since := p.now()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := make(chan record.AuditEntry, 10)
	go p.AuditLog(ctx, api.AuditQuery{Follow: true, Since: since.Format(time.RFC3339Nano)}, func(e record.AuditEntry) error { //nolint:errcheck // ctx's end
		got <- e
		return nil
	})
	id := p.Audit(record.AuditEntry{User: "ann", Action: "two", Result: "begun"})
	p.Audit(record.AuditEntry{ID: id, User: "ann", Action: "two", Result: "ok"})
	e := <-got
	assert.Equal(t, e.Action+e.Result, "twook")
	err := p.AuditLog(t.Context(), api.AuditQuery{Since: "yesterday"}, nil)
	assert.ErrorContains(t, err, "RFC 3339")
}

// TestFellowPassesUsersOn: what a user may do is looked up by the leader.
func TestFellowPassesUsersOn(t *testing.T) {
	p := newPeople(t)
	c2, _ := newControllerWith(t, p.etcd.client, "c2", func(c *Controller) { c.authority = p.authority })
	await(t, func() bool { return c2.cache.wait(t.Context(), 1) == nil })
	tok := p.user("ann", record.RoleRead)
	_, cred, err := p.join(tok.Text)
	assert.NilError(t, err)
	cert, err := ca.ParseCertificate([]byte(cred.Certificate))
	assert.NilError(t, err)
	caller, err := c2.Authorize(t.Context(), "ann", cert)
	assert.NilError(t, err)
	assert.Equal(t, caller.Role, record.RoleRead)
	assert.NilError(t, p.admin().RemoveUser(t.Context(), "ann"))
	await(t, func() bool { _, err := c2.Authorize(t.Context(), "ann", cert); return err != nil })
	_, err = p.Authorize(t.Context(), "ann", nil)
	assert.ErrorContains(t, err, "any more")
	_, err = p.Authorize(t.Context(), "nobody", nil)
	assert.ErrorContains(t, err, "any more")
}
