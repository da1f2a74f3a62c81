package api

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/record"
)

// AccessBackend is what a controller does about people, tokens and
// certificates behind the API.
type AccessBackend interface {
	// Authorize says who a user is by now. cert is what the caller has shown,
	// or nil when a fellow controller that has checked it passes the request
	// on.
	Authorize(ctx context.Context, user string, cert *x509.Certificate) (Caller, error)
	// KnownHost gives an error for a host that is no longer of the fleet.
	KnownHost(ctx context.Context, id string) error
	// TaskApplication is the application of a task; empty when there is none.
	TaskApplication(task string) string
	// Audit takes an entry of the audit log; it does not wait. An entry with
	// the id of a former one replaces it.
	Audit(e record.AuditEntry) (id string)
	AuditLog(ctx context.Context, q AuditQuery, send func(record.AuditEntry) error) error
	// Trust is the value of [TrustHeader]; empty when it is not known.
	Trust() string
	JoinHost(ctx context.Context, r HostJoin) (HostCredentials, error)
	JoinUser(ctx context.Context, r UserJoin) (UserCredentials, error)
	// Renew gives the context's caller another certificate.
	Renew(ctx context.Context, r RenewRequest) (Renewal, error)
	CreateToken(ctx context.Context, r TokenRequest) (IssuedToken, error)
	Tokens(ctx context.Context) ([]record.Token, error)
	RemoveToken(ctx context.Context, id string) error
	Users(ctx context.Context) ([]record.User, error)
	User(ctx context.Context, name string) (record.User, error)
	RemoveUser(ctx context.Context, name string) error
}

// The headers by which a controller tells the leader whose request it passes
// on. They count only in requests of controllers.
const (
	userHeader = "Clocker-User"
	hostHeader = "Clocker-Host"
	fromHeader = "Clocker-From"
)

func accessPaths(s *server, read, lead registration) {
	b := s.b
	lead("POST /v1/join/host", func(w http.ResponseWriter, r *http.Request) error {
		var q HostJoin
		if err := decode(w, r, &q); err != nil {
			return err
		}
		about(r.Context(), q.Host.Name)
		return answer(w)(b.JoinHost(r.Context(), q))
	})
	lead("POST /v1/join/user", func(w http.ResponseWriter, r *http.Request) error {
		var q UserJoin
		if err := decode(w, r, &q); err != nil {
			return err
		}
		out, err := b.JoinUser(r.Context(), q)
		about(r.Context(), out.User)
		return answer(w)(out, err)
	})
	lead("POST /v1/renew", taking(b.Renew))
	lead("POST /v1/tokens", func(w http.ResponseWriter, r *http.Request) error {
		var q TokenRequest
		if err := decode(w, r, &q); err != nil {
			return err
		}
		about(r.Context(), strings.TrimSpace(q.Kind+" "+q.User))
		return answer(w)(b.CreateToken(r.Context(), q))
	})
	read("GET /v1/tokens", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Tokens(r.Context())) })
	lead("DELETE /v1/tokens/{token}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.RemoveToken(r.Context(), r.PathValue("token")))
	})
	read("GET /v1/users", func(w http.ResponseWriter, r *http.Request) error { return answer(w)(b.Users(r.Context())) })
	read("GET /v1/users/{user}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(b.User(r.Context(), r.PathValue("user")))
	})
	lead("DELETE /v1/users/{user}", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w)(struct{}{}, b.RemoveUser(r.Context(), r.PathValue("user")))
	})
	read("GET /v1/audit", func(w http.ResponseWriter, r *http.Request) error {
		v := r.URL.Query()
		q := AuditQuery{Follow: v.Get("follow") == "1", Since: v.Get("since"), User: v.Get("user")}
		return serveStream(w, r, func(send func(record.AuditEntry) error) error { return b.AuditLog(r.Context(), q, send) })
	})
}

// admit lets those in who may call a path, hands what only the leader may do
// to the leader, and writes down who did what.
func (s *server) admit(pattern string, h func(http.ResponseWriter, *http.Request) error, leader bool) http.HandlerFunc {
	n := needOf(pattern)
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		caller, fellow, err := s.caller(r, n)
		passed := false
		note := &note{}
		var id string
		if err == nil {
			passed, err = s.pass(w, r, caller, fellow, leader)
		}
		if err == nil && !passed {
			err = s.allowed(caller, n, r)
		}
		if err == nil && !passed {
			if t := s.b.Trust(); t != "" {
				w.Header().Set(TrustHeader, t)
			}
			ctx := context.WithValue(withCaller(r.Context(), caller), noteKey{}, note)
			if n.who != anyone && worthNoting(pattern, r) {
				// What is begun is written down first: a controller that dies
				// in the middle leaves a trace of it.
				id = s.b.Audit(entry(pattern, r, caller, note, auditBegun, ""))
			}
			err = h(w, r.WithContext(ctx))
		}
		s.log.Debug("served", "method", r.Method, "path", r.URL.Path, "user", caller.User, "took", time.Since(start), "error", err)
		if !passed {
			s.note(pattern, r, caller, note, id, n.who == anyone, err)
		}
		switch {
		case err == nil:
		case r.Context().Err() == nil:
			s.fail(w, r, err)
		default:
			// The caller is gone, or this controller ends: an answer without a
			// word would be taken for a success.
			panic(http.ErrAbortHandler)
		}
	}
}

