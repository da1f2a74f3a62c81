package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// tokenLife is how long a token is good unless asked otherwise, maxTokenLife
	// the most that can be asked for.
	tokenLife    = 24 * time.Hour
	maxTokenLife = 30 * 24 * time.Hour
	// tokenMemory is how long a record outlives its token: until then whoever
	// brings the token late is told why it is refused.
	tokenMemory = 24 * time.Hour
	// repeatTime is how long whoever has used a token may send the same request
	// again, because the answer was lost.
	repeatTime = 5 * time.Minute
	// maxTokens bounds how many are kept.
	maxTokens = 1000
)

// CreateToken implements [api.AccessBackend].
func (c *Controller) CreateToken(ctx context.Context, r api.TokenRequest) (api.IssuedToken, error) {
	var none api.IssuedToken
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	if problems := c.checkToken(r); len(problems) > 0 {
		return none, invalid("no token can be made of this:", problems...)
	}
	if r.TTL == 0 {
		r.TTL = tokenLife
	}
	signer, err := ca.Fingerprint(c.server().Certificate())
	if err != nil {
		return none, err
	}
	t, err := token.New(r.Kind, c.fleet, c.controllerURLs(), signer)
	if err != nil {
		return none, err
	}
	now := c.now()
	rec := record.Token{
		ID: t.ID, Kind: r.Kind, Hash: token.Hash(t.Secret), Labels: r.Labels,
		CreatedAt: now, CreatedBy: api.CallerOf(ctx).User, Expires: now.Add(r.TTL),
	}
	if r.Kind == record.TokenUser {
		rec.User = &record.User{Name: r.User, Role: r.Role, Apps: r.Apps, CreatedBy: rec.CreatedBy}
		c.cache.mu.RLock()
		was := c.cache.users[r.User].Value
		c.cache.mu.RUnlock()
		if was.Active() && (was.Role != r.Role || !slices.Equal(was.Apps, r.Apps)) {
			return none, conflict("user %s exists with role %s: remove it first to give it another (docker clocker user rm %s), or ask for the same role to add another machine",
				r.User, was.Role, r.User)
		}
	}
	lease, err := c.etcd.client.Grant(ctx, int64((r.TTL+tokenMemory)/time.Second)+1)
	if err != nil {
		return none, fmt.Errorf("make token: %w", err)
	}
	key := c.store.Keys.Token(t.ID)
	revision, err := c.store.Txn(fence...).Absent(key).Put(key, rec, clientv3.WithLease(lease.ID)).Commit(ctx)
	if err != nil {
		return none, err
	}
	rec.Hash = ""
	return api.IssuedToken{Token: rec, Text: t.String()}, c.cache.wait(ctx, revision)
}

// checkToken says everything that is wrong with a request for a token.
func (c *Controller) checkToken(r api.TokenRequest) (problems []string) {
	switch r.Kind {
	case record.TokenHost:
		if r.User != "" || r.Role != "" || len(r.Apps) > 0 {
			problems = append(problems, "a token for a host has no user, role or applications")
		}
	case record.TokenUser:
		if err := ca.CheckUserName(r.User); err != nil {
			problems = append(problems, fmt.Sprintf("user name %q cannot be used: use letters, digits, ., _, @ and -, but not root, controller or host-...", r.User))
		}
		if !slices.Contains([]string{record.RoleAdmin, record.RoleDeploy, record.RoleRead}, r.Role) {
			problems = append(problems, fmt.Sprintf("role %q is none of admin, deploy and read", r.Role))
		}
		if r.Role == record.RoleAdmin && len(r.Apps) > 0 {
			problems = append(problems, "role admin is for the whole fleet: leave the applications out, or give another role")
		}
		for _, p := range r.Apps {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				problems = append(problems, fmt.Sprintf("%q is no pattern of application names", p))
			}
		}
		if len(r.Labels) > 0 {
			problems = append(problems, "a token for a user has no labels")
		}
	default:
		problems = append(problems, fmt.Sprintf("kind %q is neither host nor user", r.Kind))
	}
	if r.TTL < 0 || r.TTL > maxTokenLife {
		problems = append(problems, fmt.Sprintf("a token is good for at most %d days", maxTokenLife/(24*time.Hour)))
	}
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	if len(c.cache.tokens) >= maxTokens {
		problems = append(problems, fmt.Sprintf("the fleet has %d tokens already: remove some (docker clocker token rm)", len(c.cache.tokens)))
	}
	return problems
}

