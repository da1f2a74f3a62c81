package ca

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestTwoAuthorities: while the authority is being changed both are trusted,
// and the key tells which of them signs.
func TestTwoAuthorities(t *testing.T) {
	old, err := Create("f", time.Now)
	assert.NilError(t, err)
	next, err := Create("f", time.Now)
	assert.NilError(t, err)
	sealed, err := next.Seal()
	assert.NilError(t, err)
	for _, order := range [][]byte{append(old.Certificate(), next.Certificate()...), append(next.Certificate(), old.Certificate()...)} {
		sealed.Certificate = order
		both, err := sealed.Open(time.Now)
		assert.NilError(t, err)
		assert.Equal(t, string(both.Certificate()), string(next.Certificate()))
		all, err := Fingerprints(both.Bundle())
		assert.NilError(t, err)
		assert.Equal(t, len(all), 2)
		_, csr, err := NewKey()
		assert.NilError(t, err)
		for _, a := range []*Authority{old, next} {
			cert, err := a.IssueMember(csr, "ann")
			assert.NilError(t, err)
			by, err := Signer(both.Bundle(), cert)
			assert.NilError(t, err)
			want, err := Fingerprint(a.Certificate())
			assert.NilError(t, err)
			assert.Equal(t, by, want)
		}
	}
	mine, err := Trust(old.Bundle())
	assert.NilError(t, err)
	other, err := Trust(sealed.Certificate)
	assert.NilError(t, err)
	assert.Assert(t, mine != other)
	sealed.Certificate = old.Certificate()
	_, err = sealed.Open(time.Now)
	assert.ErrorIs(t, err, ErrIdentity)
	_, err = ParseBundle([]byte("nothing"))
	assert.ErrorContains(t, err, "no PEM certificate")
}

func TestMemberIsAUserAndNoAdministrator(t *testing.T) {
	a, err := Create("f", time.Now)
	assert.NilError(t, err)
	a.SetLifetimes(Lifetimes{User: time.Hour})
	key, _, err := NewKey()
	assert.NilError(t, err)
	csr, err := Request(key)
	assert.NilError(t, err)
	text, err := a.IssueMember(csr, "ann")
	assert.NilError(t, err)
	c, err := ParseCertificate(text)
	assert.NilError(t, err)
	assert.DeepEqual(t, c.Subject.Organization, []string{OrgUser})
	assert.Assert(t, time.Until(c.NotAfter) < 2*time.Hour)
	for _, name := range []string{"root", "Controller", "host-x", "", "a b"} {
		_, err := a.IssueMember(csr, name)
		assert.ErrorIs(t, err, ErrName, name)
	}
	_, err = RequestKey([]byte("no"))
	assert.ErrorIs(t, err, ErrRequest)
}
