package fleet

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
	"clocker.io/clocker/pkg/record"
	"clocker.io/clocker/pkg/store"
)

// JoinOptions say which machine joins a fleet by itself.
type JoinOptions struct {
	// Token is what the fleet's administrator gave.
	Token token.Token
	// Add is as for [AddHost]; Engine is the machine's own. Controller, Fleet
	// and CA are taken from the token.
	Add AddOptions
}

// JoinHost makes the machine that it runs on, whose engine it is given, a host
// of the fleet that a token is for: what [AddHost] does from the user's
// machine, done from the host's side, so that nobody has to reach it. The same
// is looked at first, and the controllers are asked whether they are of the
// token's fleet, before anything is done; the token is used last of all that
// can fail on the machine's account. The error is [api.ErrAuthority] for
// controllers of another fleet, and the controllers' own for a token that is
// expired or used.
func JoinHost(ctx context.Context, o JoinOptions, progress func(Progress)) (api.Host, error) {
	if o.Token.Kind != record.TokenHost {
		return api.Host{}, fmt.Errorf("join fleet %s: this token is for a person: use it with docker clocker fleet join", o.Token.Fleet)
	}
	j := &joining{token: o.Token, roots: x509.NewCertPool()}
	defer j.close()
	o.Add.Controller, o.Add.Fleet, o.Add.pin, o.Add.CA = j, o.Token.Fleet, o.Token.CAFingerprint, nil
	a, err := newAdoption(o.Add, progress)
	if err != nil {
		return api.Host{}, err
	}
	a.keyed = func(key []byte) { j.key = key }
	h, err := a.run(ctx)
	if err != nil {
		err = a.undo.run(ctx, err, a.report, a.subject())
		if j.cred != nil {
			err = fmt.Errorf("%w\nthe fleet lists host %s by now, and the token is used: take it out there (docker clocker host rm --force --forget %s), and join with another token", err, a.o.Name, a.o.Name)
		}
		return api.Host{}, err
	}
	return h, nil
}

// joining stands in for the fleet's controllers as far as a machine that has
// no certificate yet can ask them, and later for what etcd tells it of itself.
type joining struct {
	token token.Token
	key   []byte
	roots *x509.CertPool

	// cred is nil until the token was used.
	cred *api.HostCredentials
	etcd *clientv3.Client
}

func (j *joining) close() {
	if j.etcd != nil {
		_ = j.etcd.Close() // nothing is under way
	}
}

// Info asks a controller for the time, and makes sure that it is of the fleet.
// Address pools are held against the machine's routes by the controller.
func (j *joining) Info(ctx context.Context) (api.Info, error) {
	var errs []error
	for _, url := range j.token.Controllers {
		at, err := j.ask(ctx, url)
		if err == nil {
			return api.Info{Fleet: j.token.Fleet, Now: at}, nil
		}
		errs = append(errs, err)
		if errors.Is(err, api.ErrAuthority) {
			break
		}
	}
	err := errors.Join(errs...)
	if errors.Is(err, api.ErrAuthority) {
		return api.Info{}, fmt.Errorf("join fleet %s: %w: ask for a token of the fleet that runs there", j.token.Fleet, err)
	}
	return api.Info{}, fmt.Errorf("join fleet %s: %w: %w: this machine must reach %s", j.token.Fleet, api.ErrUnreachable, err, strings.Join(j.token.Controllers, " or "))
}

// ask returns a controller's clock. Its answer is that of anybody without a
// certificate; its own certificate is what matters.
func (j *joining) ask(ctx context.Context, url string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Verified below, against the authority that the token pins.
		InsecureSkipVerify: true, //nolint:gosec // see VerifyConnection
		VerifyConnection:   j.verify,
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+api.Version+"/info", nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("ask controller: %w", err)
	}
	res, err := c.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = res.Body.Close() }() // nothing of it is read
	at, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		return time.Time{}, nil //nolint:nilerr // a clock that is not told is not compared
	}
	return at.Add(500 * time.Millisecond), nil // it tells whole seconds
}

func (j *joining) verify(s tls.ConnectionState) error {
	for _, c := range s.PeerCertificates[1:] {
		if sum := sha256.Sum256(c.Raw); hex.EncodeToString(sum[:]) != j.token.CAFingerprint {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots}); err != nil {
			return fmt.Errorf("%w: %w", api.ErrAuthority, err)
		}
		// The name is not part of what the token proves.
		if name := ca.FleetOf(c); name != j.token.Fleet {
			return fmt.Errorf("%w: fleet %s answers", api.ErrAuthority, name)
		}
		return nil
	}
	return api.ErrAuthority
}

// RegisterHost uses the token.
func (j *joining) RegisterHost(ctx context.Context, r api.HostRequest) (api.HostCredentials, error) {
	cred, err := api.JoinHost(ctx, j.token, r)
	if err != nil {
		return cred, err
	}
	j.cred = &cred
	return cred, nil
}

// Hosts tells of this machine alone, as etcd has it: nobody else is its
// business.
func (j *joining) Hosts(ctx context.Context) ([]api.Host, error) {
	if j.cred == nil {
		return nil, nil
	}
	if j.etcd == nil {
		c, err := j.connect()
		if err != nil {
			return nil, err
		}
		j.etcd = c
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s := store.New(j.etcd, j.cred.Fleet)
	spec, err := store.Get[record.Host](ctx, s, s.Keys.HostSpec(j.cred.ID))
	if err != nil {
		return nil, err
	}
	h := api.Host{Host: spec.Value, Status: "joining"}
	if facts, err := store.Get[record.HostFacts](ctx, s, s.Keys.HostFacts(j.cred.ID)); err == nil {
		h.Facts = &facts.Value
	}
	_, lease := store.Get[record.HostLease](ctx, s, s.Keys.HostLease(j.cred.ID))
	_, underlay := store.Get[record.Underlay](ctx, s, s.Keys.Underlay(j.cred.ID))
	if lease == nil && underlay == nil && h.Facts != nil {
		h.Status = "ready"
	}
	return []api.Host{h}, nil
}

// connect reaches etcd with what the host was given.
func (j *joining) connect() (*clientv3.Client, error) {
	authority, cert, key := j.cred.CA, j.cred.Certificate, string(j.key)
	if j.cred.EtcdCA != "" {
		authority, cert, key = j.cred.EtcdCA, j.cred.EtcdCert, j.cred.EtcdKey
	}
	j.roots.AppendCertsFromPEM([]byte(authority))
	t := &tls.Config{RootCAs: j.roots, MinVersion: tls.VersionTLS13}
	if cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			return nil, fmt.Errorf("use host's certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	if len(j.cred.Etcd) > 0 && strings.HasPrefix(j.cred.Etcd[0], "http://") {
		t = nil
	}
	c, err := clientv3.New(clientv3.Config{Endpoints: j.cred.Etcd, TLS: t, DialTimeout: 10 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("reach etcd: %w", err)
	}
	return c, nil
}

// RemoveHost is an administrator's to ask for, no host's.
func (j *joining) RemoveHost(context.Context, string, bool, func(api.Progress) error) error {
	return nil
}