// Tokens implements [api.AccessBackend].
func (c *Controller) Tokens(context.Context) ([]record.Token, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := []record.Token{}
	for _, it := range c.cache.tokens {
		t := it.Value
		t.Hash = ""
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b record.Token) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return out, nil
}

// RemoveToken implements [api.AccessBackend].
func (c *Controller) RemoveToken(ctx context.Context, id string) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	key := c.store.Keys.Token(id)
	revision, err := c.store.Txn(fence...).Exists(key).Delete(key).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return notFound("there is no token %s (docker clocker token ls shows them)", id)
	}
	if err != nil {
		return err
	}
	return c.cache.wait(ctx, revision)
}

// refused is an answer to somebody whose token is not good.
func refused(format string, args ...any) error {
	return &api.CallError{Status: http.StatusForbidden, Body: api.Error{Message: fmt.Sprintf(format, args...)}}
}

// proven returns the record of a token that its bearer has shown to have.
// bearer is who asks: somebody who has used the token a moment ago and asks
// again, because the answer was lost, is known by it.
func (c *Controller) proven(ctx context.Context, p api.TokenProof, kind, bearer string) (store.Item[record.Token], bool, error) {
	var none store.Item[record.Token]
	trusted, err := ca.Fingerprints(c.signer().Bundle())
	if err != nil {
		return none, false, err
	}
	if !slices.Contains(trusted, p.Fingerprint) {
		return none, false, refused("this token is of another fleet than %s, or of an authority that it trusts no more", c.fleet)
	}
	gone := refused("token %.16s is not known to fleet %s: it was removed, or expired long ago: ask for a new one", p.ID, c.fleet)
	if strings.ContainsAny(p.ID, "/\x00") || p.ID == "" {
		return none, false, gone
	}
	it, err := store.Get[record.Token](ctx, c.store, c.store.Keys.Token(p.ID))
	if errors.Is(err, store.ErrNotFound) {
		return none, false, gone
	}
	if err != nil {
		return none, false, unavailable("tokens cannot be looked up at the moment: " + err.Error())
	}
	t := it.Value
	// The secret first: who does not have it learns nothing about the token.
	if !token.Matches(p.Secret, t.Hash) {
		return none, false, refused("the secret of token %s is wrong: copy the token again, all of it", p.ID)
	}
	if t.Kind != kind {
		return none, false, refused("token %s is for a %s, not for a %s", p.ID, t.Kind, kind)
	}
	now := c.now()
	switch again := t.UsedBy == bearer && now.Sub(t.UsedAt) < repeatTime; {
	case !t.UsedAt.IsZero() && again:
		return it, true, nil
	case !t.UsedAt.IsZero():
		return none, false, refused("token %s was used before, at %s: a token is good once: ask for a new one", p.ID, t.UsedAt.UTC().Format(time.DateTime+" UTC"))
	case !now.Before(t.Expires):
		return none, false, refused("token %s has expired at %s: ask for a new one", p.ID, t.Expires.UTC().Format(time.DateTime+" UTC"))
	}
	return it, false, nil
}

// bearerOf names whoever has the key of a certificate request, and whatever
// else must be the same when a request is sent again.
func bearerOf(csr string, more ...string) (string, error) {
	key, err := ca.RequestKey([]byte(csr))
	if err != nil {
		return "", invalid(err.Error())
	}
	sum := sha256.Sum256(append(key, strings.Join(more, "\x00")...))
	return hex.EncodeToString(sum[:16]), nil
}

