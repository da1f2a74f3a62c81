package controller

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// madeByInit is who has created the users whose first certificate was made from
// the authority itself, by init: whoever may use the controller's engine.
const madeByInit = "init"

// cacheTime is how long a caller waits for a controller that has just started
// to have read the fleet's state.
const cacheTime = 5 * time.Second

// Authorize implements [api.AccessBackend].
func (c *Controller) Authorize(ctx context.Context, user string, cert *x509.Certificate) (api.Caller, error) {
	c.cache.mu.RLock()
	it := c.cache.users[user]
	c.cache.mu.RUnlock()
	next, verdict := judge(it, user, cert)
	if verdict != nil || next != nil {
		// What the cache has may be of a moment ago: a user who has just joined
		// is let in, one who has just been removed is not.
		fresh, err := store.Get[record.User](ctx, c.store, c.store.Keys.User(user))
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return api.Caller{}, unavailable("users cannot be looked up at the moment: " + err.Error())
		}
		it = fresh
		next, verdict = judge(it, user, cert)
	}
	if verdict != nil {
		return api.Caller{User: user}, verdict
	}
	if next != nil {
		_, err := c.store.Txn().Unchanged(c.store.Keys.User(user), it.Revision).Put(c.store.Keys.User(user), next).Commit(ctx)
		switch {
		case errors.Is(err, store.ErrConflict): // another request of the same user was first
			return api.Caller{}, unavailable("user " + user + " is being recorded: try again")
		case err != nil:
			return api.Caller{}, unavailable("users cannot be recorded at the moment: " + err.Error())
		}
		it.Value = *next
	}
	return api.Caller{User: user, Role: it.Value.Role, Apps: it.Value.Apps}, nil
}

// judge decides whether a certificate is a user's by what is recorded of the
// user, and what is to be recorded when it is. cert is nil where a fellow has
// judged it.
//
// Certificates of tokens must be in the record. Those of init are made with the
// authority's key without asking anybody, so the first sight of one makes or
// extends the record; one from before the user was removed stays refused.
func judge(it store.Item[record.User], name string, cert *x509.Certificate) (become *record.User, refused error) {
	u := it.Value
	unknown := &api.CallError{Status: http.StatusForbidden, Body: api.Error{
		Message: fmt.Sprintf("user %s may not use this fleet (any more): ask an administrator for a token (docker clocker user add)", name),
	}}
	if cert == nil {
		if it.Revision == 0 || !u.Active() {
			return nil, unknown
		}
		return nil, nil
	}
	serial := cert.SerialNumber.Text(16)
	if u.Active() && slices.Contains(u.SerialNumbers, serial) {
		return nil, nil
	}
	if !slices.Contains(cert.Subject.Organization, ca.OrgAdmin) || !cert.NotBefore.Add(ca.Backdate).After(u.RemovedAt) {
		return nil, unknown
	}
	if u.Active() && u.CreatedBy != madeByInit {
		return nil, unknown // somebody else of that name
	}
	next := u
	if !u.Active() {
		next = record.User{Name: name, CreatedAt: cert.NotBefore.Add(ca.Backdate), CreatedBy: madeByInit, RemovedAt: u.RemovedAt}
	}
	next.Role, next.Apps = record.RoleAdmin, nil
	if cert.NotAfter.After(next.Until) {
		next.Until = cert.NotAfter
	}
	next.SerialNumbers = keepSerials(next.SerialNumbers, serial)
	next.CertifiedBy = ca.SignedBy(cert)
	return &next, nil
}

// maxSerials bounds a user's certificates: more machines than that are not one
// person's.
const maxSerials = 20

// keepSerials adds a certificate to those of a user.
func keepSerials(serials []string, serial string) []string {
	out := append(slices.Clone(serials), serial)
	return out[max(0, len(out)-maxSerials):]
}

// KnownHost implements [api.AccessBackend].
func (c *Controller) KnownHost(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, cacheTime)
	defer cancel()
	if c.cache.wait(ctx, 1) != nil {
		return unavailable("this controller has not read the fleet's state yet: try again")
	}
	c.cache.mu.RLock()
	it := c.cache.hosts[id]
	c.cache.mu.RUnlock()
	if it.Revision > 0 {
		return nil
	}
	// A host that has just been added may not be in the cache.
	_, err := store.Get[record.Host](ctx, c.store, c.store.Keys.HostSpec(id))
	if errors.Is(err, store.ErrNotFound) {
		return &api.CallError{Status: http.StatusForbidden, Body: api.Error{Message: "the fleet has no host " + id + " (any more)"}}
	}
	if err != nil {
		return unavailable("hosts cannot be looked up at the moment: " + err.Error())
	}
	return nil
}

// TaskApplication implements [api.AccessBackend].
func (c *Controller) TaskApplication(task string) string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	return cmp.Or(c.cache.assignments[task].Value.App, c.cache.observed[task].App)
}

// Trust implements [api.AccessBackend].
func (c *Controller) Trust() string {
	t, err := ca.Trust(c.signer().Bundle())
	if err != nil {
		return ""
	}
	return t
}