// caller finds out who a request comes from. fellow says that another
// controller passes it on.
func (s *server) caller(r *http.Request, n need) (c Caller, fellow bool, err error) {
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	c.From = from
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		if n.who != anyone {
			return c, false, &CallError{Status: http.StatusUnauthorized, Body: Error{Message: "a certificate of the fleet is needed: join it with a token (docker clocker fleet join)"}}
		}
		if !s.joins.allow(sourceOf(r.RemoteAddr)) {
			return c, false, &CallError{Status: http.StatusTooManyRequests, Body: Error{Message: "too many attempts from " + from + ": try again in a minute"}}
		}
		return c, false, nil
	}
	cert := r.TLS.VerifiedChains[0][0]
	has := func(org string) bool { return slices.Contains(cert.Subject.Organization, org) }
	switch {
	case has(orgController):
		return s.passedOn(r)
	case has(orgUser), has(orgAdmin):
		c, err = s.b.Authorize(r.Context(), cert.Subject.CommonName, cert)
		c.From = from
		return c, false, err
	case has(orgHost) && n.who != users:
		id := strings.TrimPrefix(cert.Subject.CommonName, "host-")
		c.Host = id
		return c, false, s.b.KnownHost(r.Context(), id)
	}
	return c, false, &CallError{Status: http.StatusForbidden, Body: Error{Message: "certificate of " + cert.Subject.CommonName + " is not a user's"}}
}

// passedOn is the caller of a request that another controller passes on: the
// other has checked the certificate, the records are looked at here again.
func (s *server) passedOn(r *http.Request) (Caller, bool, error) {
	user, host := r.Header.Get(userHeader), r.Header.Get(hostHeader)
	c := Caller{From: r.Header.Get(fromHeader), Host: host}
	var err error
	switch {
	case host != "":
		err = s.b.KnownHost(r.Context(), host)
	case user != "":
		from := c.From
		c, err = s.b.Authorize(r.Context(), user, nil)
		c.From = from
	case c.From == "":
		// A controller asks for itself: it holds the authority anyway.
		c.User, c.Role = "controller", record.RoleAdmin
		c.From, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	return c, true, err
}

// pass hands a request on to the leader when that is another controller.
func (s *server) pass(w http.ResponseWriter, r *http.Request, c Caller, fellow, leader bool) (bool, error) {
	for name, value := range map[string]string{userHeader: c.User, hostHeader: c.Host, fromHeader: c.From} {
		r.Header.Del(name)
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if !leader {
		return false, nil
	}
	next, err := s.b.Leader()
	if err != nil || next == nil || fellow { // one hop only
		return false, err
	}
	next.ServeHTTP(w, r)
	return true, nil
}

// allowed says why a caller may not do what a request asks for.
func (s *server) allowed(c Caller, n need, r *http.Request) error {
	switch {
	case n.who == anyone:
		return nil
	case n.who == members:
		if c.Host == "" && c.User == "" {
			return &CallError{Status: http.StatusForbidden, Body: Error{Message: "only users and hosts have certificates to renew"}}
		}
		return nil
	}
	app := ""
	switch n.of {
	case part:
		if ranks[c.Role] < ranks[n.role] {
			return forbidden(c, n.role, "")
		}
		return nil
	case ofApp:
		app = r.PathValue("app")
	case ofTask:
		if app = s.b.TaskApplication(r.PathValue("task")); app == "" {
			return &CallError{Status: http.StatusNotFound, Body: Error{Message: "there is no task " + r.PathValue("task")}}
		}
	case whole:
	}
	if !c.May(n.role, app) {
		return forbidden(c, n.role, app)
	}
	return nil
}

func forbidden(c Caller, role, app string) error {
	on := "the whole fleet"
	if app != "" {
		on = "application " + app
	}
	has := "no role"
	if c.Role != "" {
		has = "role " + c.Role
		if len(c.Apps) > 0 {
			has += " for " + strings.Join(c.Apps, ", ")
		}
	}
	return &CallError{Status: http.StatusForbidden, Body: Error{Message: fmt.Sprintf(
		"user %s may not do that: it needs role %s for %s, and %s has %s", c.User, role, on, c.User, has)}}
}

// tunnel lets the agents of the fleet's own hosts in.
func (s *server) tunnel(h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			s.fail(w, r, &CallError{Status: http.StatusUnauthorized, Body: Error{Message: "a certificate of the fleet is needed"}})
			return
		}
		cert := r.TLS.VerifiedChains[0][0]
		if id, ok := strings.CutPrefix(cert.Subject.CommonName, "host-"); ok && slices.Contains(cert.Subject.Organization, orgHost) {
			if err := s.b.KnownHost(r.Context(), id); err != nil {
				s.note("GET /v1/tunnel", r, Caller{Host: id, From: r.RemoteAddr}, &note{}, "", false, err)
				s.fail(w, r, err)
				return
			}
		}
		h.ServeHTTP(w, r)
	}
}

// visible drops what belongs to applications that the caller does not see.
func visible[T any](r *http.Request, all []T, app func(T) string) []T {
	c := CallerOf(r.Context())
	if len(c.Apps) == 0 || c.Role == record.RoleAdmin {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool {
		name := app(v)
		return name != "" && !c.Sees(name)
	})
}

// seesEvent reports whether an event is for a caller: what happens to other
// applications is not.
func (s *server) seesEvent(c Caller, e record.Event) bool {
	if c.Role == record.RoleAdmin || len(c.Apps) == 0 {
		return true
	}
	switch e.Type {
	case "application":
		return c.Sees(e.Subject)
	case "host", "controller":
		return true
	case "task":
		app := s.b.TaskApplication(e.Attrs["task"])
		return app != "" && c.Sees(app)
	}
	return false
}
