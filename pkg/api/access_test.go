package api_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
	"clocker.io/clocker/pkg/record"
)

// admits is a backend that knows some users and does nothing but say that it
// was asked.
type admits struct {
	api.Backend
	users map[string]api.Caller
	next  http.Handler

	mu    sync.Mutex // guards the following field
	audit []record.AuditEntry
}

func (b *admits) Authorize(_ context.Context, user string, _ *x509.Certificate) (api.Caller, error) {
	if c, ok := b.users[user]; ok {
		return c, nil
	}
	return api.Caller{User: user}, &api.CallError{Status: http.StatusForbidden, Body: api.Error{Message: "who is " + user + "?"}}
}

func (b *admits) KnownHost(_ context.Context, id string) error {
	if id == "h1" {
		return nil
	}
	return &api.CallError{Status: http.StatusForbidden, Body: api.Error{Message: "no such host"}}
}

func (b *admits) TaskApplication(task string) string {
	return map[string]string{"t1": "web-1", "t2": "db"}[task]
}
func (b *admits) Trust() string                 { return "abc" }
func (b *admits) Leader() (http.Handler, error) { return b.next, nil }

func (b *admits) Audit(e record.AuditEntry) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.audit = append(b.audit, e)
	return "id"
}

func (b *admits) Applications(context.Context) ([]api.Application, error) {
	return []api.Application{{Name: "db"}, {Name: "web-1"}}, nil
}

func (b *admits) Cancel(context.Context, string) error     { return nil }
func (b *admits) Info(context.Context) (api.Info, error)   { return api.Info{Fleet: "f"}, nil }
func (b *admits) RemovePool(context.Context, string) error { return nil }
func (b *admits) Agent(_ string, w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
}
func (b *admits) Users(context.Context) ([]record.User, error) { return nil, nil }

func (b *admits) Deploy(_ context.Context, _ string, _ api.DeployRequest, send func(api.Progress) error) error {
	return send(api.Progress{Done: "ok"})
}

func (b *admits) JoinUser(_ context.Context, r api.UserJoin) (api.UserCredentials, error) {
	return api.UserCredentials{User: "new", Fleet: "f"}, nil
}

func (b *admits) Renew(ctx context.Context, _ api.RenewRequest) (api.Renewal, error) {
	c := api.CallerOf(ctx)
	return api.Renewal{Certificate: c.User + c.Host}, nil
}

func status(t *testing.T, url string, cfg *tls.Config, method, path, body string, header ...string) int {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: cfg}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
	assert.NilError(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := tr.RoundTrip(req)
	assert.NilError(t, err)
	defer func() { _ = res.Body.Close() }()
	return res.StatusCode
}

