package fleet

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/api"
	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/token"
)

// Whoever joins by a token must find the very fleet that the token names, before
// anything is done: its authority, and its name.
func TestATokenIsForOneFleet(t *testing.T) {
	shows := func(fleet string) (s tls.ConnectionState, fingerprint string) {
		a, err := ca.Create(fleet, time.Now)
		assert.NilError(t, err)
		_, csr, err := ca.NewKey()
		assert.NilError(t, err)
		leaf, err := a.IssueController(csr, []string{"192.0.2.1"})
		assert.NilError(t, err)
		for _, b := range [][]byte{leaf, a.Certificate()} {
			c, err := ca.ParseCertificate(b)
			assert.NilError(t, err)
			s.PeerCertificates = append(s.PeerCertificates, c)
		}
		sum := sha256.Sum256(s.PeerCertificates[1].Raw)
		return s, hex.EncodeToString(sum[:])
	}
	one, pin := shows("one")
	two, _ := shows("two")
	verify := func(fleet string, s tls.ConnectionState) error {
		j := &joining{token: token.Token{Fleet: fleet, CAFingerprint: pin}, roots: x509.NewCertPool()}
		return j.verify(s)
	}
	assert.NilError(t, verify("one", one))
	assert.ErrorIs(t, verify("one", two), api.ErrAuthority)
	err := verify("two", one)
	assert.ErrorIs(t, err, api.ErrAuthority)
	assert.ErrorContains(t, err, "fleet one answers")
}
