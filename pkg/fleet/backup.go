package fleet

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/moby/moby/client"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// BackupFormat is the version of the archive that [Backup] writes.
const BackupFormat = 1

// The files of an archive, in this order. It is a tar; what is secret in it is
// encrypted by age: the authority, and etcd's whole content.
const (
	backupManifest = "clocker-backup.json"
	backupKeys     = "authority.age"
	backupEtcd     = "etcd.snapshot.age"
)

// BackupManifest describes an archive; it is in clear and holds no secret.
type BackupManifest struct {
	Format    int       `json:"format"`
	Fleet     string    `json:"fleet"`
	CreatedAt time.Time `json:"createdAt"`
	// Version is the program's, CA the fingerprint of the fleet's authority.
	Version string `json:"version"`
	CA      string `json:"ca"`
	// Controller is the configuration of the controller that was read.
	Controller controllerconfig.Config `json:"controller"`
	// SnapshotBytes is the size of the snapshot before encryption.
	SnapshotBytes int64 `json:"snapshotBytes"`
	// Sums are SHA-256 of the other files as they are in the archive, in
	// hexadecimal.
	Sums map[string]string `json:"sums"`
}

// Errors of archives that callers branch on.
var (
	// ErrBackup means that a file is no whole archive of a format that this
	// program knows.
	ErrBackup = errors.New("not a usable backup")
	// ErrSecret means that the passphrase or identity does not open it.
	ErrSecret = errors.New("the passphrase or identity does not open the backup")
)

// BackupOptions say what is backed up, and where to.
type BackupOptions struct {
	Profile *Profile
	API     interface {
		Snapshot(ctx context.Context) (io.ReadCloser, error)
	}
	// Source is the engine of a controller: the authority is read there.
	Source *client.Client
	// Recipients can open the archive.
	Recipients []age.Recipient
	// Path is the file to write; it is replaced in one step.
	Path    string
	Version string
	Now     func() time.Time
}

// Backup writes an archive of the fleet while it works: a snapshot of etcd, and
// the authority. Nothing secret touches this machine's disk in clear.
func Backup(ctx context.Context, o BackupOptions, progress func(Progress)) (BackupManifest, error) {
	var none BackupManifest
	if o.Now == nil {
		o.Now = time.Now
	}
	say := func(s Step, st State, format string, args ...any) {
		if progress != nil {
			progress(Progress{Subject: o.Profile.Name, Step: s, State: st, Text: fmt.Sprintf(format, args...)})
		}
	}
	cfg, sealed, _, err := readSource(ctx, o.Source, o.Profile.Name)
	if err != nil {
		return none, err
	}
	if !sameCA(sealed.Certificate, o.Profile.CA) {
		return none, fmt.Errorf("back up fleet %s: %w: that controller's authority is not this fleet's", o.Profile.Name, ErrOtherFleet)
	}
	say(StepCertificate, Done, "authority read")
	m := BackupManifest{
		Format: BackupFormat, Fleet: o.Profile.Name, CreatedAt: o.Now().UTC().Truncate(time.Second),
		Version: o.Version, Controller: *cfg, Sums: map[string]string{},
	}
	if m.CA, err = ca.Fingerprint(sealed.Certificate); err != nil {
		return none, err
	}
	keys, err := sealKeys(*sealed, o.Recipients)
	if err != nil {
		return none, err
	}
	m.Sums[backupKeys] = sumOf(keys)
	dir := filepath.Dir(o.Path)
	tmp, err := os.CreateTemp(dir, ".clocker-backup-*")
	if err != nil {
		return none, fmt.Errorf("write backup: %w", err)
	}
	defer func() { _ = tmp.Close(); _ = os.Remove(tmp.Name()) }() // it has served
	say(StepSnapshot, Doing, "reading etcd")
	if err := writeSnapshot(ctx, o, tmp, &m); err != nil {
		return none, err
	}
	say(StepSnapshot, Done, "snapshot of etcd taken (%d bytes)", m.SnapshotBytes)
	return m, writeArchive(o.Path, m, keys, tmp)
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// sealKeys encrypts the authority's files as one tar.
func sealKeys(s ca.Sealed, to []age.Recipient) ([]byte, error) {
	plain, err := archive(map[string]file{
		ca.CertificateFile: {s.Certificate, 0o644}, ca.IdentityFile: {s.Identity, 0o600}, ca.SealedKeyFile: {s.Key, 0o600},
	}, time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypt backup: %w", err)
	}
	if _, err := io.Copy(w, plain); err != nil {
		return nil, fmt.Errorf("encrypt backup: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt backup: %w", err)
	}
	return out.Bytes(), nil
}

// writeSnapshot writes etcd's snapshot into tmp, encrypted, and checks it: its
// last 32 bytes are the SHA-256 of those before.
func writeSnapshot(ctx context.Context, o BackupOptions, tmp *os.File, m *BackupManifest) error {
	s, err := o.API.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("take snapshot: %w", err)
	}
	defer func() { _ = s.Close() }() // read only
	sum := sha256.New()
	w, err := age.Encrypt(io.MultiWriter(tmp, sum), o.Recipients...)
	if err != nil {
		return fmt.Errorf("encrypt backup: %w", err)
	}
	check := &trailer{sum: sha256.New()}
	if m.SnapshotBytes, err = io.Copy(io.MultiWriter(w, check), s); err != nil {
		return fmt.Errorf("take snapshot: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("encrypt backup: %w", err)
	}
	if !check.good() {
		return fmt.Errorf("take snapshot: it is cut off after %d bytes: try again", m.SnapshotBytes)
	}
	m.Sums[backupEtcd] = hex.EncodeToString(sum.Sum(nil))
	return nil
}

func writeArchive(path string, m BackupManifest, keys []byte, etcd *os.File) error {
	size, err := etcd.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if _, err := etcd.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	out, err := os.CreateTemp(filepath.Dir(path), ".clocker-backup-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	defer func() { _ = out.Close(); _ = os.Remove(out.Name()) }() // gone when the rename went well
	w := tar.NewWriter(out)
	for _, f := range []struct {
		name string
		size int64
		data io.Reader
	}{
		{backupManifest, int64(len(text)), bytes.NewReader(text)},
		{backupKeys, int64(len(keys)), bytes.NewReader(keys)},
		{backupEtcd, size, etcd},
	} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o600, Size: f.size, ModTime: m.CreatedAt}
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
		if _, err := io.Copy(w, f.data); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
	}
	if err := errors.Join(w.Close(), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}
