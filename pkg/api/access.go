package api

import (
	"context"
	"net/http"
	"path"
	"slices"
	"strings"

	"clocker.io/clocker/pkg/record"
)

// Caller is who a request comes from, as the controllers' records say.
type Caller struct {
	// User is the name of a user; empty when a host or nobody known calls.
	User string
	// Role is one of the roles of pkg/record, Apps what it is for: patterns of
	// path.Match, none means every application.
	Role string
	Apps []string
	// Host is the id of the host that calls.
	Host string
	// From is the caller's address.
	From string
}

// ranks order the roles: each may do what those below it may.
var ranks = map[string]int{record.RoleRead: 1, record.RoleDeploy: 2, record.RoleAdmin: 3}

// Sees reports whether an application is among those that the caller's role is
// for. Administrators see all.
func (c Caller) Sees(app string) bool {
	if c.Role == record.RoleAdmin || len(c.Apps) == 0 {
		return ranks[c.Role] > 0
	}
	return ranks[c.Role] > 0 && slices.ContainsFunc(c.Apps, func(p string) bool {
		ok, err := path.Match(p, app)
		return ok && err == nil
	})
}

// May reports whether the caller's role is at least the given one, for an
// application; an empty name means the whole fleet.
func (c Caller) May(role, app string) bool {
	if ranks[c.Role] < ranks[role] || ranks[role] == 0 {
		return false
	}
	if app == "" {
		return c.Role == record.RoleAdmin || len(c.Apps) == 0
	}
	return c.Sees(app)
}

type callerKey struct{}

// CallerOf returns who a request that is being served comes from.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

func withCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// audience is who may call a path at all.
type audience int

const (
	users   audience = iota
	members          // users and hosts, each for itself
	anyone           // without a certificate too: what is sent must prove itself
)

// scope is what a caller's role must be for.
type scope int

const (
	// part means that any application will do: the handler filters what is
	// listed, or checks the application that the request's body names.
	part scope = iota
	whole
	ofApp  // {app} of the path
	ofTask // the application of the task {task} of the path
)

// need is what a path asks of its caller.
type need struct {
	who  audience
	role string
	of   scope
}

// exceptions are the paths for which the general rule is not right.
var exceptions = map[string]need{
	"POST /v1/join/host":    {who: anyone},
	"POST /v1/join/user":    {who: anyone},
	"POST /v1/renew":        {who: members},
	"POST /v1/applications": {users, record.RoleDeploy, part}, // the body names it

	"POST /v1/tasks/{task}/exec":               {users, record.RoleDeploy, ofTask},
	"GET /v1/tasks/{task}/exec/{exec}":         {users, record.RoleDeploy, ofTask},
	"POST /v1/tasks/{task}/exec/{exec}/resize": {users, record.RoleDeploy, ofTask},

	"GET /v1/hosts/{host}/exec/{exec}": {users, record.RoleAdmin, whole},
	"GET /v1/hosts/{host}/logs":        {users, record.RoleRead, whole},
	"GET /v1/pools/{pool}":             {users, record.RoleRead, whole},
	"GET /v1/pools/{pool}/check":       {users, record.RoleRead, whole},
	"GET /v1/rules":                    {users, record.RoleRead, whole},

	"GET /v1/users":        {users, record.RoleAdmin, whole},
	"GET /v1/users/{user}": {users, record.RoleAdmin, whole},
	"GET /v1/tokens":       {users, record.RoleAdmin, whole},
	"GET /v1/audit":        {users, record.RoleAdmin, whole},
	"GET /v1/ca":           {users, record.RoleAdmin, whole},
}

// needOf is what a path, as it is registered, asks of its caller: reading asks
// for the role read, changing an application for the role deploy, all else for
// the role admin.
func needOf(pattern string) need {
	if n, ok := exceptions[pattern]; ok {
		return n
	}
	method, p, _ := strings.Cut(pattern, " ")
	n := need{users, record.RoleAdmin, whole}
	switch {
	case method == http.MethodGet:
		n = need{users, record.RoleRead, part}
	case strings.HasPrefix(p, "/v1/applications/{app}"):
		n.role = record.RoleDeploy
	}
	switch {
	case strings.Contains(p, "{app}"):
		n.of = ofApp
	case strings.Contains(p, "{task}"):
		n.of = ofTask
	}
	return n
}

// actions are how the audit log calls what paths do, where the path itself
// would not read well.
var actions = map[string]string{
	"POST /v1/applications":                    "deploy",
	"DELETE /v1/applications/{app}":            "rm",
	"POST /v1/applications/{app}/cancel":       "cancel",
	"POST /v1/hosts":                           "host add",
	"DELETE /v1/hosts/{host}":                  "host rm",
	"POST /v1/hosts/{host}/labels":             "host label",
	"POST /v1/hosts/{host}/exec":               "host exec",
	"POST /v1/hosts/{host}/engine":             "host engine",
	"POST /v1/tasks/{task}/exec":               "exec",
	"POST /v1/networks":                        "network create",
	"DELETE /v1/networks/{net}":                "network rm",
	"PUT /v1/networks/{net}/hosts/{host}":      "network attach",
	"DELETE /v1/networks/{net}/hosts/{host}":   "network detach",
	"POST /v1/rules":                           "network allow",
	"DELETE /v1/rules/{rule}":                  "network deny",
	"POST /v1/pools":                           "pool add",
	"DELETE /v1/pools/{pool}":                  "pool rm",
	"POST /v1/doctor":                          "doctor",
	"POST /v1/trace":                           "trace",
	"POST /v1/tokens":                          "token create",
	"DELETE /v1/tokens/{token}":                "token rm",
	"DELETE /v1/users/{user}":                  "user rm",
	"POST /v1/ca":                              "ca rotate",
	"POST /v1/join/host":                       "join as host",
	"POST /v1/join/user":                       "join as user",
	"POST /v1/renew":                           "renew certificate",
	"POST /v1/tasks/{task}/exec/{exec}/resize": "",
	"POST /v1/hosts/{host}/exec/{exec}/resize": "",
	"POST /v1/applications/{app}/{operation}":  "{operation}",
	"POST /v1/hosts/{host}/{operation}":        "host {operation}",
	"PUT /v1/policy/placement":                 "policy placement",
	"PUT /v1/policy/headroom":                  "policy headroom",
}

// actionOf names what a request does, for the audit log; empty means that it is
// not worth an entry: reading is not, unless it is refused.
func actionOf(pattern string, r *http.Request) string {
	action, ok := actions[pattern]
	if !ok {
		method, p, _ := strings.Cut(pattern, " "+Version+"/")
		words := slices.DeleteFunc(strings.Split(p, "/"), func(w string) bool { return strings.HasPrefix(w, "{") && w != "{operation}" })
		action = method + " " + strings.Join(words, " ")
	}
	return strings.ReplaceAll(action, "{operation}", r.PathValue("operation"))
}

// subjectOf is what a request is about: the names in its path.
func subjectOf(pattern string, r *http.Request) string {
	var out []string
	for part := range strings.SplitSeq(pattern, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok && part != "{operation}" {
			out = append(out, r.PathValue(strings.TrimSuffix(name, "}")))
		}
	}
	return strings.Join(out, " ")
}
