package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
	"clocker.io/clocker/pkg/store"
)

// signing is the authority that this controller signs with by now, where it has
// changed since the start.
type signing struct {
	mu  sync.RWMutex // guards the following fields
	now *ca.Authority
	// pin is the authority that has signed what controllers show, where that
	// is another one.
	pin *ca.Authority
}

// signer is the authority that signs by now.
func (c *Controller) signer() *ca.Authority {
	c.signing.mu.RLock()
	defer c.signing.mu.RUnlock()
	if c.signing.now != nil {
		return c.signing.now
	}
	return c.authority
}

// server is the authority by which controllers are known by now: tokens pin it.
func (c *Controller) server() *ca.Authority {
	c.signing.mu.RLock()
	pin := c.signing.pin
	c.signing.mu.RUnlock()
	if pin != nil {
		return pin
	}
	return c.signer()
}

func (c *Controller) setSigning(now, pin *ca.Authority) {
	c.signing.mu.Lock()
	defer c.signing.mu.Unlock()
	c.signing.now, c.signing.pin = now, pin
}

const (
	authorityEvery = time.Second
	// renewShare is at which part of their time a controller's own
	// certificates are renewed.
	renewShare = 2.0 / 3
)

// errAuthority makes a controller start again: etcd reads the authorities that
// it trusts when it starts.
var errAuthority = errors.New("the fleet's authorities have changed: this controller starts again to trust them")

func heldKey(k store.Keys, controller string) string { return k.Authority() + "-held/" + controller }

