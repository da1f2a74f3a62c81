package ca

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

func TestTwoKeysAreHeldByOneIdentity(t *testing.T) {
	old, err := Create("f", nil)
	assert.NilError(t, err)
	made, err := Create("f", nil)
	assert.NilError(t, err)
	sealed, err := old.Seal()
	assert.NilError(t, err)
	config, data := t.TempDir(), t.TempDir()
	assert.NilError(t, sealed.Save(config, data))
	assert.Assert(t, old.KeyID() != made.KeyID() && old.KeyID() != "")

	steps := []struct {
		keys   []*Authority
		bundle []byte
	}{
		{[]*Authority{old, made}, old.Trusting(made).Bundle()},
		{[]*Authority{made, old}, made.Trusting(old).Bundle()},
		{[]*Authority{made}, made.Certificate()},
	}
	for i, s := range steps {
		key, err := SealTo(sealed.Identity, s.keys...)
		assert.NilError(t, err)
		// Whoever dies between two files finds an authority that signs.
		both, err := union(s.bundle, mustRead(t, filepath.Join(config, CertificateFile)))
		assert.NilError(t, err)
		half := t.TempDir()
		assert.NilError(t, os.WriteFile(filepath.Join(half, CertificateFile), both, 0o600))
		assert.NilError(t, os.WriteFile(filepath.Join(half, IdentityFile), sealed.Identity, 0o600))
		_, err = Load(half, data, nil)
		assert.NilError(t, err, "step %d, keys of before", i)
		for range 2 { // again: nothing changes
			assert.NilError(t, Adopt(config, data, s.bundle, key))
			_, err = Load(half, data, nil)
			assert.NilError(t, err, "step %d, certificates of before", i)
			now, err := Load(config, data, nil)
			assert.NilError(t, err)
			assert.Equal(t, now.KeyID(), s.keys[0].KeyID())
			assert.Equal(t, string(now.Bundle()), string(s.bundle))
		}
		all, err := Sealed{Certificate: s.bundle, Key: key, Identity: sealed.Identity}.OpenAll(nil)
		assert.NilError(t, err)
		assert.Equal(t, len(all), len(s.keys))
		_, csr, err := NewKey()
		assert.NilError(t, err)
		for j, a := range all {
			text, err := a.IssueHost(csr, "h1", nil)
			assert.NilError(t, err)
			cert, err := ParseCertificate(text)
			assert.NilError(t, err)
			assert.Equal(t, SignedBy(cert), s.keys[j].KeyID())
		}
	}
	stranger, err := Create("f", nil)
	assert.NilError(t, err)
	other, err := stranger.Seal()
	assert.NilError(t, err)
	_, err = Sealed{Certificate: steps[2].bundle, Key: other.Key, Identity: sealed.Identity}.OpenAll(nil)
	assert.ErrorIs(t, err, ErrIdentity)
}

func TestAPairIsReplacedInOneStep(t *testing.T) {
	a, err := Create("f", nil)
	assert.NilError(t, err)
	dir := t.TempDir()
	pair := func() (cert, key []byte) {
		key, csr, err := NewKey()
		assert.NilError(t, err)
		cert, err = a.IssueRoot(csr)
		assert.NilError(t, err)
		return cert, key
	}
	cert, key := pair()
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "c.pem"), cert, 0o644))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "k.pem"), key, 0o600))
	for range 2 {
		cert, key = pair()
		assert.NilError(t, SavePair(dir, "c.pem", "k.pem", cert, key))
		got, err := tls.LoadX509KeyPair(filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"))
		assert.NilError(t, err)
		want, err := ParseCertificate(cert)
		assert.NilError(t, err)
		assert.DeepEqual(t, got.Certificate[0], want.Raw)
		st, err := os.Stat(filepath.Join(dir, "c.pem"))
		assert.NilError(t, err)
		assert.Equal(t, st.Mode().Perm(), os.FileMode(0o600))
	}
	es, err := os.ReadDir(dir)
	assert.NilError(t, err)
	assert.Equal(t, len(es), 2)
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	return b
}