// JoinUser implements [api.AccessBackend]. The token is used up and the user
// recorded by one transaction.
func (c *Controller) JoinUser(ctx context.Context, r api.UserJoin) (api.UserCredentials, error) {
	var none api.UserCredentials
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	bearer, err := bearerOf(r.CSR)
	if err != nil {
		return none, err
	}
	t, _, err := c.proven(ctx, r.Token, record.TokenUser, bearer)
	if err != nil {
		return none, err
	}
	want := *t.Value.User
	key := c.store.Keys.User(want.Name)
	it, err := store.Get[record.User](ctx, c.store, key)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return none, unavailable("users cannot be looked up at the moment: " + err.Error())
	}
	u := it.Value
	switch {
	case !u.Active():
		want.CreatedAt, want.RemovedAt = c.now(), u.RemovedAt
		u = want
	case u.Role != want.Role || !slices.Equal(u.Apps, want.Apps):
		return none, refused("user %s has got another role since this token was made: ask for a new one", want.Name)
	}
	a := c.signer()
	cert, u, err := c.certify(a, u, r.CSR)
	if err != nil {
		return none, err
	}
	used := t.Value
	used.UsedAt, used.UsedBy = firstUse(used, c.now()), bearer
	revision, err := c.store.Txn(fence...).
		Unchanged(t.Key, t.Revision).Put(t.Key, used, clientv3.WithIgnoreLease()).
		Unchanged(key, it.Revision).Put(key, u).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, unavailable("token " + used.ID + " is being used at this moment: try again")
	}
	if err != nil {
		return none, err
	}
	return api.UserCredentials{
		Fleet: c.fleet, User: u.Name, Role: u.Role, Apps: u.Apps,
		CA: string(a.Bundle()), Certificate: string(cert), Controllers: c.controllerURLs(),
	}, c.cache.wait(ctx, revision)
}

// firstUse is when a token was used first: asking again does not give more
// time.
func firstUse(t record.Token, now time.Time) time.Time {
	if t.UsedAt.IsZero() {
		return now
	}
	return t.UsedAt
}

// JoinHost implements [api.AccessBackend]. The token is claimed first, so that
// no two machines can have it; a registration that is refused gives it back.
func (c *Controller) JoinHost(ctx context.Context, r api.HostJoin) (api.HostCredentials, error) {
	var none api.HostCredentials
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	bearer, err := bearerOf(r.Host.CSR, r.Host.EngineID)
	if err != nil {
		return none, err
	}
	t, again, err := c.proven(ctx, r.Token, record.TokenHost, bearer)
	if err != nil {
		return none, err
	}
	if name := c.joined(r.Host); name != "" && !again {
		return none, conflict("this engine is in the fleet already, as host %s: a token is not enough to take its place: remove that host first (docker clocker host rm %s), or add it again over SSH", name, name)
	}
	used := t.Value
	used.UsedAt, used.UsedBy = firstUse(used, c.now()), bearer
	claimed, err := c.store.Txn(fence...).Unchanged(t.Key, t.Revision).Put(t.Key, used, clientv3.WithIgnoreLease()).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, unavailable("token " + used.ID + " is being used at this moment: try again")
	}
	if err != nil {
		return none, err
	}
	r.Host.Labels = merged(r.Host.Labels, t.Value.Labels)
	out, err := c.RegisterHost(ctx, r.Host)
	var call *api.CallError
	if errors.As(err, &call) && (call.Status == http.StatusConflict || call.Status == http.StatusBadRequest) && !again {
		// Nothing was registered: the token is as good as before.
		_, back := c.store.Txn(fence...).Unchanged(t.Key, claimed).Put(t.Key, t.Value, clientv3.WithIgnoreLease()).Commit(ctx)
		if back != nil {
			c.log.Warn("token of a refused host is used up", "token", used.ID, "error", back)
		}
	}
	return out, err
}

// joined is the name of the host that an engine is, as far as it was ever seen:
// one that was registered and never came up may try again.
func (c *Controller) joined(r api.HostRequest) string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for id, h := range c.cache.hosts {
		_, seen := c.cache.facts[id]
		if h.Value.EngineID == r.EngineID && seen {
			return h.Value.Name
		}
	}
	return ""
}

// merged are labels with others that win.
func merged(labels, winners map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range []map[string]string{labels, winners} {
		for k, v := range m {
			out[k] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}