// keepAuthority keeps this controller's own files what the fleet's record of its
// authority says, and its certificates from running out. It returns errAuthority
// when it is this controller's turn to start again.
func (c *Controller) keepAuthority(ctx context.Context) error {
	t := time.NewTicker(authorityEvery)
	defer t.Stop()
	var said held
	for {
		now, err := c.bringAuthority(ctx, said)
		switch {
		case errors.Is(err, errAuthority):
			return err
		case err != nil && ctx.Err() == nil:
			c.log.Warn("this controller's certificates cannot be brought up to date, trying again", "error", err)
		case err == nil:
			said = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// bringAuthority does what is to be done once, and tells what is so by now.
func (c *Controller) bringAuthority(ctx context.Context, said held) (held, error) {
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	it, err := store.Get[rotation](call, c.store, c.store.Keys.Authority())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return said, err
	}
	r := it.Value
	switch {
	case r.active():
		err = c.takeOver(r)
	case r.Stage == stageDone:
		err = c.shed(r)
	default:
		err = nil
	}
	if err != nil {
		return said, err
	}
	if err := c.renewOwn(); err != nil {
		return said, err
	}
	now, err := c.holds()
	if err != nil {
		return said, err
	}
	if now != said {
		if _, err := c.store.Txn().Exists(c.store.Keys.Controller(c.config.Name)).
			Put(heldKey(c.store.Keys, c.config.Name), now).Commit(call); err != nil && !errors.Is(err, store.ErrConflict) {
			return said, err
		} else if err != nil {
			now = said // it is not in the list of controllers yet
		}
	}
	if r.Turn == c.config.Name && now.Files != now.Started {
		c.log.Info("the fleet's authorities have changed: starting again", "stage", r.Stage)
		return now, errAuthority
	}
	return now, nil
}

// takeOver brings the authority's files to a rotation, and signs with what they
// say from then on.
func (c *Controller) takeOver(r rotation) error {
	if err := ca.Adopt(c.configDir, c.dataDir, []byte(r.trusted()), r.Key); err != nil {
		return err
	}
	all, err := c.openKeys([]byte(r.trusted()), r.Key)
	if err != nil {
		return err
	}
	var pin *ca.Authority
	if r.servesOld() {
		if pin, err = holder(all, r.From); err != nil {
			return err
		}
	}
	c.setSigning(all[0], pin)
	return nil
}

// shed takes away what is left of a change that is over: this controller was
// made, or restored, from files of a moment before its end.
func (c *Controller) shed(r rotation) error {
	had, err := os.ReadFile(filepath.Join(c.configDir, ca.CertificateFile))
	if err != nil {
		return fmt.Errorf("open CA: %w", err)
	}
	if string(had) == r.To {
		return nil
	}
	key, err := os.ReadFile(filepath.Join(c.dataDir, ca.SealedKeyFile))
	if err != nil {
		return fmt.Errorf("open CA: %w", err)
	}
	all, err := c.openKeys(had, key)
	if err != nil {
		return err
	}
	to, err := holder(all, r.To)
	if err != nil {
		return fmt.Errorf("this controller was made from what there was before the fleet's authority was changed: remove it and add it again (docker clocker controller rm --force %s): %w", c.config.Name, err)
	}
	if key, err = c.sealKeys(to); err != nil {
		return err
	}
	if err := ca.Adopt(c.configDir, c.dataDir, []byte(r.To), key); err != nil {
		return err
	}
	all, err = c.openKeys([]byte(r.To), key)
	if err != nil {
		return err
	}
	c.setSigning(all[0], nil)
	c.log.Info("what was left of an authority that was replaced is gone")
	return nil
}

// openKeys opens keys by the identity of this controller's configuration.
func (c *Controller) openKeys(bundle, key []byte) ([]*ca.Authority, error) {
	identity, err := os.ReadFile(filepath.Join(c.configDir, ca.IdentityFile))
	if err != nil {
		return nil, fmt.Errorf("open CA: %w", err)
	}
	return ca.Sealed{Certificate: bundle, Key: key, Identity: identity}.OpenAll(c.now)
}

// holder is the authority of a certificate.
func holder(all []*ca.Authority, cert string) (*ca.Authority, error) {
	for _, a := range all {
		if string(a.Certificate()) == cert {
			return a, nil
		}
	}
	return nil, errors.New("open CA: the key of an authority is missing")
}

// renewOwn makes this controller certificates of the authority by which
// controllers are known, when theirs is another one or most of its time is over.
func (c *Controller) renewOwn() error {
	by := c.server()
	for _, f := range []struct {
		cert, key string
		issue     func([]byte) ([]byte, error)
	}{
		{controllerconfig.RootCertFile, controllerconfig.RootKeyFile, by.IssueRoot},
		{controllerconfig.CertFile, controllerconfig.KeyFile, func(csr []byte) ([]byte, error) { return by.IssueController(csr, c.config.SANs) }},
	} {
		text, err := os.ReadFile(filepath.Join(c.configDir, f.cert))
		if err != nil {
			return fmt.Errorf("renew controller certificate: %w", err)
		}
		cert, err := ca.ParseCertificate(text)
		if err != nil {
			return fmt.Errorf("renew controller certificate: %w", err)
		}
		life := cert.NotAfter.Sub(cert.NotBefore)
		due := !c.now().Before(cert.NotBefore.Add(time.Duration(float64(life) * renewShare)))
		if ca.SignedBy(cert) == by.KeyID() && !due {
			continue
		}
		key, csr, err := ca.NewKey()
		if err != nil {
			return err
		}
		made, err := f.issue(csr)
		if err != nil {
			return fmt.Errorf("renew controller certificate: %w", err)
		}
		if err := ca.SavePair(c.configDir, f.cert, f.key, made, key); err != nil {
			return err
		}
		c.log.Info("own certificate renewed", "file", f.cert)
	}
	return nil
}

// holds tells what this controller has.
func (c *Controller) holds() (held, error) {
	h := held{Boot: c.boot, Started: c.trustedAtStart}
	bundle, err := os.ReadFile(filepath.Join(c.configDir, ca.CertificateFile))
	if err != nil {
		return h, err
	}
	if h.Files, err = trustSet(bundle); err != nil {
		return h, err
	}
	for _, f := range []struct {
		file string
		by   *string
	}{{controllerconfig.CertFile, &h.Serves}, {controllerconfig.RootCertFile, &h.Root}} {
		text, err := os.ReadFile(filepath.Join(c.configDir, f.file))
		if err != nil {
			return h, err
		}
		cert, err := ca.ParseCertificate(text)
		if err != nil {
			return h, err
		}
		*f.by = ca.SignedBy(cert)
		if h.Until.IsZero() || cert.NotAfter.Before(h.Until) {
			h.Until = cert.NotAfter.UTC()
		}
	}
	return h, nil
}

// trustSet says in one word what a bundle trusts, whoever signs.
func trustSet(bundle []byte) (string, error) {
	all, err := ca.Fingerprints(bundle)
	if err != nil {
		return "", err
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "+"), nil
}
