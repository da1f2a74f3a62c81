// Package apitest makes servers that speak mutual TLS as a controller does,
// with a fleet's own certificates, for tests of whatever calls one. It is
// imported by tests only.
//
// Design page: docs/design/api.md.
package apitest

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/ca"
)

// Fleet is a CA with one user.
type Fleet struct {
	t         testing.TB
	authority *ca.Authority
	// CA, Cert and Key are PEM: the fleet's CA and its user's identity.
	CA, Cert, Key []byte
}

// NewFleet makes a fleet's certificates.
func NewFleet(t testing.TB) *Fleet {
	t.Helper()
	a, err := ca.Create("test", time.Now)
	assert.NilError(t, err)
	key, csr, err := ca.NewKey()
	assert.NilError(t, err)
	cert, err := a.IssueUser(csr, "tester")
	assert.NilError(t, err)
	return &Fleet{t: t, authority: a, CA: a.Certificate(), Cert: cert, Key: key}
}

// TLS is the user's configuration.
func (f *Fleet) TLS() *tls.Config {
	f.t.Helper()
	pair, err := tls.X509KeyPair(f.Cert, f.Key)
	assert.NilError(f.t, err)
	return &tls.Config{RootCAs: f.authority.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
}

// Serve starts a controller on loopback that answers with h. It ends with the
// test.
func (f *Fleet) Serve(h http.Handler) *httptest.Server {
	f.t.Helper()
	key, csr, err := ca.NewKey()
	assert.NilError(f.t, err)
	cert, err := f.authority.IssueController(csr, []string{"127.0.0.1"})
	assert.NilError(f.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	assert.NilError(f.t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(f.CA)
	pair.Certificate = append(pair.Certificate, authorityDER(f.CA))
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool,
		ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS13,
	}
	s.StartTLS()
	f.t.Cleanup(s.Close)
	return s
}

// Authority is the fleet's own, for certificates of others than its user.
func (f *Fleet) Authority() *ca.Authority { return f.authority }

// As is the configuration of the bearer of a certificate of the fleet.
func (f *Fleet) As(issue func(csr []byte) ([]byte, error)) *tls.Config {
	f.t.Helper()
	key, csr, err := ca.NewKey()
	assert.NilError(f.t, err)
	cert, err := issue(csr)
	assert.NilError(f.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	assert.NilError(f.t, err)
	return &tls.Config{RootCAs: f.authority.Pool(), Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}
}

func authorityDER(text []byte) []byte {
	b, _ := pem.Decode(text)
	return b.Bytes
}