// TestRolesMayDoWhatTheySayAndNoMore calls paths of each kind as everybody.
func TestRolesMayDoWhatTheySayAndNoMore(t *testing.T) {
	f := apitest.NewFleet(t)
	b := &admits{users: map[string]api.Caller{
		"root-of-all": {User: "root-of-all", Role: record.RoleAdmin},
		"deployer":    {User: "deployer", Role: record.RoleDeploy, Apps: []string{"web-*"}},
		"everywhere":  {User: "everywhere", Role: record.RoleDeploy},
		"reader":      {User: "reader", Role: record.RoleRead, Apps: []string{"web-*"}},
	}}
	srv := f.Serve(api.NewHandler(b, nil, slog.New(slog.DiscardHandler)))
	as := map[string]*tls.Config{}
	for name := range b.users {
		as[name] = f.As(func(csr []byte) ([]byte, error) { return f.Authority().IssueMember(csr, name) })
	}
	as["stranger"] = f.As(func(csr []byte) ([]byte, error) { return f.Authority().IssueMember(csr, "stranger") })
	as["host"] = f.As(func(csr []byte) ([]byte, error) { return f.Authority().IssueHost(csr, "h1", nil) })
	as["nobody"] = &tls.Config{RootCAs: f.Authority().Pool(), MinVersion: tls.VersionTLS13}
	who := []string{"root-of-all", "everywhere", "deployer", "reader", "stranger", "host", "nobody"}
	for _, c := range []struct {
		method, path, body string
		want               [7]int
	}{
		{"GET", "/v1/info", "", [7]int{200, 200, 200, 200, 403, 403, 401}},
		{"GET", "/v1/applications", "", [7]int{200, 200, 200, 200, 403, 403, 401}},
		{"POST", "/v1/applications/web-1/cancel", "", [7]int{200, 200, 200, 403, 403, 403, 401}},
		{"POST", "/v1/applications/db/cancel", "", [7]int{200, 200, 403, 403, 403, 403, 401}},
		{"POST", "/v1/applications", `{"application":{"name":"web-1"}}`, [7]int{200, 200, 200, 403, 403, 403, 401}},
		{"POST", "/v1/applications", `{"application":{"name":"db"}}`, [7]int{200, 200, 403, 403, 403, 403, 401}},
		{"GET", "/v1/tasks/t1/logs", "", [7]int{200, 200, 200, 200, 403, 403, 401}},
		{"GET", "/v1/tasks/t2/logs", "", [7]int{200, 200, 403, 403, 403, 403, 401}},
		{"GET", "/v1/tasks/none/logs", "", [7]int{404, 404, 404, 404, 403, 403, 401}},
		{"POST", "/v1/tasks/t1/exec", "", [7]int{200, 200, 200, 403, 403, 403, 401}},
		{"POST", "/v1/tasks/t2/exec", "", [7]int{200, 200, 403, 403, 403, 403, 401}},
		{"GET", "/v1/tasks/t1/exec/x", "", [7]int{200, 200, 200, 403, 403, 403, 401}},
		{"DELETE", "/v1/pools/p", "", [7]int{200, 403, 403, 403, 403, 403, 401}},
		{"GET", "/v1/users", "", [7]int{200, 403, 403, 403, 403, 403, 401}},
		{"POST", "/v1/renew", "{}", [7]int{200, 200, 200, 200, 403, 200, 401}},
		{"POST", "/v1/join/user", "{}", [7]int{200, 200, 200, 200, 403, 200, 200}},
	} {
		for i, name := range who {
			// A header that only controllers may set changes nothing.
			got := status(t, srv.URL, as[name], c.method, c.path, c.body, "Clocker-User", "root-of-all", "Clocker-Host", "h1")
			assert.Equal(t, got, c.want[i], "%s %s %s as %s", c.method, c.path, c.body, name)
		}
	}
}

func TestListsHoldWhatOneMaySee(t *testing.T) {
	f := apitest.NewFleet(t)
	b := &admits{users: map[string]api.Caller{"tester": {User: "tester", Role: record.RoleRead, Apps: []string{"web-*"}}}}
	c := api.NewClient([]string{f.Serve(api.NewHandler(b, nil, slog.New(slog.DiscardHandler))).URL}, f.TLS())
	defer c.Close()
	apps, err := c.Applications(t.Context())
	assert.NilError(t, err)
	assert.DeepEqual(t, apps, []api.Application{{Name: "web-1"}})
	assert.Equal(t, c.Trust(), "abc")
}

