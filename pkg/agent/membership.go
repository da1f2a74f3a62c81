package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/hostconfig"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
	"clocker.io/clocker/pkg/tunnel"
)

const (
	// renewRetry is how long lies between two attempts to renew the host's
	// certificate, renewLook between two looks whether it is time.
	renewRetry = 30 * time.Second
	renewLook  = time.Minute
	renewTime  = 20 * time.Second
)

// membership keeps the host's own files what the fleet says: where etcd and the
// controllers are, which authorities are trusted, and a certificate that holds.
// Whoever reads the files uses them from the next connection on.
type membership struct {
	identity
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	dir   string
	// share is at which part of its time the certificate is renewed: two
	// thirds, and a bit more or less, so that hosts do not all come at once.
	share float64
	// controllers is told of each change.
	controllers func([]string)
}

func newMembership(id identity, s *store.Store, dir string, log *slog.Logger, now func() time.Time, controllers func([]string)) *membership {
	return &membership{
		identity: id, store: s, log: log, now: now, dir: dir, controllers: controllers,
		share: 0.6 + rand.Float64()*0.13, //nolint:gosec // nobody gains by guessing it
	}
}

// run works until ctx ends.
func (m *membership) run(ctx context.Context) {
	told := make(chan record.Membership, 1)
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() {
		_ = m.store.Follow(ctx, m.store.Keys.HostMembership(m.Host), m.log, func(c store.Change) {
			for _, p := range c.Puts {
				v, err := store.Decode[record.Membership](p)
				if err != nil {
					m.log.Warn("membership cannot be read", "error", err)
					continue
				}
				select {
				case <-told: // the newest counts
				default:
				}
				told <- v
			}
		})
	})
	var want record.Membership
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case want = <-told:
		case <-time.After(wait):
		}
		wait = renewLook
		if err := m.bring(ctx, want); err != nil && ctx.Err() == nil {
			m.log.Warn("this host's files cannot be brought up to date, trying again", "error", err)
			wait = renewRetry
		}
	}
}

// bring makes the host's files what is wanted. Authorities come first: what
// comes after is verified by them.
func (m *membership) bring(ctx context.Context, want record.Membership) error {
	cfg, err := hostconfig.Load(m.dir)
	if err != nil {
		return err
	}
	if cfg.CAFile == "" {
		return nil // a fleet without certificates, as in tests
	}
	if err := m.bringCA(cfg, want.CA); err != nil {
		return err
	}
	if len(want.Controllers) > 0 && len(want.Etcd) > 0 && (!slices.Equal(cfg.Etcd, want.Etcd) || !slices.Equal(cfg.Controllers, want.Controllers)) {
		cfg.Etcd, cfg.Controllers = want.Etcd, want.Controllers
		if err := cfg.Save(); err != nil {
			return err
		}
		m.log.Info("controllers have changed", "controllers", want.Controllers, "etcd", want.Etcd)
	}
	m.controllers(cfg.Controllers)
	due, err := m.due(cfg, want.Signer)
	if err != nil || !due {
		return err
	}
	return m.renew(ctx, cfg)
}

// bringCA replaces the authorities. Nothing is taken away that the host's own
// etcd connection may still need: the fleet says so only when nobody does.
func (m *membership) bringCA(cfg *hostconfig.Config, bundle string) error {
	if bundle == "" {
		return nil
	}
	had, err := os.ReadFile(filepath.Join(cfg.Dir, cfg.CAFile))
	if err == nil && string(had) == bundle {
		return nil
	}
	if _, err := ca.ParseBundle([]byte(bundle)); err != nil {
		return err
	}
	if err := cfg.SaveCA([]byte(bundle)); err != nil {
		return err
	}
	m.log.Info("authorities have changed")
	return nil
}

// due reports whether the host's certificate is to be renewed: most of its time
// is over, or another authority signs now.
func (m *membership) due(cfg *hostconfig.Config, signer string) (bool, error) {
	text, err := os.ReadFile(filepath.Join(cfg.Dir, cfg.CertFile))
	if err != nil {
		return false, fmt.Errorf("read host certificate: %w", err)
	}
	bundle, err := os.ReadFile(filepath.Join(cfg.Dir, cfg.CAFile))
	if err != nil {
		return false, fmt.Errorf("read fleet CA: %w", err)
	}
	cert, err := ca.ParseCertificate(text)
	if err != nil {
		return false, err
	}
	if old(cert, m.now(), m.share) {
		return true, nil
	}
	by, err := ca.Signer(bundle, text)
	return signer != "" && by != signer, err
}

// old reports whether a share of a certificate's time is over.
func old(cert *x509.Certificate, now time.Time, share float64) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return !now.Before(cert.NotBefore.Add(time.Duration(float64(life) * share)))
}

// renew asks a controller for another certificate, for a new key.
func (m *membership) renew(ctx context.Context, cfg *hostconfig.Config) error {
	if len(cfg.Controllers) == 0 {
		return errors.New("renew host certificate: no controller is known")
	}
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	mutual, err := cfg.TLS()
	if err != nil {
		return err
	}
	c := api.NewClient(cfg.Controllers, mutual)
	defer c.Close()
	key, csr, err := ca.NewKey()
	if err != nil {
		return err
	}
	r, err := c.Renew(ctx, csr)
	if err != nil {
		return fmt.Errorf("renew host certificate: %w", err)
	}
	cert, err := ca.ParseCertificate([]byte(r.Certificate))
	if err != nil {
		return fmt.Errorf("renew host certificate: %w", err)
	}
	if cert.Subject.CommonName != ca.HostCommonName(m.Host) {
		return fmt.Errorf("renew host certificate: it is of %s", cert.Subject.CommonName)
	}
	if err := cfg.SaveIdentity([]byte(r.Certificate), key); err != nil {
		return err
	}
	m.log.Info("host certificate renewed", "until", cert.NotAfter)
	return nil
}

// tunnels keeps a tunnel to each controller there is by now.
type tunnels struct {
	ctx   context.Context //nolint:containedctx // that of the agent's run
	agent tunnel.Agent
	wg    sync.WaitGroup

	mu   sync.Mutex // guards the following field
	open map[string]context.CancelFunc
}

// set opens tunnels to new controllers and closes those to controllers that are
// gone.
func (t *tunnels) set(controllers []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return
	}
	for u, end := range t.open {
		if !slices.Contains(controllers, u) {
			end()
			delete(t.open, u)
		}
	}
	for _, u := range controllers {
		if t.open[u] != nil {
			continue
		}
		ctx, end := context.WithCancel(t.ctx)
		t.open[u] = end
		one := t.agent
		one.Controllers = []string{u}
		t.wg.Go(func() { one.Run(ctx) })
	}
}
