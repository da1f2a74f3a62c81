package fleet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
)

// ErrKnown means that the user's machine knows a fleet of that name already.
var ErrKnown = errors.New("this machine knows a fleet of that name already")

// Join makes this machine's user one of the fleet that a token is for: it makes
// a key here, has it certified by a controller that shows the authority which
// the token pins, and writes the profile. dir is docker's configuration
// directory. It can be repeated with the same token when it was interrupted. A
// profile from before the fleet's authority was changed is replaced; how hosts
// are reached stays in it.
func Join(ctx context.Context, dir string, t token.Token, now time.Time) (*Profile, error) {
	if err := CheckName("fleet", t.Fleet); err != nil {
		return nil, err
	}
	unlock, err := lock(dir, false)
	if err != nil {
		return nil, err
	}
	defer unlock()
	known, err := Open(dir, t.Fleet)
	if err == nil && !outdated(known, t) {
		return nil, fmt.Errorf("join fleet %s: %w, as user %s at %v: forget it with docker clocker fleet forget %s",
			t.Fleet, ErrKnown, known.User, known.Controllers, t.Fleet)
	} else if err != nil && !errors.Is(err, ErrNoFleet) {
		return nil, err
	}
	key, csr, forget, err := joiningKey(ProfileDir(dir, t.Fleet), t.ID)
	if err != nil {
		return nil, fmt.Errorf("join fleet %s: %w", t.Fleet, err)
	}
	cred, err := api.JoinUser(ctx, t, csr)
	if err != nil {
		if errors.Is(err, api.ErrForbidden) || errors.Is(err, api.ErrInvalid) {
			forget() // this token gives nothing
		}
		return nil, err
	}
	if cred.Fleet != t.Fleet {
		return nil, fmt.Errorf("join fleet %s: %w: fleet %s answers", t.Fleet, api.ErrAuthority, cred.Fleet)
	}
	p := &Profile{
		Name: cred.Fleet, Controllers: cred.Controllers, User: cred.User, CreatedAt: now.UTC(),
		CA: []byte(cred.CA), Cert: []byte(cred.Certificate), Key: key,
	}
	if known != nil {
		p.Access, p.CreatedAt = known.Access, known.CreatedAt
	}
	if _, err := p.TLS(); err != nil {
		return nil, err
	}
	if err := p.Save(dir); err != nil {
		return nil, err
	}
	forget()
	if _, err := Current(dir); errors.Is(err, ErrNoFleet) {
		return p, Use(dir, p.Name)
	}
	return p, nil
}

// outdated reports whether a profile is of a token's fleet from before its
// authority was changed: the same controllers show another one now. What it
// holds opens nothing any more.
func outdated(p *Profile, t token.Token) bool {
	trusted, err := ca.Fingerprints(p.CA)
	return err == nil && !slices.Contains(trusted, t.CAFingerprint) &&
		slices.ContainsFunc(p.Controllers, func(u string) bool { return slices.Contains(t.Controllers, u) })
}

// joiningKey makes a key and keeps it until the answer is there: the same token
// is answered again for the same key only.
func joiningKey(dir, id string) (key, csr []byte, forget func(), err error) {
	path := filepath.Join(dir, "joining-"+id+".pem")
	forget = func() {
		_ = os.Remove(path)
		_ = os.Remove(dir) // goes unless the profile is in it
	}
	if key, err = os.ReadFile(path); err == nil {
		if csr, err = ca.Request(key); err == nil {
			return key, csr, forget, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil, err
	}
	if key, csr, err = ca.NewKey(); err != nil {
		return nil, nil, nil, err
	}
	if err = os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, nil, err
	}
	return key, csr, forget, writeFile(path, key, 0o600)
}

// Refresh brings the profile up to what the fleet is by now: a new certificate
// when two thirds of this one's time are over or the fleet's authority has
// changed, and the controllers that there are. trust is [api.Client.Trust].
// dir is docker's configuration directory.
func (p *Profile) Refresh(ctx context.Context, dir string, c *api.Client, now time.Time) (renewed bool, err error) {
	cert, err := ca.ParseCertificate(p.Cert)
	if err != nil {
		return false, err
	}
	mine, err := ca.Trust(p.CA)
	if err != nil {
		return false, err
	}
	trust := c.Trust()
	if trust == "" {
		return false, nil // nothing was asked
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	if trust == mine && now.Before(cert.NotBefore.Add(life*2/3)) {
		return false, nil
	}
	key, csr, err := ca.NewKey()
	if err != nil {
		return false, err
	}
	r, err := c.Renew(ctx, csr)
	if err != nil {
		return false, fmt.Errorf("renew certificate of user %s: %w", p.User, err)
	}
	unlock, err := lock(dir, true)
	if err != nil {
		return false, err
	}
	defer unlock()
	// The profile as it is by now: another command may have changed it.
	next, err := Open(dir, p.Name)
	if err != nil {
		return false, err
	}
	if string(next.Cert) != string(p.Cert) {
		return false, nil // another command was faster
	}
	next.CA, next.Cert, next.Key, next.Controllers = []byte(r.CA), []byte(r.Certificate), key, r.Controllers
	if _, err := next.TLS(); err != nil {
		return false, err
	}
	return true, next.Save(dir)
}
