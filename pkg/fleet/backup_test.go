package fleet

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"filippo.io/age"
	"gotest.tools/v3/assert"

	"clocker.io/clocker/pkg/fleet/ca"
	"clocker.io/clocker/pkg/fleet/controllerconfig"
)

// snapshots gives the same snapshot each time.
type snapshots []byte

func (s snapshots) Snapshot(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s)), nil
}

// pack writes an archive as Backup does, but for reading an engine.
func pack(t *testing.T, snapshot []byte, to ...age.Recipient) (path string, sealed ca.Sealed) {
	t.Helper()
	a, err := ca.Create("prod", time.Now)
	assert.NilError(t, err)
	sealed, err = a.Seal()
	assert.NilError(t, err)
	keys, err := sealKeys(sealed, to)
	assert.NilError(t, err)
	m := BackupManifest{
		Format: BackupFormat, Fleet: "prod", CreatedAt: time.Unix(1, 0), Version: "1",
		Controller: controllerconfig.Config{Fleet: "prod", Name: "c"}, Sums: map[string]string{backupKeys: sumOf(keys)},
	}
	tmp, err := os.Create(filepath.Join(t.TempDir(), "tmp"))
	assert.NilError(t, err)
	defer tmp.Close()
	o := BackupOptions{API: snapshots(snapshot), Recipients: to}
	assert.NilError(t, writeSnapshot(t.Context(), o, tmp, &m))
	path = filepath.Join(t.TempDir(), "fleet.backup")
	assert.NilError(t, writeArchive(path, m, keys, tmp))
	return path, sealed
}

func etcdSnapshot(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 300_000)
	_, err := rand.Read(b)
	assert.NilError(t, err)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func TestABackupIsReadBack(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	assert.NilError(t, err)
	other, err := age.GenerateX25519Identity()
	assert.NilError(t, err)
	snapshot := etcdSnapshot(t)
	path, sealed := pack(t, snapshot, id.Recipient())
	text, err := os.ReadFile(path)
	assert.NilError(t, err)
	for _, secret := range [][]byte{sealed.Identity, sealed.Key, snapshot[:64]} {
		assert.Assert(t, !bytes.Contains(text, secret), "a secret is in clear")
	}
	a, err := OpenBackup(path, id)
	assert.NilError(t, err)
	assert.DeepEqual(t, *a.sealed, sealed)
	var got bytes.Buffer
	assert.NilError(t, a.snapshot(func(r io.Reader, size int64) error {
		assert.Equal(t, size, int64(len(snapshot)))
		_, err := io.Copy(&got, r)
		return err
	}))
	assert.Assert(t, bytes.Equal(got.Bytes(), snapshot))

	_, err = OpenBackup(path, other)
	assert.ErrorIs(t, err, ErrSecret)
	for name, at := range map[string]int{"early": len(text) / 3, "late": len(text) - len(text)/5} {
		damaged := bytes.Clone(text)
		damaged[at] ^= 1
		assert.NilError(t, os.WriteFile(path, damaged, 0o600))
		_, err = OpenBackup(path, id)
		assert.ErrorIs(t, err, ErrBackup, name)
		assert.NilError(t, os.WriteFile(path, text[:at], 0o600))
		_, err = OpenBackup(path, id)
		assert.ErrorIs(t, err, ErrBackup, "cut off "+name)
	}
	assert.NilError(t, os.WriteFile(path, []byte("something else"), 0o600))
	_, err = OpenBackup(path, id)
	assert.ErrorIs(t, err, ErrBackup)
}

func TestASnapshotThatIsCutOffIsNoBackup(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	assert.NilError(t, err)
	tmp, err := os.Create(filepath.Join(t.TempDir(), "tmp"))
	assert.NilError(t, err)
	defer tmp.Close()
	whole := etcdSnapshot(t)
	m := BackupManifest{Sums: map[string]string{}}
	for _, n := range []int{0, 10, 1000, len(whole) - 1} {
		o := BackupOptions{API: snapshots(whole[:n]), Recipients: []age.Recipient{id.Recipient()}}
		assert.ErrorContains(t, writeSnapshot(t.Context(), o, tmp, &m), "cut off")
	}
}