// TestWhoIsPassedOn: the leader believes a controller who the caller is, and
// looks up what that one may do itself.
func TestWhoIsPassedOn(t *testing.T) {
	f := apitest.NewFleet(t)
	users := map[string]api.Caller{"tester": {User: "tester", Role: record.RoleDeploy, Apps: []string{"web-*"}}}
	leader := &admits{users: users}
	srv := f.Serve(api.NewHandler(leader, nil, slog.New(slog.DiscardHandler)))
	fellow := f.As(func(csr []byte) ([]byte, error) { return f.Authority().IssueController(csr, []string{"127.0.0.1"}) })
	for _, c := range []struct {
		path string
		user string
		want int
	}{
		{"/v1/applications/web-1/cancel", "tester", 200},
		{"/v1/applications/db/cancel", "tester", 403},
		{"/v1/applications/web-1/cancel", "gone", 403},
	} {
		assert.Equal(t, status(t, srv.URL, fellow, "POST", c.path, "", "Clocker-User", c.user, "Clocker-From", "192.0.2.9"), c.want, "%+v", c)
	}
	assert.Equal(t, status(t, srv.URL, fellow, "POST", "/v1/renew", "{}", "Clocker-Host", "h1", "Clocker-From", "192.0.2.9"), 200)
	assert.Equal(t, status(t, srv.URL, fellow, "POST", "/v1/renew", "{}", "Clocker-Host", "h2", "Clocker-From", "192.0.2.9"), 403)
	// Nobody known came through it: only joining is left.
	assert.Equal(t, status(t, srv.URL, fellow, "DELETE", "/v1/pools/p", "", "Clocker-From", "192.0.2.9"), 403)
	assert.Equal(t, leader.audit[1].From, "192.0.2.9")
}

func TestAuditSaysWhoDidWhat(t *testing.T) {
	f := apitest.NewFleet(t)
	b := &admits{users: map[string]api.Caller{"tester": {User: "tester", Role: record.RoleDeploy, Apps: []string{"web-*"}}}}
	srv := f.Serve(api.NewHandler(b, nil, slog.New(slog.DiscardHandler)))
	status(t, srv.URL, f.TLS(), "GET", "/v1/applications", "")
	status(t, srv.URL, f.TLS(), "POST", "/v1/applications", `{"application":{"name":"web-7"}}`)
	status(t, srv.URL, f.TLS(), "DELETE", "/v1/pools/p", "")
	var got []string
	for _, e := range b.audit {
		got = append(got, fmt.Sprint(e.User, " ", e.Role, " ", e.Action, " ", e.Subject, " ", e.Result, " ", e.From))
	}
	assert.DeepEqual(t, got, []string{
		"tester deploy deploy  begun 127.0.0.1",
		"tester deploy deploy web-7 ok 127.0.0.1",
		"tester deploy pool rm p refused 127.0.0.1",
	})
}

func TestJoiningIsBoundedPerAddress(t *testing.T) {
	f := apitest.NewFleet(t)
	srv := f.Serve(api.NewHandler(&admits{}, nil, slog.New(slog.DiscardHandler)))
	cfg := &tls.Config{RootCAs: f.Authority().Pool(), MinVersion: tls.VersionTLS13}
	last := 0
	for range 50 {
		last = status(t, srv.URL, cfg, "POST", "/v1/join/user", "{}")
	}
	assert.Equal(t, last, http.StatusTooManyRequests)
}

// TestJoiningPinsTheAuthority: a controller of another fleet, and one in
// between, get no token to see.
func TestJoiningPinsTheAuthority(t *testing.T) {
	f, other := apitest.NewFleet(t), apitest.NewFleet(t)
	srv := f.Serve(api.NewHandler(&admits{}, nil, slog.New(slog.DiscardHandler)))
	join := func(fleet *apitest.Fleet) error {
		fp, err := ca.Fingerprint(fleet.CA)
		assert.NilError(t, err)
		tok, err := token.New(record.TokenUser, "f", []string{srv.URL}, fp)
		assert.NilError(t, err)
		_, csr, err := ca.NewKey()
		assert.NilError(t, err)
		_, err = api.JoinUser(t.Context(), tok, csr)
		return err
	}
	assert.NilError(t, join(f))
	assert.ErrorIs(t, join(other), api.ErrAuthority)
	tok, err := token.New(record.TokenHost, "f", []string{srv.URL}, strings.Repeat("00", 32))
	assert.NilError(t, err)
	_, err = api.JoinUser(t.Context(), tok, nil)
	assert.ErrorContains(t, err, "for a host")
}