// Users implements [api.AccessBackend].
func (c *Controller) Users(context.Context) ([]record.User, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := []record.User{}
	for _, it := range c.cache.users {
		if it.Value.Active() {
			out = append(out, it.Value)
		}
	}
	slices.SortFunc(out, func(a, b record.User) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// User implements [api.AccessBackend].
func (c *Controller) User(_ context.Context, name string) (record.User, error) {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	if it, ok := c.cache.users[name]; ok && it.Value.Active() {
		return it.Value, nil
	}
	return record.User{}, notFound("there is no user %s (docker clocker user ls shows them)", name)
}

// RemoveUser implements [api.AccessBackend]. The record stays, without a role,
// for as long as a certificate from before could be shown.
func (c *Controller) RemoveUser(ctx context.Context, name string) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return unavailable("this controller no longer leads: try again")
	}
	c.cache.mu.RLock()
	it := c.cache.users[name]
	admins := map[string]int64{}
	for n, u := range c.cache.users {
		if u.Value.Role == record.RoleAdmin && n != name {
			admins[n] = u.Revision
		}
	}
	var pending []string
	for id, t := range c.cache.tokens {
		if t.Value.User != nil && t.Value.User.Name == name {
			pending = append(pending, id)
		}
	}
	c.cache.mu.RUnlock()
	if it.Revision == 0 || !it.Value.Active() {
		if len(pending) == 0 {
			return notFound("there is no user %s (docker clocker user ls shows them)", name)
		}
		t := c.store.Txn(fence...)
		for _, id := range pending {
			t.Delete(c.store.Keys.Token(id))
		}
		_, err := t.Commit(ctx)
		return err
	}
	if it.Value.Role == record.RoleAdmin && len(admins) == 0 {
		return conflict("user %s is the fleet's only administrator: make another one first (docker clocker user add NAME --role admin)", name)
	}
	lease, err := c.etcd.client.Grant(ctx, int64((ca.CertificateLifetime+24*time.Hour)/time.Second))
	if err != nil {
		return fmt.Errorf("remove user: %w", err)
	}
	t := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).
		Put(it.Key, record.User{Name: name, RemovedAt: c.now()}, clientv3.WithLease(lease.ID))
	if it.Value.Role == record.RoleAdmin {
		// Two administrators who remove each other must not both succeed.
		for n, revision := range admins {
			t.Unchanged(c.store.Keys.User(n), revision)
			break
		}
	}
	for _, id := range pending {
		t.Delete(c.store.Keys.Token(id))
	}
	revision, err := t.Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return conflict("user %s is being changed by somebody else: try again", name)
	}
	if err != nil {
		return err
	}
	return c.cache.wait(ctx, revision)
}

// Renew implements [api.AccessBackend]: it gives the caller another certificate
// of the same name. What the caller may do stands in the records.
func (c *Controller) Renew(ctx context.Context, r api.RenewRequest) (api.Renewal, error) {
	var none api.Renewal
	fence, _ := c.lead.get()
	if fence == nil {
		return none, unavailable("this controller no longer leads: try again")
	}
	caller := api.CallerOf(ctx)
	a := c.signer()
	out := api.Renewal{CA: string(a.Bundle()), Controllers: c.controllerURLs()}
	if caller.Host != "" {
		h, err := store.Get[record.Host](ctx, c.store, c.store.Keys.HostSpec(caller.Host))
		if err != nil {
			return none, err
		}
		cert, err := a.IssueHost([]byte(r.CSR), caller.Host, []string{h.Value.Address, h.Value.Name})
		if err != nil {
			return none, badRequest(err)
		}
		out.Certificate = string(cert)
		return out, nil
	}
	it, err := store.Get[record.User](ctx, c.store, c.store.Keys.User(caller.User))
	if err != nil {
		return none, err
	}
	cert, u, err := c.certify(a, it.Value, r.CSR)
	if err != nil {
		return none, err
	}
	revision, err := c.store.Txn(fence...).Unchanged(it.Key, it.Revision).Put(it.Key, u).Commit(ctx)
	if errors.Is(err, store.ErrConflict) {
		return none, unavailable("user " + caller.User + " is being changed: try again")
	}
	if err != nil {
		return none, err
	}
	out.Certificate = string(cert)
	return out, c.cache.wait(ctx, revision)
}

// certify signs a certificate for a user and enters it into the record.
func (c *Controller) certify(a *ca.Authority, u record.User, csr string) ([]byte, record.User, error) {
	cert, err := a.IssueMember([]byte(csr), u.Name)
	if err != nil {
		return nil, u, badRequest(err)
	}
	parsed, err := ca.ParseCertificate(cert)
	if err != nil {
		return nil, u, err
	}
	u.Until, u.CertifiedBy = parsed.NotAfter, ca.SignedBy(parsed)
	u.SerialNumbers = keepSerials(u.SerialNumbers, parsed.SerialNumber.Text(16))
	return cert, u, nil
}

// badRequest makes an error about what a caller sent one that says so.
func badRequest(err error) error {
	if errors.Is(err, ca.ErrRequest) || errors.Is(err, ca.ErrName) {
		return invalid(err.Error())
	}
	return err
}

// controllerURLs are the controllers that users and hosts are told of.
func (c *Controller) controllerURLs() []string {
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	out := []string{c.url}
	for _, m := range c.cache.controllers {
		if u := m.Value.URL; u != "" && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	slices.Sort(out[1:])
	return out
}
