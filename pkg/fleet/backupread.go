package fleet

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"filippo.io/age"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/version"
)

// trailer checks a stream whose last 32 bytes are the SHA-256 of those before.
type trailer struct {
	sum  hash.Hash
	last []byte
}

func (t *trailer) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if n := len(t.last) - sha256.Size; n > 0 {
		t.sum.Write(t.last[:n])
		t.last = append(t.last[:0], t.last[n:]...)
	}
	return len(p), nil
}

func (t *trailer) good() bool {
	return len(t.last) == sha256.Size && subtle.ConstantTimeCompare(t.sum.Sum(nil), t.last) == 1
}

// Archive is an archive that was looked at and found whole.
type Archive struct {
	Manifest BackupManifest
	path     string
	ids      []age.Identity
	sealed   *ca.Sealed
}

// OpenBackup reads an archive, compares every checksum, and opens the
// authority in it. Nothing is changed by it.
func OpenBackup(path string, ids ...age.Identity) (*Archive, error) {
	a := &Archive{path: path, ids: ids}
	var keys []byte
	seen := map[string]string{}
	err := a.each(func(name string, r io.Reader) error {
		sum := sha256.New()
		r = io.TeeReader(r, sum)
		switch name {
		case backupManifest:
			if err := json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&a.Manifest); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrBackup, name, err)
			}
		case backupKeys:
			b, err := io.ReadAll(io.LimitReader(r, 1<<20))
			if err != nil {
				return err
			}
			keys = b
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			return err
		}
		seen[name] = hex.EncodeToString(sum.Sum(nil))
		return nil
	})
	if err != nil {
		return nil, err
	}
	m := a.Manifest
	switch {
	case m.Format == 0:
		return nil, fmt.Errorf("read %s: %w: it has no %s", path, ErrBackup, backupManifest)
	case m.Format > BackupFormat:
		return nil, fmt.Errorf("read %s: %w: it is of format %d, made by docker clocker %s; this one, %s, knows %d: upgrade it", path, ErrBackup, m.Format, m.Version, version.Version, BackupFormat)
	}
	for _, name := range []string{backupKeys, backupEtcd} {
		if m.Sums[name] == "" || seen[name] != m.Sums[name] {
			return nil, fmt.Errorf("read %s: %w: %s is damaged or cut off: use another backup", path, ErrBackup, name)
		}
	}
	if a.sealed, err = openKeys(keys, ids); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return a, nil
}

// each calls f with every file of the archive.
func (a *Archive) each(f func(name string, r io.Reader) error) error {
	in, err := os.Open(a.path)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	defer func() { _ = in.Close() }() // read only
	r := tar.NewReader(in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = f(h.Name, r)
		}
		if errors.Is(err, ErrBackup) || errors.Is(err, ErrSecret) {
			return fmt.Errorf("read %s: %w", a.path, err)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w: %w", a.path, ErrBackup, err)
		}
	}
}

// decrypt opens what age has encrypted, and tells a wrong secret from damage.
func decrypt(r io.Reader, ids []age.Identity) (io.Reader, error) {
	out, err := age.Decrypt(r, ids...)
	var wrong *age.NoIdentityMatchError
	if errors.As(err, &wrong) || errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, ErrSecret
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSecret, err)
	}
	return out, nil
}

func openKeys(keys []byte, ids []age.Identity) (*ca.Sealed, error) {
	plain, err := decrypt(bytes.NewReader(keys), ids)
	if err != nil {
		return nil, err
	}
	s := &ca.Sealed{}
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBackup, err)
		}
		b, err := io.ReadAll(io.LimitReader(r, 1<<20))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBackup, err)
		}
		switch h.Name {
		case ca.CertificateFile:
			s.Certificate = b
		case ca.IdentityFile:
			s.Identity = b
		case ca.SealedKeyFile:
			s.Key = b
		}
	}
}

// snapshot calls f with etcd's snapshot in clear, and its size.
func (a *Archive) snapshot(f func(r io.Reader, size int64) error) error {
	var failed error
	err := a.each(func(name string, r io.Reader) error {
		if name != backupEtcd {
			return nil
		}
		plain, err := decrypt(r, a.ids)
		if err != nil {
			return err
		}
		failed = f(plain, a.Manifest.SnapshotBytes)
		return nil
	})
	return errors.Join(failed, err)
}
