package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/store"
)

// keepRotation moves a change of the authority on while this controller leads.
// Each step rests on the record alone, so the next leader goes on with it.
func (c *Controller) keepRotation(ctx context.Context) {
	t := time.NewTicker(authorityEvery)
	defer t.Stop()
	for {
		if err := c.moveRotation(ctx); err != nil && !errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			c.log.Warn("the change of the authority does not move on, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (c *Controller) moveRotation(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	it, err := store.Get[rotation](ctx, c.store, c.store.Keys.Authority())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r := it.Value
	want, to, err := r.wanted()
	if err != nil {
		return err
	}
	if !r.active() {
		if late, err := c.anyLate(ctx, want.to); err != nil || !late {
			return err
		}
	}
	all, err := c.standings(ctx)
	if err != nil {
		return err
	}
	m := nextMove(r, all, want, to, c.config.Name)
	switch {
	case m.turn != "":
		r.Turn = m.turn
		return c.putRotation(ctx, it, r)
	case m.stage != "":
		next := r
		next.Stage = m.stage
		if r, err = c.advance(r, next); err != nil {
			return err
		}
		if err := c.putRotation(ctx, it, r); err != nil {
			return err
		}
		c.log.Info("change of the fleet's authority", "stage", r.Stage, "back", r.Back)
		c.emit(ctx, "authority", r.Stage, c.fleet, stageText(r))
	}
	return nil
}

// advance gives a record the keys of its stage, from the record of before. None
// is in etcd once it is over.
func (c *Controller) advance(was, r rotation) (rotation, error) {
	r.Turn, r.Since = "", c.now().UTC()
	if r.Stage == stageDone {
		r.Key = nil
		return r, nil
	}
	all, err := c.openKeys([]byte(was.trusted()), was.Key)
	if err != nil {
		return r, err
	}
	to, err := holder(all, r.To)
	if err != nil {
		return r, err
	}
	keys := []*ca.Authority{to}
	if r.Stage != stageDrop {
		old, err := holder(all, r.From)
		if err != nil {
			return r, err
		}
		keys = append(keys, old)
	}
	r.Key, err = c.sealKeys(keys...)
	return r, err
}

func (c *Controller) sealKeys(keys ...*ca.Authority) ([]byte, error) {
	identity, err := os.ReadFile(filepath.Join(c.configDir, ca.IdentityFile))
	if err != nil {
		return nil, fmt.Errorf("encrypt CA key: %w", err)
	}
	return ca.SealTo(identity, keys...)
}

// putRotation writes the record as the leader, unless it has changed.
func (c *Controller) putRotation(ctx context.Context, was store.Item[rotation], r rotation) error {
	fence, _ := c.lead.get()
	if fence == nil {
		return store.ErrConflict
	}
	_, err := c.store.Txn(fence...).Unchanged(c.store.Keys.Authority(), was.Revision).Put(c.store.Keys.Authority(), r).Commit(ctx)
	return err
}

// wanted are the words for what is to be trusted, and the name of the authority
// that stays.
func (r rotation) wanted() (want sets, to string, err error) {
	if want.both, err = trustSet([]byte(r.From + r.To)); err != nil {
		return want, "", err
	}
	if want.to, err = trustSet([]byte(r.To)); err != nil {
		return want, "", err
	}
	cert, err := ca.ParseCertificate([]byte(r.To))
	if err != nil {
		return want, "", err
	}
	return want, fmt.Sprintf("%x", cert.SubjectKeyId), nil
}

// anyLate reports whether a controller says that it has not started with what
// is trusted by now.
func (c *Controller) anyLate(ctx context.Context, want string) (bool, error) {
	said, _, err := store.List[held](ctx, c.store, heldKey(c.store.Keys, ""))
	return slices.ContainsFunc(said, func(it store.Item[held]) bool { return it.Value.Started != want }), err
}

// standings are everybody who has a certificate.
func (c *Controller) standings(ctx context.Context) ([]standing, error) {
	said, _, err := store.List[held](ctx, c.store, heldKey(c.store.Keys, ""))
	if err != nil {
		return nil, err
	}
	told := map[string]held{}
	for _, it := range said {
		told[path.Base(it.Key)] = it.Value
	}
	well := map[string]bool{}
	judged, err := c.judged(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range judged {
		well[f.Name] = c.etcd.kind != embedded || f.Voter && f.Healthy
	}
	now := c.now()
	var out []standing
	c.cache.mu.RLock()
	defer c.cache.mu.RUnlock()
	for name := range c.cache.controllers {
		lease, up := c.cache.running[name]
		h := told[name]
		if h.Boot != lease.Boot { // of an earlier run
			h = held{}
		}
		out = append(out, standing{kind: "controller", name: name, by: h.Serves, until: h.Until, away: !up, held: h, well: well[name]})
	}
	for id, it := range c.cache.hosts {
		_, up := c.cache.leases[id]
		f := c.cache.facts[id]
		out = append(out, standing{kind: "host", name: it.Value.Name, by: f.CertificateBy, until: f.CertificateUntil, away: !up})
	}
	for name, it := range c.cache.users {
		if u := it.Value; u.Active() && (u.Until.IsZero() || now.Before(u.Until)) {
			out = append(out, standing{kind: "user", name: name, by: u.CertifiedBy, until: u.Until})
		}
	}
	slices.SortFunc(out, func(a, b standing) int {
		if d := strings.Compare(a.kind, b.kind); d != 0 {
			return d
		}
		return strings.Compare(a.name, b.name)
	})
	return out, nil
}

func stageText(r rotation) string {
	text := map[string]string{
		stageTrust: "controllers start again to trust a second authority", stageIssue: "hosts and users get certificates of the new authority",
		stageServe: "controllers show certificates of the authority that stays", stageDrop: "controllers start again and trust one authority only",
		stageDone: "certificates of the other authority are refused",
	}[r.Stage]
	if r.Back {
		text += " (taken back)"
	}
	return text
}

// CA implements [api.CABackend].
func (c *Controller) CA(ctx context.Context) (api.CA, error) {
	it, err := store.Get[rotation](ctx, c.store, c.store.Keys.Authority())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return api.CA{}, err
	}
	r := it.Value
	all, err := c.standings(ctx)
	if err != nil {
		return api.CA{}, err
	}
	out := api.CA{Authorities: []api.Authority{}, Bearers: []api.CABearer{}}
	var to string
	if r.active() {
		var want sets
		if want, to, err = r.wanted(); err != nil {
			return api.CA{}, err
		}
		out.Stage, out.Back, out.Finish, out.By, out.Began = r.Stage, r.Back, r.Finish, r.By, r.Began
		out.Waits = nextMove(r, all, want, to, "").waits
	}
	if err := c.authorities(&out); err != nil {
		return api.CA{}, err
	}
	trusted := func(id string) bool {
		return slices.ContainsFunc(out.Authorities, func(a api.Authority) bool { return a.ID == id })
	}
	for _, s := range all {
		b := api.CABearer{Kind: s.kind, Name: s.name, Authority: s.by, Until: s.until, Away: s.away}
		if r.active() && (s.kind != "controller" || !r.servesOld()) {
			b.Lags = lags(r, s, to)
		}
		if b.Lags == "" && s.by != "" && !trusted(s.by) {
			b.Lags = behind(s)
		}
		out.Bearers = append(out.Bearers, b)
	}
	return out, nil
}

// authorities are those that this controller trusts by now.
func (c *Controller) authorities(out *api.CA) error {
	signs, serves := c.signer(), c.server()
	certs, err := ca.ParseBundle(signs.Bundle())
	if err != nil {
		return err
	}
	prints, err := ca.Fingerprints(signs.Bundle())
	if err != nil {
		return err
	}
	for i, cert := range certs {
		id := fmt.Sprintf("%x", cert.SubjectKeyId)
		out.Authorities = append(out.Authorities, api.Authority{
			Fingerprint: prints[i], ID: id, From: cert.NotBefore, Until: cert.NotAfter,
			Signs: id == signs.KeyID(), Serves: id == serves.KeyID(),
		})
	}
	return nil
}

// ChangeCA implements [api.CABackend].
func (c *Controller) ChangeCA(ctx context.Context, q api.CARequest) (api.CA, error) {
	if fence, _ := c.lead.get(); fence == nil {
		return api.CA{}, unavailable("this controller no longer leads: try again")
	}
	it, err := store.Get[rotation](ctx, c.store, c.store.Keys.Authority())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return api.CA{}, err
	}
	next, err := c.changed(ctx, it.Value, q.Action)
	if err != nil {
		return api.CA{}, err
	}
	if next != nil {
		if err := c.putRotation(ctx, it, *next); errors.Is(err, store.ErrConflict) {
			return api.CA{}, unavailable("the authority is being changed at this moment: try again")
		} else if err != nil {
			return api.CA{}, err
		}
		c.emit(ctx, "authority", next.Stage, c.fleet, stageText(*next))
	}
	return c.CA(ctx)
}

// changed is what a request makes of the record; nil when nothing is to change.
func (c *Controller) changed(ctx context.Context, r rotation, action string) (*rotation, error) {
	switch action {
	case api.CARotate:
		if r.active() {
			return nil, nil // the one under way goes on
		}
		return c.beginRotation(ctx)
	case api.CAFinish:
		switch {
		case !r.active():
			return nil, conflict("the authority is not being changed: begin with docker clocker ca rotate")
		case r.Stage == stageTrust:
			return nil, conflict("it is too early to finish: controllers do not trust the new authority yet (docker clocker ca show)")
		case r.Finish:
			return nil, nil
		}
		r.Finish = true
		return &r, nil
	case api.CAAbort:
		switch {
		case !r.active():
			return nil, conflict("the authority is not being changed: there is nothing to take back")
		case r.Back:
			return nil, nil
		case !r.servesOld():
			return nil, conflict("it is too late to take the change back: everybody has certificates of the new authority. Let it end (docker clocker ca show), then change the authority once more if need be")
		}
		// It goes the other way round: what was given out meanwhile is
		// replaced before the authority that is not wanted goes.
		back := r
		back.From, back.To, back.Stage, back.Back, back.Finish = r.To, r.From, stageServe, true, false
		out, err := c.advance(r, back)
		return &out, err
	}
	return nil, invalid(fmt.Sprintf("%q is none of rotate, finish and abort", action))
}

// beginRotation makes the new authority. Everything that would hold the change up is
// told before anything is changed.
func (c *Controller) beginRotation(ctx context.Context) (*rotation, error) {
	old := c.signer()
	certs, err := ca.ParseBundle(old.Bundle())
	if err != nil {
		return nil, err
	}
	var problems []string
	if len(certs) != 1 {
		problems = append(problems, "this controller still takes over the last change of the authority: try again in a few seconds")
	}
	all, err := c.standings(ctx)
	if err != nil {
		return nil, err
	}
	start, err := trustSet(old.Bundle())
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		switch {
		case s.kind != "controller":
		case s.away:
			problems = append(problems, fmt.Sprintf("controller %s is down: start it, or remove it (docker clocker controller rm --force %s)", s.name, s.name))
		case !s.well:
			problems = append(problems, fmt.Sprintf("controller %s: its member of etcd is not well (docker clocker controller ls)", s.name))
		case s.held.Started == "":
			problems = append(problems, fmt.Sprintf("controller %s does not tell what it trusts: upgrade it (docker clocker upgrade), or try again in a few seconds when it has just started", s.name))
		case s.held.Started != start || s.held.Files != start:
			problems = append(problems, fmt.Sprintf("controller %s trusts other authorities than this one: remove it and add it again", s.name))
		}
	}
	c.cache.mu.RLock()
	for id, it := range c.cache.hosts {
		if _, up := c.cache.leases[id]; up && c.cache.facts[id].CertificateBy == "" {
			problems = append(problems, fmt.Sprintf("host %s does not tell whose its certificate is: upgrade it (docker clocker host upgrade %s)", it.Value.Name, it.Value.Name))
		}
	}
	c.cache.mu.RUnlock()
	if len(problems) > 0 {
		slices.Sort(problems)
		return nil, &api.CallError{Status: http.StatusConflict, Body: api.Error{Message: "the authority cannot be changed now; nothing was changed:", Problems: problems}}
	}
	made, err := ca.Create(c.fleet, c.now)
	if err != nil {
		return nil, err
	}
	now := c.now().UTC()
	r := rotation{
		Stage: stageTrust, From: string(old.Certificate()), To: string(made.Certificate()),
		By: api.CallerOf(ctx).User, Began: now, Since: now,
	}
	r.Key, err = c.sealKeys(old, made)
	return &r, err
}
