package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"filippo.io/age"
)

// KeyID names an authority by its key (RFC 5280 §4.2.1.2), in hexadecimal: what
// it has signed tells this of itself.
func (a *Authority) KeyID() string { return hex.EncodeToString(a.cert.SubjectKeyId) }

// SignedBy is the [Authority.KeyID] of the authority that a certificate says it
// is of (RFC 5280 §4.2.1.1). It proves nothing: see [Signer] for that.
func SignedBy(c *x509.Certificate) string { return hex.EncodeToString(c.AuthorityKeyId) }

// Trusting returns the authority with others trusted beside it, and none else.
func (a *Authority) Trusting(others ...*Authority) *Authority {
	out := &Authority{cert: a.cert, key: a.key, now: a.now, lives: a.lives}
	for _, o := range others {
		out.also = append(out.also, o.Certificate()...)
	}
	return out
}

// SealTo encrypts the keys of authorities to an identity that is there. The
// first is the one that signs; programs that know of one key only read that.
func SealTo(identity []byte, all ...*Authority) ([]byte, error) {
	ids, err := age.ParseIdentities(bytes.NewReader(identity))
	if err != nil {
		return nil, fmt.Errorf("encrypt CA key: read identity: %w", err)
	}
	var to []age.Recipient
	for _, id := range ids {
		x, ok := id.(*age.X25519Identity)
		if !ok {
			return nil, fmt.Errorf("encrypt CA key: identity is a %T", id)
		}
		to = append(to, x.Recipient())
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt CA key: %w", err)
	}
	for _, a := range all {
		plain, err := encodeKey(a.key)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(plain); err != nil {
			return nil, fmt.Errorf("encrypt CA key: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt CA key: %w", err)
	}
	return out.Bytes(), nil
}

// OpenAll decrypts every key: the first authority is the one that signs. Each
// trusts all certificates of s.
func (s Sealed) OpenAll(now func() time.Time) ([]*Authority, error) {
	if now == nil {
		now = time.Now
	}
	plain, err := s.decrypt()
	if err != nil {
		return nil, err
	}
	var out []*Authority
	for {
		block, rest := pem.Decode(plain)
		if block == nil {
			break
		}
		key, err := decodeKey(pem.EncodeToMemory(block))
		if err != nil {
			return nil, fmt.Errorf("open CA: %w", err)
		}
		a, err := s.belonging(key, now)
		if err != nil {
			return nil, fmt.Errorf("open CA: %w", err)
		}
		out, plain = append(out, a), rest
	}
	if len(out) == 0 {
		return nil, errors.New("open CA: no key")
	}
	return out, nil
}

func (s Sealed) decrypt() ([]byte, error) {
	ids, err := age.ParseIdentities(bytes.NewReader(s.Identity))
	if err != nil {
		return nil, fmt.Errorf("open CA: read identity: %w", err)
	}
	r, err := age.Decrypt(bytes.NewReader(s.Key), ids...)
	if err != nil {
		return nil, fmt.Errorf("open CA: %w: %w", ErrIdentity, err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("open CA: %w: %w", ErrIdentity, err)
	}
	return plain, nil
}

// Adopt brings an authority's two files to another bundle and other keys, each
// in one step. Whatever is there in between can be opened: what is trusted grows
// before the keys change, and shrinks after. The identity stays.
func Adopt(configDir, dataDir string, bundle, key []byte) error {
	path := filepath.Join(configDir, CertificateFile)
	had, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	both, err := union(bundle, had)
	if err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	if !bytes.Equal(had, both) && !bytes.Equal(had, bundle) {
		if err := Replace(path, both, 0o644); err != nil {
			return fmt.Errorf("save CA: %w", err)
		}
	}
	if now, err := os.ReadFile(filepath.Join(dataDir, SealedKeyFile)); err != nil || !bytes.Equal(now, key) {
		if err := Replace(filepath.Join(dataDir, SealedKeyFile), key, 0o600); err != nil {
			return fmt.Errorf("save CA: %w", err)
		}
	}
	if bytes.Equal(had, bundle) {
		return nil
	}
	if err := Replace(path, bundle, 0o644); err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	return nil
}

// union is a bundle, and what another has besides.
func union(first, second []byte) ([]byte, error) {
	seen, err := Fingerprints(first)
	if err != nil {
		return nil, err
	}
	more, err := ParseBundle(second)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(first)
	for _, c := range more {
		text := encodeCert(c.Raw)
		f, err := Fingerprint(text)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(seen, f) {
			out = append(out, text...)
		}
	}
	return out, nil
}

// Replace writes a file in one step, and to the disk.
func Replace(path string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone when the rename went well
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// SavePair replaces a certificate and its key, both PEM, in one step: the
// certificate's file holds both, and the key's is a link to it.
func SavePair(dir, certFile, keyFile string, cert, key []byte) error {
	certPath, keyPath := filepath.Join(dir, certFile), filepath.Join(dir, keyFile)
	if to, err := os.Readlink(keyPath); err != nil || to != certFile {
		hadCert, err := os.ReadFile(certPath)
		if err != nil {
			return fmt.Errorf("save certificate: %w", err)
		}
		hadKey, err := os.ReadFile(keyPath)
		if err != nil {
			return fmt.Errorf("save certificate: %w", err)
		}
		// The pair of before, in one file; then the link; then the new one.
		if block, _ := pem.Decode(hadCert); block != nil {
			hadCert = pem.EncodeToMemory(block)
		}
		if err := Replace(certPath, append(hadCert, hadKey...), 0o600); err != nil {
			return fmt.Errorf("save certificate: %w", err)
		}
		link := filepath.Join(dir, "."+keyFile+"-link")
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("save certificate: %w", err)
		}
		if err := os.Symlink(certFile, link); err != nil {
			return fmt.Errorf("save certificate: %w", err)
		}
		if err := os.Rename(link, keyPath); err != nil {
			return fmt.Errorf("save certificate: %w", err)
		}
	}
	if err := Replace(certPath, append(slices.Clone(cert), key...), 0o600); err != nil {
		return fmt.Errorf("save certificate: %w", err)
	}
	return nil
}
