package ca

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
)

// The names of an authority's files: certificate and identity are in the
// controller's configuration directory, the encrypted key in its data
// directory, so that neither directory alone gives the key away.
const (
	CertificateFile = "ca.pem"
	IdentityFile    = "ca-identity.txt"
	SealedKeyFile   = "ca-key.age"
)

// ErrIdentity means that the identity does not open the sealed key, or that
// the key opened does not belong to the certificate.
var ErrIdentity = errors.New("identity does not open the fleet's CA key")

// Sealed is an authority at rest.
type Sealed struct {
	// Certificate is the root as PEM, with others that are trusted beside it
	// while the authority is being changed; no secret.
	Certificate []byte
	// Key is the PKCS #8 PEM of the root's key, encrypted by age to an
	// X25519 recipient; while the authority is being changed, that of the other
	// one follows.
	Key []byte
	// Identity is the age identity that opens Key. It is kept apart from
	// Key, readable by its owner only.
	Identity []byte
}

// Seal encrypts the authority's key to a new identity.
func (a *Authority) Seal() (Sealed, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return Sealed{}, fmt.Errorf("make CA identity: %w", err)
	}
	plain, err := encodeKey(a.key)
	if err != nil {
		return Sealed{}, err
	}
	var buf bytes.Buffer
	w, err := age.Encrypt(&buf, id.Recipient())
	if err != nil {
		return Sealed{}, fmt.Errorf("encrypt CA key: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return Sealed{}, fmt.Errorf("encrypt CA key: %w", err)
	}
	if err := w.Close(); err != nil {
		return Sealed{}, fmt.Errorf("encrypt CA key: %w", err)
	}
	return Sealed{
		Certificate: a.Certificate(),
		Key:         buf.Bytes(),
		Identity:    []byte(id.String() + "\n"),
	}, nil
}

// Open decrypts the key. now may be nil for the machine's clock. It returns
// [ErrIdentity] when the parts do not belong together.
func (s Sealed) Open(now func() time.Time) (*Authority, error) {
	if now == nil {
		now = time.Now
	}
	plain, err := s.decrypt()
	if err != nil {
		return nil, err
	}
	key, err := decodeKey(plain)
	if err != nil {
		return nil, fmt.Errorf("open CA: %w", err)
	}
	out, err := s.belonging(key, now)
	if err != nil {
		return nil, fmt.Errorf("open CA: %w", err)
	}
	return out, nil
}

// belonging finds the certificate that belongs to a key; the others are
// trusted beside it.
func (s Sealed) belonging(key *ecdsa.PrivateKey, now func() time.Time) (*Authority, error) {
	all, err := ParseBundle(s.Certificate)
	if err != nil {
		return nil, err
	}
	a := &Authority{key: key, now: now}
	for _, c := range all {
		switch pub, ok := c.PublicKey.(*ecdsa.PublicKey); {
		case !c.IsCA:
			return nil, errors.New("the certificate is not an authority's")
		case ok && pub.Equal(key.Public()):
			a.cert = c
		default:
			a.also = append(a.also, encodeCert(c.Raw)...)
		}
	}
	if a.cert == nil {
		return nil, fmt.Errorf("%w: key and certificate differ", ErrIdentity)
	}
	return a, nil
}

// Save writes the three files: certificate and identity into configDir, the
// encrypted key into dataDir. Identity and key get mode 0600.
func (s Sealed) Save(configDir, dataDir string) error {
	for _, f := range []struct {
		path string
		data []byte
		mode fs.FileMode
	}{
		{filepath.Join(configDir, IdentityFile), s.Identity, 0o600},
		{filepath.Join(dataDir, SealedKeyFile), s.Key, 0o600},
		{filepath.Join(configDir, CertificateFile), s.Certificate, 0o644},
	} {
		if err := os.WriteFile(f.path, f.data, f.mode); err != nil {
			return fmt.Errorf("save CA: %w", err)
		}
		// WriteFile keeps the mode of a file that is already there.
		if err := os.Chmod(f.path, f.mode); err != nil {
			return fmt.Errorf("save CA: %w", err)
		}
	}
	return nil
}

// Load opens the authority whose files are in a controller's configuration
// and data directories. An identity that others may read is refused.
func Load(configDir, dataDir string, now func() time.Time) (*Authority, error) {
	path := filepath.Join(configDir, IdentityFile)
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("load CA: %s can be read by others (mode %04o): chmod 600 it", path, st.Mode().Perm())
	}
	var s Sealed
	for _, f := range []struct {
		path string
		data *[]byte
	}{
		{path, &s.Identity},
		{filepath.Join(dataDir, SealedKeyFile), &s.Key},
		{filepath.Join(configDir, CertificateFile), &s.Certificate},
	} {
		if *f.data, err = os.ReadFile(f.path); err != nil {
			return nil, fmt.Errorf("load CA: %w", err)
		}
	}
	return s.Open(now)
}
