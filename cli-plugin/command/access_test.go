package command

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/cli/cli/config"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/api/apitest"
	"clocker.io/clocker/pkg/fleet"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
	"clocker.io/clocker/pkg/record"
)

func TestUserAddPrintsTheTokenAndNothingElse(t *testing.T) {
	m := newMachine(t)
	var got api.TokenRequest
	m.serve(answers{"POST /v1/tokens": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = api.TokenRequest{}
		_ = json.NewDecoder(r.Body).Decode(&got)
		_ = json.NewEncoder(w).Encode(api.IssuedToken{Text: "clocker1_abc", Token: record.Token{Expires: now}})
	})})
	r := m.run("user", "add", "ben", "--role", "read", "--app", "web-*", "--expires", "1h")
	assert.Equal(t, r.out, "clocker1_abc\n")
	assert.DeepEqual(t, got, api.TokenRequest{Kind: "user", User: "ben", Role: "read", Apps: []string{"web-*"}, TTL: time.Hour})
	assert.Equal(t, m.run("user", "add", "ben", "--expires", "-1h").code, ExitInvalid)
	r = m.run("token", "create", "--label", "zone=b")
	assert.Equal(t, r.code, ExitOK, r.err)
	assert.DeepEqual(t, got, api.TokenRequest{Kind: "host", Labels: map[string]string{"zone": "b"}, TTL: 24 * time.Hour})
}

func TestAccessLists(t *testing.T) {
	m := newMachine(t)
	m.serve(answers{
		"GET /v1/users":  []record.User{{Name: "ann", Role: "admin", CreatedBy: "init", CreatedAt: now.Add(-time.Hour), SerialNumbers: []string{"a"}}, {Name: "ben", Role: "deploy", Apps: []string{"web-*"}}},
		"GET /v1/tokens": []record.Token{{ID: "t1", Kind: "user", User: &record.User{Name: "ben", Role: "read"}, Expires: now.Add(time.Hour)}, {ID: "t2", Kind: "host", UsedAt: now}},
		"GET /v1/audit":  record.AuditEntry{ID: "1", At: now, User: "ben", Role: "deploy", From: "192.0.2.1", Action: "rm", Subject: "shop", Result: "refused", Reason: "no"},
	})
	for args, want := range map[string]string{
		"user ls --quiet":  "ann\nben\n",
		"token ls --quiet": "t1\nt2\n",
		"token ls --format {{.ID}}:{{.State}}:{{.For}}":                                       "t1:good:ben (read)\nt2:used:-\n",
		"user ls --format {{.Name}}:{{.Apps}}":                                                "ann:all\nben:web-*\n",
		"audit --format {{.User}}:{{.From}}:{{.Action}}:{{.Subject}}:{{.Result}}:{{.Reason}}": "ben:192.0.2.1:rm:shop:refused:no\n",
	} {
		r := m.run(strings.Fields(args)...)
		assert.Equal(t, r.out, want, "%s: %s", args, r.err)
	}
	assert.Equal(t, m.run("user", "rm", "nobody").code, ExitNotFound)
	assert.Equal(t, m.run("audit", "--since", "whenever").code, ExitInvalid)
}

// TestFleetJoinMakesAProfile: the key is made here; a token that is refused
// leaves nothing behind, one whose answer was lost is asked for again with the
// same key.
func TestFleetJoinMakesAProfile(t *testing.T) {
	m := newMachine(t)
	f := apitest.NewFleet(t)
	var requests []string
	fail := http.StatusServiceUnavailable
	url := ""
	srv := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in api.UserJoin
		_ = json.NewDecoder(r.Body).Decode(&in)
		key, err := ca.RequestKey([]byte(in.CSR))
		assert.NilError(t, err)
		requests = append(requests, string(key))
		if fail != 0 {
			w.WriteHeader(fail)
			_ = json.NewEncoder(w).Encode(api.Error{Message: "not now"})
			return
		}
		cert, err := f.Authority().IssueMember([]byte(in.CSR), "ben")
		assert.NilError(t, err)
		_ = json.NewEncoder(w).Encode(api.UserCredentials{Fleet: "prod", User: "ben", CA: string(f.CA), Certificate: string(cert), Controllers: []string{url}})
	}))
	url = srv.URL
	fp, err := ca.Fingerprint(f.CA)
	assert.NilError(t, err)
	tok, err := token.New(record.TokenUser, "prod", []string{url}, fp)
	assert.NilError(t, err)

	fail = http.StatusForbidden
	r := m.run("fleet", "join", tok.String())
	assert.Assert(t, r.code != ExitOK)
	assert.Assert(t, strings.Contains(r.err, "not now"), r.err)
	known, err := fleet.List(config.Dir())
	assert.NilError(t, err)
	assert.Equal(t, len(known), 0)

	fail = http.StatusInternalServerError // whether the token was used is not known
	assert.Assert(t, m.run("fleet", "join", tok.String()).code != ExitOK)
	fail = 0
	m.in = tok.String() + "\n"
	r = m.run("fleet", "join", "-")
	assert.Equal(t, r.out, "prod\n", r.err)
	assert.Equal(t, requests[1], requests[2])
	assert.Assert(t, requests[0] != requests[1])
	p, err := fleet.Open(config.Dir(), "prod")
	assert.NilError(t, err)
	assert.Equal(t, p.User, "ben")
	current, err := fleet.Current(config.Dir())
	assert.NilError(t, err)
	assert.Equal(t, current, "prod")
	r = m.run("fleet", "join", tok.String())
	assert.Assert(t, strings.Contains(r.err, "knows a fleet of that name already"), r.err)
	assert.Equal(t, m.run("fleet", "join", "clocker1_half").code, ExitInvalid)
}

// TestCertificateIsRenewedByTheWay: a command whose answer says that the
// authority has changed, or late in the certificate's time, brings a new one.
func TestCertificateIsRenewedByTheWay(t *testing.T) {
	m := newMachine(t)
	f := apitest.NewFleet(t)
	trust, err := ca.Trust(f.CA)
	assert.NilError(t, err)
	renewed := 0
	srv := f.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.TrustHeader, trust)
		if r.URL.Path != "/v1/renew" {
			_ = json.NewEncoder(w).Encode([]record.User{})
			return
		}
		renewed++
		var in api.RenewRequest
		_ = json.NewDecoder(r.Body).Decode(&in)
		cert, err := f.Authority().IssueMember([]byte(in.CSR), "tester")
		assert.NilError(t, err)
		_ = json.NewEncoder(w).Encode(api.Renewal{CA: string(f.CA), Certificate: string(cert), Controllers: []string{"https://" + r.Host}})
	}))
	m.join("test", f, srv.URL)
	m.clock.Now = time.Now
	for range 2 {
		assert.Equal(t, m.run("user", "ls").code, ExitOK)
	}
	assert.Equal(t, renewed, 0)
	m.clock.Now = func() time.Time { return time.Now().Add(70 * 24 * time.Hour) }
	assert.Equal(t, m.run("user", "ls").code, ExitOK)
	assert.Equal(t, renewed, 1)
	m.clock.Now = time.Now
	trust = "another"
	assert.Equal(t, m.run("user", "ls").code, ExitOK)
	assert.Equal(t, renewed, 2)
}
